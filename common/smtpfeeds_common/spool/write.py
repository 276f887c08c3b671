"""The sensor's side of a spool: folds events in memory, commits once per reactor turn.

Folded events stay in memory until they are in the file. The file may be missing for some time,
because the disk was full at the start, or because no new file could be created after a damaged one
was quarantined. Each ``commit`` then tries again to open or create it.
"""

from pathlib import Path
from typing import Any, Final

from ..addresses import IPv6_BYTES, prefix64
from ..clock import Reading
from ..errors import SpoolBusy, SpoolDamaged, SpoolError, SpoolUnwritable
from ..wire import MAX_ROWS
from .admission import PrefixAdmission
from .batches import seal_rows
from .file import Connection, check_pages, file_access, inode, take_lock, transaction
from .fold import DAY_MS, HOUR_MS, MINUTE_MS, Bounds, Event, Fold
from .layout import ADD_META, set_json
from .opening import open_or_create, quarantine

FOLD: Final = """
INSERT INTO observation VALUES (?,?,?,?,?,?,?) ON CONFLICT (feed, ip) DO UPDATE SET
    first_ms = min(first_ms, excluded.first_ms), last_ms = max(last_ms, excluded.last_ms),
    hits = hits + excluded.hits, flags = flags | excluded.flags,
    targets = targets | excluded.targets
"""
COUNT: Final = """
INSERT INTO activity VALUES (?,?,?) ON CONFLICT (feed, hour_ms) DO UPDATE SET
    events = events + excluded.events
"""
OVERFLOW: Final = """
INSERT INTO overflow VALUES (?,?,?,?,?) ON CONFLICT (feed, prefix) DO UPDATE SET
    first_ms = min(first_ms, excluded.first_ms), last_ms = max(last_ms, excluded.last_ms),
    hits = hits + excluded.hits
"""
#: Finds out whether a row is of an earlier day.
OLDER: Final = "SELECT 1 FROM observation WHERE last_ms < ? LIMIT 1"
FOLD_UNDATED: Final = """
INSERT INTO undated_observation VALUES (?,?,?,?,?,?,?,?) ON CONFLICT (boot, feed, ip) DO UPDATE SET
    first_ms = min(first_ms, excluded.first_ms), last_ms = max(last_ms, excluded.last_ms),
    hits = hits + excluded.hits, flags = flags | excluded.flags,
    targets = targets | excluded.targets
"""
COUNT_UNDATED: Final = """
INSERT INTO undated_activity VALUES (?,?,?,?) ON CONFLICT (boot, feed, minute_ms) DO UPDATE SET
    events = events + excluded.events
"""
OVERFLOW_UNDATED: Final = """
INSERT INTO undated_overflow VALUES (?,?,?,?,?,?) ON CONFLICT (boot, feed, prefix) DO UPDATE SET
    first_ms = min(first_ms, excluded.first_ms), last_ms = max(last_ms, excluded.last_ms),
    hits = hits + excluded.hits
"""


class Spool:
    """The sensor's side of a spool file; call all methods from one thread."""

    def __init__(
        self, path: Path, *, sensor: str, bounds: Bounds | None = None, boot: str = ""
    ) -> None:
        """Lock and open a spool, or create it; if the disk is full, start in memory.

        Args:
            path: the path of the file.
            sensor: the owner of the spool.
            bounds: its bounds.
            boot: the boot that the times of undated events count from.

        Raises:
            SpoolInUse: another sensor uses it.
            SpoolError: this user may not write there, or the file belongs to another sensor.
        """
        self.path, self.sensor, self.boot = path, sensor, boot
        self.bounds = bounds or Bounds()
        self._dated, self._undated = Fold(HOUR_MS), Fold(MINUTE_MS)
        #: Events of the day before that are not written yet.
        self._day_before = Fold(HOUR_MS)
        #: When the current day ends; 0: no dated event yet.
        self._day_ends_ms = 0
        #: Time of the first event of a new day while the day before is not sealed; else None.
        self._day_began_ms: int | None = None
        self._admission = PrefixAdmission(self.bounds.per_prefix64, self.bounds.prefixes64)
        self._lock: Any = None
        self._db: Connection | None = None
        self._inode = 0
        self._is_damaged = False
        self._dropped_unwritten = 0
        #: Events dropped because their row did not fit in memory.
        self.drops = 0
        #: Damaged files quarantined since the start.
        self.quarantined = 0
        #: The newest time that the file has noted.
        self.noted_ms: int | None = None
        #: Why there is no file yet; empty if there is one.
        self.unopened = ""
        try:
            self._open()
        except (SpoolUnwritable, SpoolBusy) as exc:
            self.unopened = exc.message
        except BaseException:
            self.close()
            raise

    def _open(self) -> Connection:
        """Open or create the file; quarantine a damaged one first."""
        with file_access(self.path):
            if self._lock is None:
                self._lock = take_lock(
                    self.path.with_suffix(".lock"),
                    f"spool {self.path} is in use by another sensor; "
                    "give each sensor (and each worker) its own",
                )
            if self._is_damaged:
                self.quarantined += quarantine(self.path) is not None
                self._is_damaged = False
            opened = open_or_create(self.path, self.sensor, self.bounds)
        self._db, self.noted_ms, self.unopened = opened.db, opened.noted_ms, ""
        self.quarantined += opened.quarantined
        self._inode = inode(self.path)
        return opened.db

    def _opened(self) -> Connection:
        """Return the open file; open or create it first if needed.

        Raises:
            SpoolBusy, SpoolUnwritable: this is not possible now.
        """
        if self._db is not None:
            return self._db
        try:
            return self._open()
        except (SpoolBusy, SpoolUnwritable):
            raise
        except SpoolError as exc:
            # At the start these are an operator's mistakes. A running sensor tries again.
            raise SpoolUnwritable(exc.message) from exc

    # Events

    def fold(self, event: Event) -> bool:
        """Fold one event in memory, for ``commit`` to write; False if a bound dropped its row."""
        feed, ip, at_ms, flags, target, dated = event
        if dated and at_ms >= self._day_ends_ms:
            self._begin_utc_day(at_ms)
        fold = self._dated if dated else self._undated
        bucket = (feed, at_ms - at_ms % fold.bucket_ms)
        fold.buckets[bucket] = fold.buckets.get(bucket, 0) + 1
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
        if len(ip) == IPv6_BYTES and not self._admission.admits(ip):
            return self._fold_overflow(fold, feed, prefix64(ip), at_ms)
        if self._rows_in_memory() >= self.bounds.memory_rows:
            return self._drop()
        fold.rows[key] = [at_ms, at_ms, 1, flags, bit]
        return True

    def note(self, event: Event, flags: int) -> None:
        """Add behaviours that became known after their event was folded.

        A note has the time of its event, adds no hit and changes no count. The next commit writes
        it. It is dropped if its event counts for a /64, or at a bound.
        """
        fold = self._dated if event.dated else self._undated
        row = fold.rows.get((event.feed, event.ip))
        if row is not None:
            row[3] |= flags
            return
        if len(event.ip) == IPv6_BYTES and not self._admission.has(event.ip):
            return
        if self._rows_in_memory() < self.bounds.memory_rows:
            fold.rows[event.feed, event.ip] = [event.at_ms, event.at_ms, 0, flags, 0]

    def _begin_utc_day(self, at_ms: int) -> None:
        """Start a new day: the next commit seals the rows of the day before.

        Each row then covers one day, so behaviours of one week never count for the next. If the
        file cannot be written for a whole day, two days are folded together.
        """
        self._day_ends_ms = (at_ms // DAY_MS + 1) * DAY_MS
        self._day_began_ms = at_ms
        if self._day_before.is_empty:
            self._day_before, self._dated = self._dated, Fold(HOUR_MS)

    def _rows_in_memory(self) -> int:
        return len(self._dated.rows) + len(self._undated.rows) + len(self._day_before.rows)

    def _fold_overflow(self, fold: Fold, feed: int, prefix: bytes, at_ms: int) -> bool:
        row = fold.overflow.get((feed, prefix))
        if row is None:
            if len(self._dated.overflow) + len(self._undated.overflow) >= self.bounds.memory_rows:
                return self._drop()
            fold.overflow[feed, prefix] = [at_ms, at_ms, 1]
            return True
        row[0], row[1], row[2] = min(row[0], at_ms), max(row[1], at_ms), row[2] + 1
        return True

    def _drop(self) -> bool:
        self._dropped_unwritten += 1
        self.drops += 1
        return False

    def begin_day(self) -> None:
        """Let each IPv6 /64 bring new addresses again; called once a day."""
        self._admission.begin_day()

    @property
    def unwritten(self) -> int:
        """Events in memory that are not yet in the file."""
        return self._dated.events + self._undated.events + self._day_before.events

    # The file

    def commit(self) -> None:
        """Write the folded events in one transaction; on an error they stay in memory.

        Raises:
            SpoolBusy: the sealer holds the write lock; try again in a few milliseconds.
            SpoolUnwritable: disk full, bound reached, read-only or no file; try again later.
            SpoolDamaged: SQLite reports the file malformed; call ``replace``.
        """
        db = self._opened()
        if self._day_began_ms is not None:
            self._end_day(db, self._day_began_ms)
        if self._dated.is_empty and self._undated.is_empty:
            return
        with transaction(db, self.path):
            if not self._dated.is_empty:
                self._write_dated(db, self._dated)
            if not self._undated.is_empty:
                self._write_undated(db)
            if self._dropped_unwritten:
                db.execute(ADD_META, ("drops", self._dropped_unwritten))
        self._dated.clear()
        self._undated.clear()
        self._dropped_unwritten = 0

    def _end_day(self, db: Connection, now_ms: int) -> None:
        """Write the remaining events of a day and seal all its rows, as durably as the sealer."""
        db.execute("PRAGMA synchronous=FULL")
        try:
            with transaction(db, self.path):
                self._write_dated(db, self._day_before)
                old = db.execute(OLDER, (now_ms - now_ms % DAY_MS,)).fetchone()
                while old and seal_rows(db, self.sensor, now_ms, most_rows=MAX_ROWS):
                    pass
        finally:
            db.execute("PRAGMA synchronous=NORMAL")
        self._day_before.clear()
        self._day_began_ms = None

    def _write_dated(self, db: Connection, fold: Fold) -> None:
        db.executemany(FOLD, [(*key, *row) for key, row in fold.rows.items()])
        db.executemany(COUNT, [(*key, n) for key, n in fold.buckets.items()])
        if fold.overflow:
            db.executemany(OVERFLOW, [(*key, *row) for key, row in fold.overflow.items()])

    def _write_undated(self, db: Connection) -> None:
        fold, boot = self._undated, self.boot
        db.executemany(FOLD_UNDATED, [(boot, *key, *row) for key, row in fold.rows.items()])
        db.executemany(COUNT_UNDATED, [(boot, *key, n) for key, n in fold.buckets.items()])
        db.executemany(OVERFLOW_UNDATED, [(boot, *key, *row) for key, row in fold.overflow.items()])

    def note_state(
        self,
        reading: Reading,
        *,
        version: str,
        counters: dict[str, int],
        addresses: int = 0,
        client_ms: int | None = None,
        doubt: str = "",
    ) -> None:
        """Note the sensor's state for the next batch and for `smtpfeeds sensor status`.

        Args:
            reading: the clocks now.
            version: the sensor's version.
            counters: its counters, by name.
            addresses: how many addresses it listens on; 0: not known.
            client_ms: when the last client connected, UTC; None: not since the start.
            doubt: why the wall clock is in doubt, or empty.

        Raises:
            SpoolBusy, SpoolUnwritable, SpoolDamaged: as for ``commit``. ``SpoolDamaged`` also if
                the file was deleted or moved, because its events would never be delivered.
        """
        db = self._opened()
        if not self._is_in_place():
            raise SpoolDamaged(f"spool {self.path} was deleted or moved away")
        if reading.utc_ms is not None:
            self.noted_ms = reading.utc_ms
        state = {
            "version": version,
            "counters": counters,
            "addresses": addresses,
            "noted_ms": self.noted_ms,
            "client_ms": client_ms,
            "doubt": doubt,
        }
        with transaction(db, self.path):
            set_json(db, "state", state)

    def check(self) -> None:
        """Read the whole file, also what only the deliverer uses; it takes seconds if it is large.

        Raises:
            SpoolBusy, SpoolUnwritable: this is not possible now.
            SpoolDamaged: SQLite reports the file malformed; call ``replace``.
        """
        check_pages(self._opened(), self.path)

    def replace(self) -> None:
        """Quarantine a damaged file and continue with a new one; events in memory stay.

        Raises:
            SpoolBusy, SpoolUnwritable: this is not possible now; ``commit`` tries again.
        """
        self._close_file()
        self._is_damaged = True
        self._opened()

    def _is_in_place(self) -> bool:
        try:
            return inode(self.path) == self._inode
        except SpoolError:
            return False

    def _close_file(self) -> None:
        if self._db is not None:
            self._db.close()
            self._db = None

    def close(self) -> None:
        """Close the file. Call ``commit`` before."""
        self._close_file()
        if self._lock is not None:
            self._lock.close()
            self._lock = None
