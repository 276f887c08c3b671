"""Epochs of a sensor's account: one ends when the account gets a new password.

A stolen password affects one epoch. Its rows can be removed exactly, because the rows of
each epoch are stored under their own name (``enrolment_of``). A rotation moves no rows; it
waits only for the running ingest transactions.
"""

from collections.abc import Callable
from datetime import datetime
from typing import Final, NamedTuple, TypeVar

from psycopg import errors

from smtpfeeds_common.errors import DatabaseUnavailable

from .connection import Connection
from .errors import database_errors
from .sql import queries

#: Ingest waits while a rotation waits for the lock, so each attempt is short.
_LOCK_WAIT: Final = "2s"
_LOCK_TRIES: Final = 30

T = TypeVar("T")


class Epoch(NamedTuple):
    """An epoch of a sensor's account, by the database's clock."""

    epoch: int
    began_at: datetime
    #: None for the current epoch.
    ended_at: datetime | None
    #: When its rows were purged.
    purged_at: datetime | None


class EpochStore:
    """Lists and ends epochs, on one connection in autocommit mode."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._sql = queries("epochs.sql")

    def epochs(self, sensor: str) -> list[Epoch]:
        """Return all epochs of a sensor, the current one last; empty for an unknown sensor."""
        with database_errors():
            rows = self._connection.execute(self._sql["epochs"], {"sensor": sensor}).fetchall()
        return [Epoch(*row) for row in rows]

    def rotate(self, sensor: str, *, waiting: Callable[[], object] = lambda: None) -> int:
        """End the sensor's epoch and begin the next.

        Args:
            sensor: a known sensor.
            waiting: called after each unsuccessful wait for ingest.

        Returns:
            The new epoch.

        Raises:
            DatabaseUnavailable: the table stayed locked, or the connection broke.
        """
        return while_ingest_pauses(self._connection, lambda: self._rotate(sensor), waiting)

    def _rotate(self, sensor: str) -> int:
        parameters = {"sensor": sensor}
        self._connection.execute(self._sql["note_applied"], parameters)
        self._connection.execute(self._sql["note_epoch"], parameters)
        row = self._connection.execute(self._sql["begin_epoch"], parameters).fetchone()
        assert row is not None
        return int(row[0])


def while_ingest_pauses(
    connection: Connection, act: Callable[[], T], waiting: Callable[[], object]
) -> T:
    """Call `act` in a transaction while no ingest transaction runs.

    Args:
        connection: in autocommit mode.
        act: executes its statements on the same connection. If a lock is not available, the
            transaction is rolled back and `act` is called again.
        waiting: called after each unsuccessful wait for ingest.

    Raises:
        DatabaseUnavailable: the table stayed locked, or the connection broke.
    """
    lock = queries("epochs.sql")["lock_spools"]
    for _ in range(_LOCK_TRIES):
        try:
            with database_errors(), connection.transaction():
                connection.execute("SELECT set_config('lock_timeout', %s, true)", (_LOCK_WAIT,))
                connection.execute(lock)
                return act()
        except DatabaseUnavailable as exc:
            if not isinstance(exc.__cause__, errors.LockNotAvailable):
                raise
            waiting()
    raise DatabaseUnavailable(
        "another session keeps the table `spool` locked; find it in pg_stat_activity"
    )
