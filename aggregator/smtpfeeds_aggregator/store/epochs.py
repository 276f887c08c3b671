"""Epochs of a sensor's account: one ends when the account gets a new password.

What is stolen with a password is an epoch: its rows can be taken out exactly, because
each epoch's are stored under a name of their own (``enrolment_of``). To rotate moves
no rows; it takes as long as the running transactions of ingest.
"""

from collections.abc import Callable
from datetime import datetime
from typing import Final, NamedTuple, TypeVar

from psycopg import errors

from smtpfeeds_common.errors import DatabaseUnavailable

from .connection import Connection
from .errors import database_errors
from .sql import queries

#: Ingest waits behind a rotation that waits: not for long at a time.
_LOCK_WAIT: Final = "2s"
_LOCK_TRIES: Final = 30

T = TypeVar("T")


class Epoch(NamedTuple):
    """An epoch of a sensor's account, by the database's clock."""

    epoch: int
    began_at: datetime
    #: None: it is the current one.
    ended_at: datetime | None
    #: When all that was heard in it was taken out.
    purged_at: datetime | None


class EpochStore:
    """Asks for epochs and ends them; one connection, in autocommit."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._sql = queries("epochs.sql")

    def epochs(self, sensor: str) -> list[Epoch]:
        """All epochs of a sensor, the current one last; none: the sensor is not known."""
        with database_errors():
            rows = self._connection.execute(self._sql["epochs"], {"sensor": sensor}).fetchall()
        return [Epoch(*row) for row in rows]

    def rotate(self, sensor: str, *, waiting: Callable[[], object] = lambda: None) -> int:
        """End the sensor's epoch and begin the next.

        Args:
            sensor: one that is known.
            waiting: called after each short wait for ingest that was not enough.

        Returns:
            The epoch that begins.

        Raises:
            DatabaseUnavailable: ingest could not be waited for, or the connection broke.
        """
        return while_ingest_pauses(self._connection, lambda: self._rotate(sensor), waiting)

    def _rotate(self, sensor: str) -> int:
        asked = {"sensor": sensor}
        self._connection.execute(self._sql["note_applied"], asked)
        self._connection.execute(self._sql["note_epoch"], asked)
        row = self._connection.execute(self._sql["begin_epoch"], asked).fetchone()
        assert row is not None
        return int(row[0])


def while_ingest_pauses(
    connection: Connection, act: Callable[[], T], waiting: Callable[[], object]
) -> T:
    """Do something in a transaction while no transaction of ingest runs.

    Args:
        connection: in autocommit.
        act: executes its statements on the same connection; where a lock is not available, all is
            rolled back and it is called again.
        waiting: called after each short wait for ingest that was not enough.

    Raises:
        DatabaseUnavailable: ingest could not be waited for, or the connection broke.
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
