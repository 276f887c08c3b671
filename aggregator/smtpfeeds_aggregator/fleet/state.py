"""The state of each sensor: what the database, the broker and the authority know of it. Pure.

A sensor has a row in the database, an account at the broker, and perhaps a certificate.
Each can be missing, so all three are joined by name.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from ..store.status import SensorState
from .authority import Validity
from .management import BrokerConnection
from .rights import BrokerAccount


@dataclass(frozen=True, slots=True, kw_only=True)
class SensorReport:
    """What is known of one sensor."""

    name: str
    #: None: the database does not know it.
    row: SensorState | None = None
    #: None: it has no account at the broker.
    account: BrokerAccount | None = None
    connections: tuple[BrokerConnection, ...] = ()
    #: Messages in open transactions, which the broker holds in its memory; None: no transaction.
    uncommitted: int | None = None
    #: Of its client certificate; None: it has none, or no authority was asked.
    certificate: Validity | None = None

    @property
    def state(self) -> str:
        """The state as in a list of sensors; an account without a row is `unknown`."""
        return "unknown" if self.row is None else self.row.state

    @property
    def peers(self) -> list[str]:
        """The addresses of its connections."""
        return sorted({connection.peer for connection in self.connections})

    @property
    def login(self) -> str | None:
        """How its account logs in: by `password` or `certificate`."""
        if self.account is None:
            return None
        return "password" if self.account.has_password else "certificate"


def reports(
    states: Iterable[SensorState],
    accounts: Mapping[str, BrokerAccount],
    connections: Iterable[BrokerConnection],
    certificates: Iterable[Validity],
    uncommitted: Mapping[str, int],
) -> list[SensorReport]:
    """Return all sensors by name.

    Args:
        states: the database's sensors; without accounts whose messages were all refused.
        accounts: all of the broker by name, also those that are not a sensor's.
        connections: all of the broker.
        certificates: what the authority issued.
        uncommitted: by account, the messages in open transactions.
    """
    rows = {state.name: state for state in states if state.epoch is not None}
    open_now: dict[str, list[BrokerConnection]] = {}
    for connection in connections:
        open_now.setdefault(connection.account, []).append(connection)
    issued = {one.name: one for one in certificates if one.kind == "client"}
    ours = {name for name, account in accounts.items() if account.is_ours}
    # A connection outlives its account until the broker or we close it.
    left_over = {name for name in open_now if name and name not in accounts}
    return [
        SensorReport(
            name=name,
            row=rows.get(name),
            account=accounts.get(name),
            connections=tuple(open_now.get(name, ())),
            uncommitted=uncommitted.get(name),
            certificate=issued.get(name),
        )
        for name in sorted(rows.keys() | ours | left_over)
    ]
