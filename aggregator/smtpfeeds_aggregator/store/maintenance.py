"""Keeps the tables small, a slice at a time, so that no lock is held for long.

Every statement is a transaction of its own. Observations and sightings have no
index on ``last_seen`` (it would end HOT updates), so retention reads all of both
tables, once a day, in the order of their pages: as fast as a table can be read.
"""

from collections.abc import Iterable, Iterator
from datetime import datetime, timedelta
from typing import Final

from psycopg import errors, sql

from .connection import Connection
from .errors import database_errors
from .sql import queries

#: Rows deleted in one statement.
SLICE_ROWS: Final = 10_000
#: Pages of a large table read in one statement: 8 MB, some 40,000 rows at most.
SLICE_PAGES: Final = 1_000
#: Gaps between a spool's applied ranges; past it the lowest are closed.
FRAGMENTS_MAX: Final = 1_000
#: The compactor waits for a spool's workers so long, then goes on with the next one.
_LOCK_WAIT: Final = "2s"
#: Spools in one round that it could not have: the rest of the round has its turn.
_BUSY_MAX: Final = 5


class MaintenanceStore:
    """What the maintenance thread does in the database; one connection, in autocommit."""

    def __init__(self, connection: Connection, *, retention: timedelta) -> None:
        self._connection = connection
        self._retention = retention
        self._sql = queries("maintenance.sql")

    def try_lock(self) -> bool:
        """Become the one that does this; released by ``unlock`` or with the session."""
        with database_errors():
            row = self._connection.execute(self._sql["try_lock_maintenance"]).fetchone()
        return bool(row and row[0])

    def unlock(self) -> None:
        """Let another aggregator do it."""
        with database_errors():
            self._connection.execute(self._sql["unlock_maintenance"])

    def compact(self, *, batches: int, spools: int, fragments: int = FRAGMENTS_MAX) -> int:
        """Move applied batches of spools that have enough of them into ranges.

        Args:
            batches: how many a spool must have.
            spools: how many spools at most.
            fragments: ranges a spool keeps at most.

        Returns:
            How many batches were moved.
        """
        with database_errors():
            rows = self._connection.execute(
                self._sql["spools_to_compact"], {"batches": batches, "spools": spools}
            ).fetchall()
            return self._compact_all((int(row[0]) for row in rows), fragments)

    def _compact_all(self, spools: Iterable[int], fragments: int) -> int:
        moved = busy = 0
        for spool in spools:
            of_this = self._compact_one(spool, fragments)
            moved += of_this or 0
            busy += of_this is None
            if busy == _BUSY_MAX:
                break
        return moved

    def _compact_one(self, spool: int, fragments: int) -> int | None:
        """How many batches were moved; None where workers keep the spool to themselves."""
        try:
            with self._connection.transaction():
                self._lock(spool)
                row = self._connection.execute(
                    self._sql["compact_spool"], {"spool": spool, "fragments": fragments}
                ).fetchone()
        except (errors.LockNotAvailable, errors.QueryCanceled, errors.DeadlockDetected):
            return None
        return int(row[0]) if row else 0

    def _lock(self, spool: int) -> None:
        """Have a spool alone, or give up after a short while."""
        limits = self._connection.execute(self._sql["limit_waits"], {"wait": _LOCK_WAIT}).fetchone()
        assert limits is not None
        self._connection.execute(self._sql["take_spool"], {"spool": spool})
        self._connection.execute(self._sql["lock_spool"], {"spool": spool})
        self._connection.execute(self._sql["lift_limit"], {"before": limits[0]})

    def retention_due(self, now: datetime) -> bool:
        """Whether no aggregator has done a round of retention within a day."""
        with database_errors():
            row = self._connection.execute(self._sql["retention_due"], {"now": now}).fetchone()
        return bool(row and row[0])

    def retire(self, now: datetime) -> Iterator[tuple[str, int]]:
        """Delete what is older than the retention; yields after each slice: table, rows.

        The round is noted in the database when it is done to its end.

        Args:
            now: a time of the database's clock that is beyond doubt; a step of that clock
                during the round changes nothing.
        """
        for table in ("observation", "sighting"):
            yield from self._walk(table, now)
        for table, delete in (
            ("activity", "retire_activity"),
            ("prefix_overflow", "retire_overflows"),
            ("prefix_admission", "retire_admissions"),
            ("sensor_overflow", "retire_sensor_overflows"),
            ("refusal", "retire_refusals"),
            ("flood", "retire_floods"),
            ("spool", "delete_spools"),
        ):
            yield from self._drain(table, delete, now)
        with database_errors():
            self._connection.execute(self._sql["note_retention"], {"now": now})

    def _walk(self, table: str, now: datetime) -> Iterator[tuple[str, int]]:
        with database_errors():
            parts = self._connection.execute(self._sql["parts"], {"table": table}).fetchall()
        for schema, name, pages in parts:
            query = sql.SQL(self._sql[f"retire_{table}_pages"])
            delete = query.format(part=sql.Identifier(schema, name))
            for first in range(0, pages, SLICE_PAGES):
                pages_of_slice = {"first": f"({first},0)", "end": f"({first + SLICE_PAGES},0)"}
                with database_errors():
                    row = self._connection.execute(
                        delete, {**pages_of_slice, "now": now, "retention": self._retention}
                    ).fetchone()
                assert row is not None
                yield from zip(("observation", "sighting"), row, strict=True)

    def _drain(self, table: str, delete: str, now: datetime) -> Iterator[tuple[str, int]]:
        while True:
            with database_errors():
                bounds = {"retention": self._retention, "now": now, "limit": SLICE_ROWS}
                gone = self._connection.execute(self._sql[delete], bounds).rowcount
            yield table, gone
            if gone < SLICE_ROWS:
                return
