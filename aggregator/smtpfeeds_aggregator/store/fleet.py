"""The fleet in the database: which sensors are enrolled, revoked or retired.

A sensor has a row from its enrolment on, so that `fleet check` reports one that never delivers.
Its rows stay when it is revoked or retired; ``forget`` deletes them.
"""

from collections.abc import Callable, Sequence
from datetime import datetime
from functools import partial
from typing import Any, Final, NamedTuple

from smtpfeeds_common.errors import DatabaseUnavailable

from .connection import Connection
from .epochs import EpochStore, while_ingest_pauses
from .errors import database_errors
from .purge import Purged, PurgeStore, part_of_epoch
from .rows import enrolment_of
from .sql import queries

#: Attempts to forget a sensor that delivers meanwhile.
_FORGET_TRIES: Final = 3


class SensorDetail(NamedTuple):
    """Details of one sensor that the list of sensors does not have."""

    #: Counts since the sensor started, by name.
    counters: dict[str, int]
    #: Number of addresses that it listens on; 0 if not known.
    addresses: int
    last_client: str | None
    last_client_at: datetime | None
    #: Number of messages that the centre refused in the last 24 hours, by reason.
    refused: dict[str, int]


class FleetStore:
    """Records the state of sensors' accounts, on one connection in autocommit mode."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._sql = queries("fleet.sql")

    def enroll(self, names: Sequence[str]) -> None:
        """Add rows for sensors, or clear that they were revoked or retired."""
        with database_errors():
            self._connection.execute(self._sql["enroll"], {"names": list(names)})

    def heard(self, names: Sequence[str]) -> list[str]:
        """Return which of these sensors were heard in their current epoch."""
        rows = self._rows("heard", names=list(names))
        return [name for (name,) in rows]

    def revoked_of(self, names: Sequence[str]) -> list[str]:
        """Return which of these sensors are revoked or retired."""
        rows = self._rows("revoked_of", names=list(names))
        return [name for (name,) in rows]

    def revoked(self, name: str) -> None:
        """Record that a sensor has no account any more; ignore a sensor without a row."""
        self._run("revoked", name)

    def retired(self, name: str) -> None:
        """Record that a sensor is out of service."""
        self._run("retired", name)

    def detail(self, name: str, epoch: int) -> SensorDetail:
        """Return the details of one sensor.

        Args:
            name: a sensor with a row.
            epoch: its current epoch.
        """
        rows = self._rows("counters", name=name)
        counters, addresses = rows[0] if rows else ({}, 0)
        enrolments = [enrolment_of(name, past) for past in range(1, epoch + 1)]
        clients = self._rows("last_client", enrolments=enrolments)
        client, seen = clients[0] if clients else (None, None)
        return SensorDetail(
            counters, addresses, client, seen, dict(self._rows("refused", name=name))
        )

    def forget(self, name: str, *, waiting: Callable[[], object] = lambda: None) -> Purged:
        """Delete a sensor and what it reported in all its epochs.

        After an interruption, call it again to delete the rest.

        Raises:
            DatabaseUnavailable: the sensor keeps delivering meanwhile.
        """
        epochs, purge = EpochStore(self._connection), PurgeStore(self._connection)
        total = Purged()
        for _ in range(_FORGET_TRIES):
            current = epochs.rotate(name, waiting=waiting)
            for epoch in range(1, current):
                total.add(purge.purge(part_of_epoch(name, epoch)))
            if while_ingest_pauses(self._connection, partial(self._forget, name), waiting):
                return total
        raise DatabaseUnavailable(
            f"{name} delivers while it is being forgotten: revoke its account or stop it first"
        )

    def _forget(self, name: str) -> bool:
        """Delete the sensor. Returns False if it was heard since its last epoch ended."""
        row = self._connection.execute(self._sql["heard_again"], {"name": name}).fetchone()
        if row is not None and row[0]:
            return False
        self._connection.execute(self._sql["forget"], {"name": name})
        return True

    def _run(self, query: str, name: str) -> None:
        with database_errors():
            self._connection.execute(self._sql[query], {"name": name})

    def _rows(self, query: str, **parameters: Any) -> list[tuple[Any, ...]]:
        with database_errors():
            return self._connection.execute(self._sql[query], parameters).fetchall()
