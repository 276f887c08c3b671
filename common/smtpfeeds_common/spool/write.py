"""The sensor's side of a spool: events in, one commit for each turn of the reactor."""

import json
from pathlib import Path
from typing import Final

from ..addresses import IPv6_BYTES, prefix64
from ..errors import SpoolDamaged, SpoolError
from .file import (
    ADD_META,
    SET_META,
    create,
    inode,
    open_or_replace,
    set_aside,
    take_lock,
    transaction,
)
from .fold import HOUR_MS, Bounds, Event, Fold, PrefixAdmission

_FOLD: Final = """
INSERT INTO observation VALUES (?,?,?,?,?,?,?) ON CONFLICT (feed, ip) DO UPDATE SET
    first_ms = min(first_ms, excluded.first_ms), last_ms = max(last_ms, excluded.last_ms),
    hits = hits + excluded.hits, flags = flags | excluded.flags,
    targets = targets | excluded.targets
"""
_COUNT: Final = """
INSERT INTO activity VALUES (?,?,?) ON CONFLICT (feed, hour_ms) DO UPDATE SET
    events = events + excluded.events
"""
_OVERFLOW: Final = """
INSERT INTO overflow VALUES (?,?,?,?,?) ON CONFLICT (feed, prefix) DO UPDATE SET
    first_ms = min(first_ms, excluded.first_ms), last_ms = max(last_ms, excluded.last_ms),
    hits = hits + excluded.hits
"""


class Spool:
    """The sensor's side of a spool file; all calls from one thread."""

    def __init__(self, path: Path, *, sensor: str, bounds: Bounds | None = None) -> None:
        """Open or create a spool, alone.

        Raises:
            SpoolInUse: another sensor has it.
            SpoolError: the folder cannot be written, or the file is another sensor's.
        """
        self.path = path
        self.bounds = bounds or Bounds()
        self._lock = take_lock(
            path.with_suffix(".lock"),
            f"spool {path} is in use by another sensor; give each sensor (and each worker) its own",
        )
        try:
            self._db, self.set_aside = open_or_replace(path, sensor, self.bounds)
        except BaseException:
            self._lock.close()
            raise
        self._inode = inode(path)
        self._fold = Fold()
        self._admitted = PrefixAdmission(self.bounds.per_prefix64, self.bounds.prefixes64)
        self.drops = 0

    def fold(self, event: Event) -> bool:
        """Take one event in memory; ``commit`` writes it. False where the bound dropped its row."""
        fold = self._fold
        feed, ip, at_ms, flags, target = event
        hour = (feed, at_ms - at_ms % HOUR_MS)
        fold.hours[hour] = fold.hours.get(hour, 0) + 1
        fold.events += 1
        key = (feed, ip)
        row = fold.rows.get(key)
        bit = 1 << target if target < 63 else -(1 << 63)
        if row is not None:
            row[0] = min(row[0], at_ms)
            row[1] = max(row[1], at_ms)
            row[2] += 1
            row[3] |= flags
            row[4] |= bit
            return True
        if len(ip) == IPv6_BYTES and not self._admitted.admits(ip, at_ms):
            return self._fold_overflow(feed, prefix64(ip), at_ms)
        if len(fold.rows) >= self.bounds.memory_rows:
            return self._drop()
        fold.rows[key] = [at_ms, at_ms, 1, flags, bit]
        return True

    def _fold_overflow(self, feed: int, prefix: bytes, at_ms: int) -> bool:
        overflow = self._fold.overflow
        row = overflow.get((feed, prefix))
        if row is None:
            if len(overflow) >= self.bounds.memory_rows:
                return self._drop()
            overflow[feed, prefix] = [at_ms, at_ms, 1]
            return True
        row[0], row[1], row[2] = min(row[0], at_ms), max(row[1], at_ms), row[2] + 1
        return True

    def _drop(self) -> bool:
        self._fold.dropped += 1
        self.drops += 1
        return False

    @property
    def unwritten(self) -> int:
        """Events folded in memory and not yet in the file."""
        return self._fold.events

    def commit(self) -> None:
        """Write what was folded, in one transaction. On an error it stays folded.

        Raises:
            SpoolBusy: the sealer holds the write lock: try again in a few milliseconds.
            SpoolUnwritable: disk full, bound reached, read-only: try again later.
            SpoolDamaged: SQLite calls the file malformed: ``replace`` it.
        """
        fold = self._fold
        if not fold.events:
            return
        with transaction(self._db, self.path):
            self._db.executemany(_FOLD, [(*key, *row) for key, row in fold.rows.items()])
            self._db.executemany(_COUNT, [(*key, n) for key, n in fold.hours.items()])
            if fold.overflow:
                self._db.executemany(
                    _OVERFLOW, [(*key, *row) for key, row in fold.overflow.items()]
                )
            if fold.dropped:
                self._db.execute(ADD_META, ("drops", fold.dropped))
        self._fold = Fold()

    def note_state(self, *, version: str, counters: dict[str, int], now_ms: int) -> None:
        """Leave the sensor's version and counters in the file, for the next batch and for `status`.

        Raises:
            SpoolBusy, SpoolUnwritable, SpoolDamaged: as ``commit``; damaged is also a file that
                was deleted or moved away, into which events would go unseen.
        """
        if not self._is_in_place():
            raise SpoolDamaged(f"spool {self.path} was deleted or moved away")
        state = json.dumps({"version": version, "counters": counters, "noted_ms": now_ms})
        with transaction(self._db, self.path):
            self._db.execute(SET_META, ("state", state))

    def replace(self, sensor: str) -> Path:
        """Set a damaged file aside and go on with a new one; what is folded in memory stays.

        Returns:
            Where the damaged file is now.

        Raises:
            SpoolError: no new one can be made; ``commit`` then says unwritable, and this may be
                called again.
        """
        self._db.close()
        aside = set_aside(self.path)
        self._db = create(self.path, sensor, self.bounds)
        self._inode = inode(self.path)
        return aside

    def _is_in_place(self) -> bool:
        try:
            return inode(self.path) == self._inode
        except SpoolError:
            return False

    def close(self) -> None:
        """Close the file; call ``commit`` before."""
        self._db.close()
        self._lock.close()
