"""The bound of a spool file, and what goes at it: the rule, kept in short slices.

Confirmed batches older than a replay needs go always. Past nine tenths of the bound, down to eight
tenths, in this order: the other confirmed batches, those among them that a replay wants last; the
counts of crowded prefixes longest unseen; the rows longest unseen; rows that are not dated yet.
Sealed batches that are not confirmed never go. A greet never goes before the data event of its
address. So a replay, whose batches were all confirmed before, never costs an event.

How long a batch has been confirmed is counted by the spool's own age, which goes on while the host
runs and is changed by no step of its clock.

The program that delivers from the spool keeps the bound; a sensor whose deliverer is another
program keeps it too. Each step is one transaction that looks at what is there.
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
    get_json,
    has_added_tables,
    set_json,
)

#: Rows deleted in one write transaction, so that the sensor never waits long.
_SLICE_ROWS: Final = 2_000
_SLICE_BATCHES: Final = 8
#: Slices of batches that are too old for a replay, deleted at a time: at most twenty batches are
#: sealed in a second, and this is called every five.
_OLD_SLICES: Final = 32
#: Free pages given back to the disk at a time (2 MB), where there are many.
_GIVEN_BACK_PAGES: Final = 512
#: Index of the feed in ``FEEDS``.
_GREET: Final = 0


class _Droppable(NamedTuple):
    """A table whose rows go at the bound, longest unseen first."""

    name: str
    key: str
    #: Whether a row stands for an address, whose greet must not go before its data event.
    has_addresses: bool
    #: Whether its times are UTC, so that a row can be older than the retention.
    is_dated: bool

    def oldest(self) -> str:
        """The rows longest unseen."""
        order = "last_ms, feed DESC" if self.has_addresses else "last_ms"
        return f"SELECT feed, {self.key}, last_ms FROM {self.name} ORDER BY {order} LIMIT ?"  # noqa: S608 - own names

    def delete(self) -> str:
        """One row, unless it was seen again meanwhile."""
        where = f"feed = ? AND {self.key} = ? AND last_ms = ?"
        return f"DELETE FROM {self.name} WHERE {where} RETURNING hits, last_ms"  # noqa: S608 - own names

    def delete_data(self) -> str:
        """The data event of an address."""
        where = f"feed = 1 AND {self.key} = ?"
        return f"DELETE FROM {self.name} WHERE {where} RETURNING hits, last_ms"  # noqa: S608 - own names


_DROPPABLE: Final = (
    _Droppable("overflow", "prefix", has_addresses=False, is_dated=True),
    _Droppable("observation", "ip", has_addresses=True, is_dated=True),
    _Droppable("undated_overflow", "prefix", has_addresses=False, is_dated=False),
    _Droppable("undated_observation", "ip", has_addresses=True, is_dated=False),
)


class Dropped(NamedTuple):
    """What went at the bound."""

    #: Events that were never delivered.
    events: int = 0
    #: Batches that were to be delivered again; they had been confirmed before.
    replays: int = 0


class Keeper:
    """Keeps one file within its bound."""

    def __init__(self, db: Connection, path: Path, bounds: Bounds) -> None:
        self._db, self._path, self._bounds = db, path, bounds

    def keep(self, now: Reading) -> Dropped:
        """Drop what has to go, and checkpoint the log.

        Raises:
            SpoolBusy, SpoolUnwritable, SpoolDamaged: some may be dropped already.
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
        """Octets of the file that hold something."""
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
        """Delete a slice of the confirmed batches, those first that were confirmed first."""
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
        """Drop the longest unseen tenth; a row that was seen again meanwhile stays."""
        with reading(self._path):
            (rows,) = self._db.execute(f"SELECT count(*) FROM {table.name}").fetchone()  # noqa: S608 - own names
            victims = self._db.execute(table.oldest(), (max(_SLICE_ROWS, rows // 10),)).fetchall()
        if not victims:
            return None
        return sum(
            self._drop_slice(table, victims[at : at + _SLICE_ROWS], now)
            for at in range(0, len(victims), _SLICE_ROWS)
        )

    def _drop_slice(
        self, table: _Droppable, victims: list[tuple[int, bytes, int]], now: Reading
    ) -> int:
        expired_ms = 0
        if table.is_dated and now.utc_ms is not None:
            expired_ms = now.utc_ms - self._bounds.retention_ms
        dropped = 0
        with transaction(self._db, self._path):
            for victim in victims:
                rows = self._db.execute(table.delete(), victim).fetchall()
                if rows and victim[0] == _GREET and table.has_addresses:
                    # Its data event was a moment later: it must not stay without its greet.
                    rows += self._db.execute(table.delete_data(), (victim[1],)).fetchall()
                dropped += sum(hits for hits, last_ms in rows if last_ms >= expired_ms)
            self._db.execute(ADD_META, ("drops", dropped))
        return dropped


def advance_age(db: Connection, now: Reading) -> int:
    """How long the spool has been looked after, in milliseconds; within a transaction.

    Counted by the monotonic clock: within a boot every second counts, also of a sensor that was
    stopped; the time between two boots does not.
    """
    noted = get_json(db, "age")
    age_ms = int(noted.get("age_ms", 0))
    if noted.get("boot") == now.boot:
        age_ms += max(0, now.elapsed_ms - int(noted["elapsed_ms"]))
    set_json(db, "age", {"age_ms": age_ms, "boot": now.boot, "elapsed_ms": now.elapsed_ms})
    return age_ms


def keep_room(path: Path, bounds: Bounds, now: Reading) -> Dropped:
    """Keep a spool within its bound, beside the program that delivers from it.

    Raises:
        SpoolError: no such file, or it cannot be written now.
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
