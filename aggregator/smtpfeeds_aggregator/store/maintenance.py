"""Keeps the tables small, in slices, so that no lock is held for long.

Every statement is its own transaction. Observations and sightings have no index on
``last_seen`` (it would prevent HOT updates), so retention reads both tables completely
once a day, in the order of their pages, which is the fastest way.
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
#: Pages of a large table read in one statement: 8 MB, at most about 40,000 rows.
SLICE_PAGES: Final = 1_000
#: Most applied ranges of a spool; past it the lowest gaps are closed.
FRAGMENTS_MAX: Final = 1_000
#: The compactor waits this long for a spool's workers, then continues with the next spool.
_LOCK_WAIT: Final = "2s"
#: After this many busy spools, compaction ends for this round.
_BUSY_MAX: Final = 5


class MaintenanceStore:
    """The statements of the maintenance thread, on one connection in autocommit mode."""

    def __init__(self, connection: Connection, *, retention: timedelta) -> None:
        self._connection = connection
        self._retention = retention
        self._sql = queries("maintenance.sql")

    def try_lock(self) -> bool:
        """Try to take the maintenance lock; ``unlock`` or the session's end releases it."""
        with database_errors():
            row = self._connection.execute(self._sql["try_lock_maintenance"]).fetchone()
        return bool(row and row[0])

    def unlock(self) -> None:
        """Release the maintenance lock."""
        with database_errors():
            self._connection.execute(self._sql["unlock_maintenance"])

    def compact(self, *, batches: int, spools: int, fragments: int = FRAGMENTS_MAX) -> int:
        """Move applied batches of spools that have enough of them into ranges.

        Args:
            batches: the least number of a spool's batches.
            spools: the most spools.
            fragments: the most ranges that a spool keeps.

        Returns:
            The number of moved batches.
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
        """Return how many batches were moved; None if workers kept the spool locked."""
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
        """Lock a spool against workers; raises after a short wait."""
        limits = self._connection.execute(self._sql["limit_waits"], {"wait": _LOCK_WAIT}).fetchone()
        assert limits is not None
        self._connection.execute(self._sql["take_spool"], {"spool": spool})
        self._connection.execute(self._sql["lock_spool"], {"spool": spool})
        self._connection.execute(self._sql["lift_limit"], {"before": limits[0]})

    def retention_due(self, now: datetime) -> bool:
        """Return whether no aggregator has finished a retention round within a day."""
        with database_errors():
            row = self._connection.execute(self._sql["retention_due"], {"now": now}).fetchone()
        return bool(row and row[0])

    def retire(self, now: datetime) -> Iterator[tuple[str, int]]:
        """Delete rows older than the retention; yield table and number of rows after each slice.

        A completed round is recorded in the database.

        Args:
            now: a time of the database's clock that is not in doubt; a step of that clock
                during the round has no effect.
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
