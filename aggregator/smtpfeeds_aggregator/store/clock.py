"""Reads the server's clock, and writes the row with its newest time and its doubts."""

from collections.abc import Callable
from datetime import datetime
from typing import NamedTuple
from uuid import UUID

from ..clock.database import Reading, Record
from .connection import Connection
from .errors import database_errors
from .sql import queries


class ClockStatus(NamedTuple):
    """The clock as operators see it."""

    now: datetime
    noted: datetime
    accepted_at: datetime | None
    accepted_ahead_s: float | None
    doubts: list[str]
    doubt: str


def read_clock(
    connection: Connection, monotonic: Callable[[], float], *, begun_s: float | None = None
) -> Reading:
    """Read the server's clock.

    Args:
        connection: in a transaction, the time of its begin is returned.
        monotonic: this process's monotonic clock, in seconds.
        begun_s: a monotonic time before the transaction began; None outside a transaction.
    """
    before_s = monotonic() if begun_s is None else begun_s
    with database_errors():
        row = connection.execute(queries("clock.sql")["read_clock"]).fetchone()
    after_s = monotonic()
    assert row is not None
    now, noted, acceptances, accepted_ahead_s, doubts = row
    record = Record(noted, acceptances, accepted_ahead_s, tuple(doubts))
    return Reading(before_s, after_s, now, record)


class ClockStore:
    """Reads and writes the row about the clock, on one connection in autocommit mode."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._sql = queries("clock.sql")

    def read(self, monotonic: Callable[[], float]) -> Reading:
        """Read the clock now."""
        return read_clock(self._connection, monotonic)

    def note(self, reading: Reading, *, every_s: float) -> None:
        """Record the time of a reading without a doubt, unless one was within `every_s` before.

        Nothing is recorded where an operator has accepted the clock since that reading.
        """
        acceptances = reading.record.acceptances
        self._run("note_clock", now=reading.now, every_s=every_s, acceptances=acceptances)

    def record_doubt(self, run: UUID, reasons: list[str], doubt: str, ahead_s: float) -> None:
        """Record why this run of an aggregator doubts the clock."""
        self._run("record_doubt", run=run, doubts=reasons, doubt=doubt, ahead_s=ahead_s)

    def withdraw_doubt(self, run: UUID, *, others: bool) -> None:
        """Withdraw the doubt that this run recorded, or with `others` any doubt."""
        self._run("withdraw_doubt", run=run, others=others)

    def status(self) -> ClockStatus:
        """Return the clock's state for operators."""
        with database_errors():
            row = self._connection.execute(self._sql["clock_status"]).fetchone()
        assert row is not None
        return ClockStatus(*row)

    def accept(self) -> datetime:
        """Make all aggregators accept the clock as it is, and return its time."""
        with database_errors():
            row = self._connection.execute(self._sql["accept_clock"]).fetchone()
        assert row is not None
        now: datetime = row[0]
        return now

    def _run(self, query: str, **parameters: object) -> None:
        with database_errors():
            self._connection.execute(self._sql[query], parameters)
