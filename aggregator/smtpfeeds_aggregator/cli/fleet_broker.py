"""`smtpfeeds fleet broker`: RabbitMQ's certificate and settings, on the broker's host."""

from pathlib import Path
from typing import Final

import click

from smtpfeeds_common.answers import note
from smtpfeeds_common.existing_path import ExistingPath

from .fleet_options import ca_option

FOLDER: Final = "/etc/rabbitmq"


@click.command("broker", short_help="Write RabbitMQ's certificate and settings.")
@click.argument("hosts", nargs=-1, required=True, metavar="HOST...")
@click.option(
    "--output",
    type=ExistingPath(file_okay=False),
    default=FOLDER,
    show_default=True,
    help="RabbitMQ's folder of settings.",
)
@click.option(
    "--renew-days",
    type=click.IntRange(0, 3_650),
    default=60,
    show_default=True,
    help="Replace a certificate that expires within this many days.",
)
@ca_option
def broker(ca_folder: Path, output: Path, hosts: tuple[str, ...], renew_days: int) -> None:
    """Write RabbitMQ's certificate and settings, as root on the broker's host.

    Clients reach the broker under the HOSTs: names or addresses. With these settings other hosts
    connect by TLS alone, with a password or a client certificate of the authority; plain AMQP and
    the management API listen on 127.0.0.1.

    Run it again to renew the certificate: RabbitMQ reads the new one by itself, within minutes. A
    valid certificate is kept.

    \b
    Examples:
      smtpfeeds fleet broker broker.example
      smtpfeeds fleet broker broker.example 2001:db8::1 --renew-days 397
    """
    from ..fleet.authority import Authority
    from ..fleet.broker import CERTIFICATE, PLUGINS, SETTINGS, TRUSTED, owner_of, write_broker

    changed = write_broker(Authority.load(ca_folder), hosts, output, renew_days)
    for name in (SETTINGS, CERTIFICATE, TRUSTED):
        click.echo(output / name)
    if owner := owner_of(output / CERTIFICATE):
        note(f"{output / CERTIFICATE} belongs to {owner}: let the user of RabbitMQ read it")
    if changed:
        note(
            f"now run `rabbitmq-plugins enable {' '.join(PLUGINS)}`, then "
            "`systemctl restart rabbitmq-server`"
        )
