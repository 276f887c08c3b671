"""`smtpfeeds fleet`: the accounts of sensors at the broker, and a bundle for each."""

import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from smtpfeeds_common.answers import Form, format_options, note, write_records
from smtpfeeds_common.columns import Column
from smtpfeeds_common.errors import FleetError, SettingsError
from smtpfeeds_common.settings import read_secret
from smtpfeeds_common.topology import check_sensor_name

from .database import connected
from .fleet_ca import authority
from .fleet_options import bundle_options, management_options
from .options import EXIT_CODES, database_options

if TYPE_CHECKING:
    from ..fleet.management import Management, SensorAccount
    from ..settings import AggregatorSettings

#: The aggregator's account, and its rights: it declares its exchange and both queues, and publishes
#: what it refuses through the default exchange.
CENTRE: Final = "smtpfeeds-aggregator"
_OWN: Final = r"^smtpfeeds(\..*)?$"
CENTRE_RIGHTS: Final = {
    "configure": _OWN,
    "write": r"^(smtpfeeds(\..*)?|amq\.default)$",
    "read": _OWN,
}
#: The broker takes a connection off its list some seconds after it was closed.
_LOOKS: Final = 8
_LOOK_S: Final = 1.0
_ACCOUNTS: Final = (
    Column("name", least=12),
    Column("connections", "integer", "open at the broker now"),
    Column("peers", "texts", "where they come from", least=12),
)


@click.group("fleet", short_help="Enrol, rotate and revoke sensors; the certificate authority.")
def fleet() -> None:
    """Look after the sensors of a fleet: accounts at the broker, bundles, the authority.

    The broker needs the plugin rabbitmq_management. A name may begin with its operator's, such as
    acme-berlin.
    """


fleet.add_command(authority)


@fleet.command("set-up", short_help="Make the virtual host and the centre's account.")
@click.option(
    "--password-file",
    "centre_password",
    required=True,
    type=click.Path(path_type=Path, dir_okay=False, exists=True),
    help="A file whose first line is to be the aggregator's password.",
)
@management_options
def set_up(management: "Management", centre_password: Path) -> None:
    """Make the virtual host and the aggregator's account in it; may be run again.

    The aggregator declares the exchange and both queues itself when it starts.

    \b
    Example:
      smtpfeeds fleet set-up --password-file /etc/smtpfeeds/broker-password
    """
    management.add_vhost()
    password = read_secret("", str(centre_password), name="--password-file")
    management.put_account(CENTRE, password, CENTRE_RIGHTS)
    click.echo(f"the account {CENTRE} is ready")


@fleet.command("enroll", short_help="Make accounts of sensors, and a bundle for each.")
@click.argument("names", nargs=-1, metavar="[NAME]...")
@click.option(
    "--file",
    "name_file",
    type=click.Path(path_type=Path, dir_okay=False, exists=True, allow_dash=True),
    help="Read names from this file, one a line; - is the standard input.",
)
@click.option(
    "--workers",
    type=click.IntRange(1, 64),
    default=1,
    show_default=True,
    help="Processes of each sensor; its account may have connections for so many.",
)
@bundle_options
@management_options
def enroll(
    management: "Management",
    make_bundle: Callable[["SensorAccount"], Path],
    names: tuple[str, ...],
    name_file: Path | None,
    workers: int,
) -> None:
    """Make an account for each sensor NAME, and a bundle with all that its host needs.

    An account may publish under its own name and nothing else. One that exists keeps its password,
    and its limits are set again: `fleet rotate` gives it a new one.

    \b
    Examples:
      smtpfeeds fleet enroll acme-berlin --broker amqps://broker.example/smtpfeeds \\
          --package smtpfeeds-0.2.0-py3-none-any.whl --output bundles
      smtpfeeds fleet enroll --file names --broker amqps://broker.example/smtpfeeds \\
          --package smtpfeeds-0.2.0-py3-none-any.whl --output bundles
    """
    from ..fleet.management import SensorAccount, new_password

    wanted = list(dict.fromkeys([*names, *_lines(name_file)]))
    if not wanted:
        raise click.UsageError("name a sensor, or give --file")
    for name in wanted:
        _check(name)
    there = set(management.sensors())
    for name in wanted:
        if name in there:
            management.put_limits(SensorAccount(name, None, workers))
            note(f"{name} has an account already, and keeps its password")
        elif management.exists(name):
            raise FleetError(
                f"the account {name} of the broker is no sensor's: choose another name"
            )
    accounts = [
        SensorAccount(name, new_password(), workers) for name in wanted if name not in there
    ]
    for account in accounts:
        # First: an account without its bundle would be one whose password nobody has.
        path = make_bundle(account)
        if len(accounts) == 1:
            click.echo(f"wrote {path}: carry it to the sensor's host and run its install.sh")
    with _progress(len(accounts)) as show:
        for done in management.put_sensors(accounts):
            show(done)
    click.echo(f"enrolled {len(accounts)} of {len(wanted)}")


@fleet.command("rotate", short_help="Give a sensor a new password and a new epoch.")
@click.argument("name")
@click.option(
    "--workers",
    type=click.IntRange(1, 64),
    help="As at `enroll`; default: as many as its account was made for.",
)
@bundle_options
@management_options
@database_options
def rotate(
    settings: "AggregatorSettings",
    management: "Management",
    make_bundle: Callable[["SensorAccount"], Path],
    name: str,
    workers: int | None,
) -> None:
    """End a sensor's password, begin a new epoch at the centre, and make a new account and bundle.

    The sensor keeps what it hears until its new bundle is installed, and delivers it then. It may
    be run again where it failed, and after `fleet revoke`. What the queue still holds counts to the
    new epoch: after a theft revoke first, and wait until the queue is empty.

    \b
    Example:
      smtpfeeds fleet rotate acme-berlin --broker amqps://broker.example/smtpfeeds \\
          --package smtpfeeds-0.2.0-py3-none-any.whl --output bundles
    """
    from ..fleet.management import SensorAccount, new_password
    from ..store.epochs import EpochStore

    _check(name)
    with connected(settings, write=True) as connection:
        store = EpochStore(connection)
        is_heard = bool(store.epochs(name))
        if not is_heard:
            _known(management, name)
        account = SensorAccount(name, new_password(), workers or management.workers(name) or 1)
        path = make_bundle(account)
        _revoke(management, name)
        epoch = 1
        if is_heard:
            epoch = store.rotate(name, waiting=lambda: note("waiting for ingest to pause"))
    for _ in management.put_sensors([account]):
        pass
    click.echo(f"{name}: epoch {epoch}; wrote {path}: install it on the sensor's host")


@fleet.command("revoke", short_help="Take accounts away, and close their connections.")
@click.argument("names", nargs=-1, required=True, metavar="NAME...")
@management_options
def revoke(management: "Management", names: tuple[str, ...]) -> None:
    """Take the account of each sensor NAME away at once, and close its connections.

    What it reported stays: `smtpfeeds sensors purge` takes that out.

    \b
    Example:
      smtpfeeds fleet revoke acme-berlin
    """
    for name in names:
        _known(management, _check(name))
    for name in names:
        _revoke(management, name)
        click.echo(f"{name}: revoked")


@fleet.command("list", epilog=EXIT_CODES, short_help="List the accounts of sensors.")
@click.option("--operator", default="", metavar="PREFIX", help="Only names that begin so.")
@format_options(_ACCOUNTS)
@management_options
def list_accounts(management: "Management", operator: str, form: Form) -> None:
    """List the accounts of sensors at the broker, and the connections of each.

    What the centre heard of them is in `smtpfeeds sensors`.

    \b
    Example:
      smtpfeeds fleet list --operator acme-
    """
    peers: dict[str, list[str]] = {}
    for connection in management.connections():
        peers.setdefault(connection.account, []).append(connection.peer)
    records = (
        {
            "name": name,
            "connections": len(peers.get(name, ())),
            "peers": sorted(set(peers.get(name, ()))),
        }
        for name in management.sensors()
        if name.startswith(operator)
    )
    write_records(records, form, "no sensor has an account")


def _check(name: str) -> str:
    check_sensor_name(name)
    if name == CENTRE:
        raise SettingsError(f"{CENTRE} is the aggregator's account")
    return name


def _known(management: "Management", name: str) -> None:
    if name not in management.sensors():
        raise FleetError(f"no sensor has the account {name}; `smtpfeeds fleet list` lists them")


def _revoke(management: "Management", name: str) -> None:
    """Delete the account, then its connections; look until the broker lists none."""
    management.delete(name)
    for _ in range(_LOOKS):
        if not management.close_connections(name):
            return
        time.sleep(_LOOK_S)
    raise FleetError(f"{name} has no account any more, but the broker still lists its connections")


def _lines(file: Path | None) -> Sequence[str]:
    if file is None:
        return []
    with click.open_file(str(file)) as stream:
        return [line.strip() for line in stream if line.strip()]


@contextmanager
def _progress(total: int) -> Iterator[Callable[[int], None]]:
    """Show how many accounts are made, on a terminal and where there are many."""
    if total < 2 or not sys.stderr.isatty():
        yield lambda _: None
        return
    with click.progressbar(length=total, label="accounts", file=sys.stderr) as bar:
        yield lambda done: bar.update(done - bar.pos)
