"""`smtpfeeds fleet enroll` and `rotate`: accounts of sensors, and a bundle for each."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from smtpfeeds_common.answers import note
from smtpfeeds_common.existing_path import ExistingPath

from ..fleet.closing import wait_until_closed
from .database import connected
from .fleet_accounts import (
    begin_epochs,
    check_external,
    check_name,
    progress,
    refuse_others,
    refuse_unknown,
)
from .fleet_options import bundle_options, management_options
from .options import database_options

if TYPE_CHECKING:
    from ..fleet.bundles import Bundles
    from ..fleet.management import Management
    from ..settings import AggregatorSettings


@click.command("enroll", short_help="Create accounts of sensors, and a bundle for each.")
@click.argument("names", nargs=-1, metavar="[NAME]...")
@click.option(
    "--file",
    "name_file",
    type=ExistingPath(dir_okay=False, allow_dash=True),
    help="Read names from this file, one on each line; - is the standard input.",
)
@click.option(
    "--workers",
    type=click.IntRange(1, 64),
    help="Processes of each sensor; its account may have connections for that many. Default: 1, "
    "or as before for an account that exists.",
)
@click.option(
    "--certificate",
    "with_certificate",
    is_flag=True,
    help="The sensors log in with client certificates of the fleet's authority, and have no "
    "password.",
)
@click.option(
    "--reuse-name",
    is_flag=True,
    help="Enrol a revoked sensor again although its earlier certificate is still valid: you are "
    "sure that nobody else has its key.",
)
@bundle_options
@management_options
@database_options
def enroll(
    settings: "AggregatorSettings",
    management: "Management",
    bundles: "Bundles",
    names: tuple[str, ...],
    name_file: Path | None,
    workers: int | None,
    *,
    with_certificate: bool,
    reuse_name: bool,
) -> None:
    """Create an account for each sensor NAME, and a bundle with everything that its host needs.

    An account can publish under its own name and do nothing else. An existing one keeps its
    password or certificate, and gets its rights and limits again: `fleet rotate` replaces the
    password. A sensor that was revoked or retired comes back, in a new epoch.

    \b
    Examples:
      smtpfeeds fleet enroll acme-berlin --broker amqps://broker.example/smtpfeeds \\
          --package smtpfeeds-0.2.0-py3-none-any.whl --output bundles
      smtpfeeds fleet enroll --file names --broker amqps://broker.example/smtpfeeds \\
          --package smtpfeeds-0.2.0-py3-none-any.whl --output bundles
    """
    from ..store.fleet import FleetStore

    wanted = _wanted(names, name_file)
    if with_certificate:
        check_external(management)
    existing = management.accounts()
    refuse_others(existing, wanted)
    missing = [name for name in wanted if name not in existing]
    with connected(settings, write=True) as connection:
        store = FleetStore(connection)
        if not reuse_name:
            bundles.refuse_valid_certificates(store.revoked_of(missing))
        # Bundles first: the password of an account without a bundle would be lost.
        accounts = []
        with progress(len(missing), "bundles") as show:
            for number in show(range(1, len(missing) + 1)):
                name = missing[number - 1]
                account = bundles.create(name, workers or 1, with_certificate=with_certificate)
                accounts.append(account)
        begin_epochs(connection, store.heard(missing))
        store.enroll(wanted)
    management.put_rights(
        [(name, workers or existing[name].workers or 1) for name in wanted if name in existing]
    )
    with progress(len(missing), "accounts") as show:
        for _ in show(management.put_sensors(accounts)):
            pass
    for name in wanted:
        if name in existing:
            note(f"{name} has an account already, and keeps its password or certificate")
    if len(missing) == 1:
        path = bundles.path(missing[0])
        click.echo(f"wrote {path}: copy it to the sensor's host and run its install.sh")
    click.echo(f"enrolled {len(missing)} of {len(wanted)}")


@click.command("rotate", short_help="Give a sensor a new password and a new epoch.")
@click.argument("name")
@click.option(
    "--workers",
    type=click.IntRange(1, 64),
    help="As for `enroll`; default: as many as its account was created for.",
)
@click.option(
    "--certificate/--password",
    "with_certificate",
    default=None,
    help="How the sensor logs in from now on; default: as before.",
)
@bundle_options
@management_options
@database_options
def rotate(
    settings: "AggregatorSettings",
    management: "Management",
    bundles: "Bundles",
    name: str,
    workers: int | None,
    *,
    with_certificate: bool | None,
) -> None:
    """Revoke a sensor's password, begin a new epoch, and create a new account and a new bundle.

    The sensor keeps its events until its new bundle is installed, and then delivers them. You can
    run this again after a failure, and after `fleet revoke`. What the queue still holds counts in
    the new epoch: after a theft revoke first, and wait until the queue is empty.

    A certificate that was issued earlier works until it expires, because it has the same name.
    After the theft of a certificate's key, retire the sensor and enrol one with another name.

    \b
    Example:
      smtpfeeds fleet rotate acme-berlin --broker amqps://broker.example/smtpfeeds \\
          --package smtpfeeds-0.2.0-py3-none-any.whl --output bundles
    """
    from ..store.epochs import EpochStore
    from ..store.fleet import FleetStore

    check_name(name)
    accounts = management.accounts()
    refuse_others(accounts, [name])
    old = accounts.get(name)
    if with_certificate is None:
        with_certificate = old is not None and not old.has_password
    if with_certificate:
        check_external(management)
    with connected(settings, write=True) as connection:
        if not EpochStore(connection).epochs(name):
            refuse_unknown(management, [name])
        store = FleetStore(connection)
        bundles.note_valid_certificate(name)
        account = bundles.create(
            name,
            workers or (None if old is None else old.workers) or 1,
            with_certificate=with_certificate,
        )
        management.delete(name)
        wait_until_closed(management, [name], note)
        store.enroll([name])
        (epoch,) = begin_epochs(connection, [name])
    for _ in management.put_sensors([account]):
        pass
    click.echo(
        f"{name}: epoch {epoch}; wrote {bundles.path(name)}: install it on the sensor's host"
    )


def _wanted(names: Sequence[str], name_file: Path | None) -> list[str]:
    """Return the names of both sources, each once."""
    wanted = list(dict.fromkeys(map(check_name, [*names, *_lines(name_file)])))
    if not wanted:
        raise click.UsageError("name a sensor, or give --file")
    return wanted


def _lines(file: Path | None) -> Sequence[str]:
    if file is None:
        return []
    with click.open_file(str(file)) as stream:
        return [line.strip() for line in stream if line.strip()]
