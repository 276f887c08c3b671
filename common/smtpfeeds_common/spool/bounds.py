"""Keeps a spool file within its bound, in short slices.

Confirmed batches that are too old for a replay are always deleted. When the file is larger than 90
percent of the bound, these are deleted until it is down to 80 percent, in this order:

1. the other confirmed batches, those that a replay waits for last;
2. the counts of crowded prefixes, longest unseen first;
3. the rows, longest unseen first;
4. rows that are not dated yet.

Sealed batches that are not confirmed are never deleted. A greet is never deleted before the data
event of its address. A replay concerns only confirmed batches, so it never costs an event.

The age of a confirmation is measured by the spool's own age, which advances while the host runs
and ignores steps of its clock.

The program that delivers from the spool keeps the bound, and so does a sensor whose deliverer is
another program. Each step is one transaction that reads the current state of the file.
"""

import contextlib
from pathlib import Path
from typing import Final, NamedTuple

from ..clock import Reading
from ..errors import SpoolBusy, SpoolError
from .file import PAGE_BYTES, Connection, connect, reading, transaction
from .fold import Bounds
from .layout import (
    ADD_META,
    add_tables,
    check_layout,
    has_added_tables,
    noted_age,
    set_json,
)
from .sound import count_of

#: Rows deleted in one write transaction; more would make the sensor wait.
_SLICE_ROWS: Final = 2_000
_SLICE_BATCHES: Final = 8
#: Slices of batches too old for a replay that one call deletes. At most 20 batches are sealed per
#: second, and calls are 5 seconds apart.
_OLD_SLICES: Final = 32
#: Free pages that one call returns to the file system, if there are many (2 MB).
_GIVEN_BACK_PAGES: Final = 512
#: Index of the feed in ``FEEDS``.
_GREET: Final = 0


class _Droppable(NamedTuple):
    """A table whose rows are dropped at the bound, longest unseen first."""

    name: str
    key: str
    #: Whether a row is of an address, whose greet must not be dropped before its data event.
    has_addresses: bool
    #: Whether its times are UTC, so that a row can be older than the retention.
    is_dated: bool

    def oldest(self) -> str:
        """Return SQL that selects the rows longest unseen."""
        order = "last_ms, feed DESC" if self.has_addresses else "last_ms"
        return f"SELECT feed, {self.key}, last_ms FROM {self.name} ORDER BY {order} LIMIT ?"  # noqa: S608 - own names

    def delete(self) -> str:
        """Return SQL that deletes one row, unless its last_ms has changed."""
        where = f"feed = ? AND {self.key} = ? AND last_ms = ?"
        return f"DELETE FROM {self.name} WHERE {where} RETURNING hits, last_ms"  # noqa: S608 - own names

    def delete_data(self) -> str:
        """Return SQL that deletes the data event of an address."""
        where = f"feed = 1 AND {self.key} = ?"
        return f"DELETE FROM {self.name} WHERE {where} RETURNING hits, last_ms"  # noqa: S608 - own names


_DROPPABLE: Final = (
    _Droppable("overflow", "prefix", has_addresses=False, is_dated=True),
    _Droppable("observation", "ip", has_addresses=True, is_dated=True),
    _Droppable("undated_overflow", "prefix", has_addresses=False, is_dated=False),
    _Droppable("undated_observation", "ip", has_addresses=True, is_dated=False),
)


class Dropped(NamedTuple):
    """The losses at the bound."""

    #: Events that were never delivered.
    events: int = 0
    #: Confirmed batches that a replay would have delivered again.
    replays: int = 0


class Keeper:
    """Keeps one file within its bound."""

    def __init__(self, db: Connection, path: Path, bounds: Bounds) -> None:
        self._db, self._path, self._bounds = db, path, bounds

    def keep(self, now: Reading) -> Dropped:
        """Drop what the bound requires, and checkpoint the write-ahead log.

        Raises:
            SpoolBusy, SpoolUnwritable, SpoolDamaged: a part may already be dropped.
        """
        with transaction(self._db, self._path):
            oldest_ms = advance_age(self._db, now) - self._bounds.replay_ms
        for _ in range(_OLD_SLICES):
            if not self._delete_confirmed("again = 0 AND age_ms < ?", oldest_ms):
                break
        dropped = Dropped()
        if self.used_bytes() > self._bounds.max_bytes * 9 // 10:
            dropped = self._make_room(now)
        with contextlib.suppress(SpoolBusy), reading(self._path):
            self._give_back()
            self._db.execute("PRAGMA wal_checkpoint(PASSIVE)")
        return dropped

    def used_bytes(self) -> int:
        """Return the octets of the file in use, without free pages."""
        with reading(self._path):
            pages = self._db.execute("PRAGMA page_count").fetchone()[0]
            free = self._db.execute("PRAGMA freelist_count").fetchone()[0]
        return int(pages - free) * PAGE_BYTES

    def _give_back(self) -> None:
        pages = self._db.execute("PRAGMA page_count").fetchone()[0]
        free = self._db.execute("PRAGMA freelist_count").fetchone()[0]
        if free > max(pages // 2, _GIVEN_BACK_PAGES):
            self._db.execute(f"PRAGMA incremental_vacuum({_GIVEN_BACK_PAGES})").fetchall()

    def _is_too_full(self) -> bool:
        return self.used_bytes() > self._bounds.max_bytes * 8 // 10

    def _make_room(self, now: Reading) -> Dropped:
        while self._is_too_full() and self._delete_confirmed("again = ?", 0):
            pass
        replays = 0
        while self._is_too_full() and (deleted := self._delete_confirmed("again = ?", 1)):
            replays += deleted
        events = 0
        for table in _DROPPABLE:
            while self._is_too_full():
                dropped = self._drop_rows(table, now)
                if dropped is None:
                    break
                events += dropped
        return Dropped(events, replays)

    def _delete_confirmed(self, which: str, value: int) -> int:
        """Delete a slice of the confirmed batches, the earliest confirmed first."""
        with transaction(self._db, self._path):
            names = self._db.execute(
                f"SELECT spool, seq FROM confirmation WHERE {which}"  # noqa: S608 - own words
                " ORDER BY again, age_ms LIMIT ?",
                (value, _SLICE_BATCHES),
            ).fetchall()
            for table in ("batch", "confirmation"):
                self._db.executemany(
                    f"DELETE FROM {table} WHERE spool = ? AND seq = ?",  # noqa: S608 - own names
                    names,
                )
        return len(names)

    def _drop_rows(self, table: _Droppable, now: Reading) -> int | None:
        """Drop the tenth that is longest unseen; a row that is seen again meanwhile stays."""
        with reading(self._path):
            (rows,) = self._db.execute(f"SELECT count(*) FROM {table.name}").fetchone()  # noqa: S608 - own names
            oldest = self._db.execute(table.oldest(), (max(_SLICE_ROWS, rows // 10),)).fetchall()
        if not oldest:
            return None
        return sum(
            self._drop_slice(table, oldest[at : at + _SLICE_ROWS], now)
            for at in range(0, len(oldest), _SLICE_ROWS)
        )

    def _drop_slice(
        self, table: _Droppable, oldest: list[tuple[int, bytes, int]], now: Reading
    ) -> int:
        expired_ms = 0
        if table.is_dated and now.utc_ms is not None:
            expired_ms = now.utc_ms - self._bounds.retention_ms
        dropped = 0
        with transaction(self._db, self._path):
            for row in oldest:
                rows = self._db.execute(table.delete(), row).fetchall()
                if rows and row[0] == _GREET and table.has_addresses:
                    # Its data event came a moment later, and must not stay without its greet.
                    rows += self._db.execute(table.delete_data(), (row[1],)).fetchall()
                dropped += sum(
                    count_of(hits) for hits, last_ms in rows if count_of(last_ms) >= expired_ms
                )
            dropped = count_of(dropped)
            self._db.execute(ADD_META, ("drops", dropped))
        return dropped


def advance_age(db: Connection, now: Reading) -> int:
    """Advance the spool's age to now and return it in milliseconds, within a transaction.

    The age follows the monotonic clock. It counts all time within a boot, even while the sensor is
    stopped, but not the time between two boots.
    """
    noted = noted_age(db)
    age_ms = noted.age_ms
    if noted.boot == now.boot and noted.elapsed_ms is not None:
        age_ms += max(0, now.elapsed_ms - noted.elapsed_ms)
    set_json(db, "age", {"age_ms": age_ms, "boot": now.boot, "elapsed_ms": now.elapsed_ms})
    return age_ms


def keep_room(path: Path, bounds: Bounds, now: Reading) -> Dropped:
    """Keep a spool within its bound while another program delivers from it.

    Raises:
        SpoolError: there is no such file, or it cannot be written now.
    """
    if not path.exists():
        raise SpoolError(f"there is no spool {path}")
    db = connect(path, synchronous="NORMAL", busy_ms=2_000)
    try:
        check_layout(db, path)
        if not has_added_tables(db):
            with transaction(db, path):
                add_tables(db)
        return Keeper(db, path, bounds).keep(now)
    finally:
        db.close()
