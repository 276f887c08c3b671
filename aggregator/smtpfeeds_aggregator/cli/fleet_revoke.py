"""`smtpfeeds fleet revoke` and `retire`: delete accounts, and record that."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from smtpfeeds_common.answers import note
from smtpfeeds_common.errors import FleetError, SmtpfeedsError

from ..fleet.closing import wait_until_closed
from .database import connected
from .fleet_accounts import check_name, refuse_others, refuse_unknown
from .fleet_options import management_options
from .options import CONFIG, DSN, FOLDER, database_options, database_settings

if TYPE_CHECKING:
    from ..fleet.management import Management
    from ..settings import AggregatorSettings


@click.command("revoke", short_help="Delete accounts, and close their connections.")
@click.argument("names", nargs=-1, required=True, metavar="NAME...")
@management_options
@CONFIG
@DSN
@FOLDER
def revoke(
    management: "Management",
    names: tuple[str, ...],
    config: Path | None,
    dsn: str | None,
    folder: Path | None,
) -> None:
    """Delete the account of each sensor NAME at once, and close its connections.

    It needs no database; if the database answers, the revocation is recorded there. What the sensor
    reported stays; `smtpfeeds sensors purge` deletes it. A client certificate cannot log in without
    its account. Repeated for a revoked sensor, it only closes what is still open.

    \b
    Example:
      smtpfeeds fleet revoke acme-berlin
    """
    accounts = management.accounts()
    without = [name for name in map(check_name, names) if name not in accounts]
    again = _revoked_before(management, without, config, dsn, folder)
    refuse_unknown(management, [name for name in names if name not in again])
    for name in names:
        management.delete(name)
    try:
        _record_revoked(names, config, dsn, folder)
    except SmtpfeedsError as exc:
        note(f"not recorded in the database, so `fleet check` reports `no_account`: {exc.message}")
    wait_until_closed(management, names, note)
    for name in names:
        click.echo(f"{name}: revoked")


def _revoked_before(
    management: "Management",
    names: Sequence[str],
    config: Path | None,
    dsn: str | None,
    folder: Path | None,
) -> set[str]:
    """Return which of these names without an account have connections, or are recorded as revoked.

    If the database does not answer, the broker's connections alone decide.
    """
    from ..store.fleet import FleetStore

    revoked = {name for name in names if management.connections(name)}
    if revoked.issuperset(names):
        return revoked
    try:
        with database_settings(config, dsn, folder) as settings, connected(settings) as connection:
            return revoked.union(FleetStore(connection).revoked_of(names))
    except SmtpfeedsError:
        return revoked


def _record_revoked(
    names: Sequence[str], config: Path | None, dsn: str | None, folder: Path | None
) -> None:
    from ..store.fleet import FleetStore

    with (
        database_settings(config, dsn, folder) as settings,
        connected(settings, write=True) as connection,
    ):
        store = FleetStore(connection)
        for name in names:
            store.revoked(name)


@click.command("retire", short_help="Take sensors out of service; what they reported stays.")
@click.argument("names", nargs=-1, required=True, metavar="NAME...")
@management_options
@database_options
def retire(
    settings: "AggregatorSettings", management: "Management", names: tuple[str, ...]
) -> None:
    """Take each sensor NAME out of service: revoke it, and expect no more events from it.

    What it reported stays in the database and, until it expires, in the feeds. `smtpfeeds sensors`
    lists it only with --all, and `fleet check` does not report it. `fleet enroll` brings it back.

    \b
    Example:
      smtpfeeds fleet retire acme-berlin
    """
    from ..store.epochs import EpochStore
    from ..store.fleet import FleetStore

    accounts = management.accounts()
    refuse_others(accounts, [check_name(name) for name in names])
    with connected(settings, write=True) as connection:
        epochs, store = EpochStore(connection), FleetStore(connection)
        for name in names:
            if name not in accounts and not epochs.epochs(name):
                raise FleetError(f"there is no sensor {name}; `smtpfeeds fleet list` lists them")
        for name in names:
            management.delete(name)
            store.retired(name)
    wait_until_closed(management, names, note)
    for name in names:
        click.echo(f"{name}: retired")
