"""`smtpfeeds fleet ca`: the private certificate authority that the fleet trusts."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import click

from smtpfeeds_common.answers import Form, format_options, write_records
from smtpfeeds_common.columns import Column
from smtpfeeds_common.errors import FleetError
from smtpfeeds_common.existing_path import ExistingPath

from .fleet_options import ca_option

_COLUMNS: Final = (
    Column("name", help="Whose certificate it is."),
    Column("kind", help="`authority`, `server` or `client`."),
    Column("begins", "time", help="Valid from.", rank=1),
    Column("ends", "time", help="Valid until."),
    Column("days_left", "integer", help="Whole days until it ends; negative once it has ended."),
    Column("fingerprint", help="SHA-256 of the certificate.", rank=2, least=12),
)


@click.group("ca", short_help="Create, renew and show the certificate authority.")
def authority() -> None:
    """Create, renew and show a private certificate authority.

    Its private key stays in its folder, and only the owner can read it. Sensors and aggregators
    need ca.pem.
    """


@authority.command("init", short_help="Create an authority.")
@click.option("--name", default="smtpfeeds", show_default=True, help="Its name.")
@ca_option
def init(ca_folder: Path, name: str) -> None:
    """Create an authority in a folder that has none.

    \b
    Example:
      smtpfeeds fleet ca init --name "Example fleet"
    """
    from ..fleet.authority import CERTIFICATE, KEY, Authority

    Authority.create(ca_folder, name)
    click.echo(
        f"wrote {ca_folder / CERTIFICATE}, for other hosts, and {ca_folder / KEY}: keep it secret"
    )


@authority.command("renew", short_help="Give the authority a new certificate.")
@ca_option
def renew(ca_folder: Path) -> None:
    """Give the authority a new certificate with its old key.

    Certificates that it issued stay valid. Copy the new ca.pem to the hosts before the old one
    expires.

    \b
    Example:
      smtpfeeds fleet ca renew
    """
    from ..fleet.authority import CERTIFICATE, Authority

    Authority.load(ca_folder).renew()
    click.echo(f"wrote {ca_folder / CERTIFICATE}: copy it to the hosts that have the old one")


@authority.command("server", short_help="Issue a certificate for a server.")
@click.argument("name")
@click.argument("hosts", nargs=-1, required=True, metavar="HOST...")
@click.option(
    "--output",
    required=True,
    type=ExistingPath(file_okay=False),
    help="Write NAME.pem and NAME.key into this folder.",
)
@ca_option
def server(ca_folder: Path, name: str, hosts: tuple[str, ...], output: Path) -> None:
    """Issue a certificate for the server NAME, such as the broker.

    Clients reach it under the HOSTs: names or addresses. The command never overwrites a key.

    \b
    Example:
      smtpfeeds fleet ca server broker broker.example 192.0.2.1 --output /etc/rabbitmq
    """
    from ..fleet.authority import Authority, write_issued

    certificate, key = output / f"{name}.pem", output / f"{name}.key"
    authority = Authority.load(ca_folder)
    if certificate.exists() or key.exists():
        raise FleetError(f"{output} has a certificate or key of {name}: move them away first")
    write_issued(authority.issue_server(name, list(hosts)), certificate, key)
    click.echo(f"wrote {certificate} and {key}: the server's user must be able to read them")


@authority.command("show", short_help="Show the certificates and when they end.")
@format_options(_COLUMNS)
@ca_option
def show(ca_folder: Path, form: Form) -> None:
    """Show the authority's certificate and those that it issued, and when they end.

    \b
    Examples:
      smtpfeeds fleet ca show
      smtpfeeds fleet ca show --json
    """
    from ..fleet.authority import Authority

    now = datetime.now(UTC)
    records = (
        {
            "name": one.name,
            "kind": one.kind,
            "begins": one.begins,
            "ends": one.ends,
            "days_left": (one.ends - now).days,
            "fingerprint": one.fingerprint,
        }
        for one in Authority.load(ca_folder).validities()
    )
    write_records(records, form, "no certificates")
