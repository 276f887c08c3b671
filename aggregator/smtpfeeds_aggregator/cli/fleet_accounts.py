"""What several commands of `smtpfeeds fleet` do with accounts."""

import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

import click

from smtpfeeds_common.answers import note
from smtpfeeds_common.errors import FleetError, SettingsError
from smtpfeeds_common.topology import check_sensor_name

if TYPE_CHECKING:
    from ..fleet.management import Management
    from ..fleet.rights import BrokerAccount
    from ..store.connection import Connection

#: The aggregator's account.
CENTRE: Final = "smtpfeeds-aggregator"
_NO_EXTERNAL: Final = (
    "the broker accepts no client certificates: run `smtpfeeds fleet broker` on its host, enable "
    "the plugin rabbitmq_auth_mechanism_ssl there, and start it again"
)
#: A progress bar is shown for this many and more.
_WORTH_A_BAR: Final = 20


def check_name(name: str) -> str:
    """Return the name.

    Raises:
        SettingsError: no sensor can have it.
    """
    check_sensor_name(name)
    if name == CENTRE:
        raise SettingsError(f"{CENTRE} is the aggregator's account")
    return name


def refuse_unknown(management: "Management", names: Iterable[str]) -> None:
    """Refuse names of sensors that have no account.

    Raises:
        FleetError: one of them has none.
    """
    sensors = set(management.sensors())
    for name in names:
        if name not in sensors:
            raise FleetError(f"no sensor has the account {name}; `smtpfeeds fleet list` lists them")


def refuse_others(accounts: "Mapping[str, BrokerAccount]", names: Iterable[str]) -> None:
    """Refuse names of accounts that an operator created for something else.

    Raises:
        FleetError: the broker has such an account.
    """
    for name in names:
        if name in accounts and not accounts[name].is_ours:
            raise FleetError(
                f"the account {name} of the broker is not a sensor's: choose another name"
            )


def check_external(management: "Management") -> None:
    """Check that the broker accepts client certificates.

    Raises:
        FleetError: it says that it does not.
    """
    if not management.accepts_certificates():
        raise FleetError(_NO_EXTERNAL)


def note_external(management: "Management") -> None:
    """Write how client certificates are switched on, if the broker accepts none."""
    if not management.accepts_certificates():
        note(_NO_EXTERNAL)


def begin_epochs(connection: "Connection", names: Sequence[str]) -> list[int]:
    """Begin a new epoch of each of these sensors, which have a row; returns its number."""
    from ..store.epochs import EpochStore

    store = EpochStore(connection)
    return [
        store.rotate(name, waiting=lambda: note("waiting for ingest to pause")) for name in names
    ]


@contextmanager
def progress(total: int, label: str) -> Iterator[Callable[[Iterable[int]], Iterator[int]]]:
    """Show how many are done, on a terminal and where there are many.

    Yields a function that passes such numbers on and shows each.
    """
    if total < _WORTH_A_BAR or not sys.stderr.isatty():
        yield iter
        return
    with click.progressbar(length=total, label=label, file=sys.stderr) as bar:

        def show(numbers: Iterable[int]) -> Iterator[int]:
            for done in numbers:
                bar.update(done - bar.pos)
                yield done

        yield show
