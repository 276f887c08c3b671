"""The bound of a spool file, and what goes at it: the rule, kept in short slices.

Confirmed batches older than a replay needs go always. Past nine tenths of the
bound: the other confirmed batches, then the rows longest unseen (expired ones
are the longest unseen of all), down to eight tenths. Sealed batches that are not
confirmed never go. A greet never goes before the data event of its address.

Kept by whoever delivers from the spool; a sensor whose deliverer is another
program keeps it too, beside it: every step here is one transaction that looks
at what is there.
"""

import contextlib
from pathlib import Path
from typing import Final

from ..errors import SpoolBusy, SpoolError
from .file import ADD_META, PAGE_BYTES, Connection, check_layout, connect, reading, transaction
from .fold import Bounds

#: Rows deleted in one write transaction, so that the sensor never waits long.
_SLICE_ROWS: Final = 2_000
_SLICE_BATCHES: Final = 64
#: Free pages given back to the disk at a time (2 MB), where there are many.
_GIVEN_BACK_PAGES: Final = 512
#: Index of the feed in ``FEEDS``.
_GREET: Final = 0
_DROP_ROW: Final = (
    "DELETE FROM observation WHERE feed = ? AND ip = ? AND last_ms = ? RETURNING hits, last_ms"
)
_DROP_DATA: Final = "DELETE FROM observation WHERE feed = 1 AND ip = ? RETURNING hits, last_ms"


class Keeper:
    """Keeps one file within its bound."""

    def __init__(self, db: Connection, path: Path, bounds: Bounds) -> None:
        self._db, self._path, self._bounds = db, path, bounds

    def keep(self, now_ms: int) -> int:
        """Drop what has to go, and checkpoint the log.

        Returns:
            Events dropped that were never delivered.
        """
        with transaction(self._db, self._path):
            self._db.execute(
                "DELETE FROM batch WHERE rowid IN (SELECT rowid FROM batch"
                " WHERE confirmed_ms < ? ORDER BY rowid LIMIT ?)",
                (now_ms - self._bounds.replay_ms, _SLICE_BATCHES),
            )
        dropped = 0
        if self.used_bytes() > self._bounds.max_bytes * 9 // 10:
            dropped = self._make_room(now_ms)
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

    def _make_room(self, now_ms: int) -> int:
        goal = self._bounds.max_bytes * 8 // 10
        while self.used_bytes() > goal and self._drop_confirmed():
            pass
        dropped = 0
        while self.used_bytes() > goal:
            gone = self._drop_rows(now_ms)
            if gone is None:
                break
            dropped += gone
        return dropped

    def _drop_confirmed(self) -> int:
        with transaction(self._db, self._path):
            return self._db.execute(
                "DELETE FROM batch WHERE rowid IN (SELECT rowid FROM batch"
                " WHERE confirmed_ms IS NOT NULL ORDER BY confirmed_ms LIMIT ?)",
                (_SLICE_BATCHES,),
            ).rowcount

    def _drop_rows(self, now_ms: int) -> int | None:
        """Drop the longest unseen tenth; a row that was seen again meanwhile stays."""
        with reading(self._path):
            (rows,) = self._db.execute("SELECT count(*) FROM observation").fetchone()
            victims = self._db.execute(
                "SELECT feed, ip, last_ms FROM observation ORDER BY last_ms, feed DESC LIMIT ?",
                (max(_SLICE_ROWS, rows // 10),),
            ).fetchall()
        if not victims:
            return None
        dropped = 0
        for at in range(0, len(victims), _SLICE_ROWS):
            dropped += self._drop_slice(victims[at : at + _SLICE_ROWS], now_ms)
        return dropped

    def _drop_slice(self, victims: list[tuple[int, bytes, int]], now_ms: int) -> int:
        expired = now_ms - self._bounds.retention_ms
        dropped = 0
        with transaction(self._db, self._path):
            for victim in victims:
                gone = self._db.execute(_DROP_ROW, victim).fetchall()
                if gone and victim[0] == _GREET:
                    # Its data event was a moment later: it must not stay without its greet.
                    gone += self._db.execute(_DROP_DATA, (victim[1],)).fetchall()
                dropped += sum(hits for hits, last_ms in gone if last_ms >= expired)
            self._db.execute(ADD_META, ("drops", dropped))
        return dropped


def keep_room(path: Path, bounds: Bounds, now_ms: int) -> int:
    """Keep a spool within its bound, beside whoever delivers from it.

    Returns:
        Events dropped that were never delivered.

    Raises:
        SpoolError: no such file, or it cannot be written now.
    """
    if not path.exists():
        raise SpoolError(f"there is no spool {path}")
    db = connect(path, synchronous="NORMAL", busy_ms=2_000)
    try:
        check_layout(db, path)
        return Keeper(db, path, bounds).keep(now_ms)
    finally:
        db.close()
