"""The spool: what a sensor heard, folded, in one SQLite file until it is delivered.

Two sides use one file, each with a connection of its own:

* ``Spool`` is the sensor's. Events are folded in memory and committed once for
  each turn of the reactor; an event is in the file before the client is
  answered (WAL with ``synchronous=NORMAL``: a killed process loses nothing).
  While the file cannot be written the fold goes on in memory, within a bound.
* ``Sealer`` is the deliverer's: the sensor's publisher thread, or the
  aggregator on a single host. It moves rows into numbered batches that never
  change again (``synchronous=FULL``: a batch that was sent is never sealed
  anew under another number), forgets them when they are confirmed, and keeps
  the file within its bound.

Every opening by either side begins a new epoch, a fresh UUID for what is sealed
from then on: a restored backup or a cloned image can never reuse a number.

The bound (``max_bytes``), and what goes at it, in this order: confirmed
batches, rows older than ``retention``, then the rows longest unseen. Events
that go are counted in ``drops`` and reported in every batch. Sealed batches
that are not yet confirmed never go.

The only module that imports sqlite3. It holds both sides because the file's
layout is what they share.
"""

import contextlib
import fcntl
import json
import logging
import os
import sqlite3
import time
import uuid
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, NamedTuple

from .addresses import IPv6_BYTES, format_address, prefix64
from .errors import SpoolBusy, SpoolDamaged, SpoolError, SpoolInUse, SpoolUnwritable
from .feeds import FEED_NAMES
from .logs import fields
from .wire import MAX_ROWS, Batch, HourCount, Observation, PrefixOverflow, encode

logger = logging.getLogger(__name__)

SUFFIX: Final = ".spool"
_LAYOUT: Final = 1
_HOUR_MS: Final = 3_600_000
_DAY_MS: Final = 86_400_000
_PAGE_BYTES: Final = 4_096
#: Rows deleted in one write transaction, so that the sensor never waits long.
_SLICE_ROWS: Final = 2_000
#: The sensor checkpoints only past this (64 MB): the sealer does it otherwise,
#: so that no fsync falls on the reactor.
_WRITER_CHECKPOINT_PAGES: Final = 16_384

_SCHEMA: Final = """
CREATE TABLE meta (key TEXT PRIMARY KEY, value) WITHOUT ROWID;
CREATE TABLE observation (
    feed INTEGER NOT NULL, ip BLOB NOT NULL,
    first_ms INTEGER NOT NULL, last_ms INTEGER NOT NULL, hits INTEGER NOT NULL,
    flags INTEGER NOT NULL, targets INTEGER NOT NULL,
    PRIMARY KEY (feed, ip)) WITHOUT ROWID;
CREATE TABLE activity (
    feed INTEGER NOT NULL, hour_ms INTEGER NOT NULL, events INTEGER NOT NULL,
    PRIMARY KEY (feed, hour_ms)) WITHOUT ROWID;
CREATE TABLE overflow (
    feed INTEGER NOT NULL, prefix BLOB NOT NULL,
    first_ms INTEGER NOT NULL, last_ms INTEGER NOT NULL, hits INTEGER NOT NULL,
    PRIMARY KEY (feed, prefix)) WITHOUT ROWID;
CREATE TABLE batch (
    spool TEXT NOT NULL, seq INTEGER NOT NULL, sealed_ms INTEGER NOT NULL,
    events INTEGER NOT NULL, body BLOB NOT NULL,
    confirmed_ms INTEGER, set_aside TEXT,
    PRIMARY KEY (spool, seq));
CREATE INDEX batch_waiting ON batch (sealed_ms) WHERE confirmed_ms IS NULL;
"""

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
_ADD_META: Final = """
INSERT INTO meta VALUES (?,?) ON CONFLICT (key) DO UPDATE SET value = value + excluded.value
"""
_SET_META: Final = "INSERT OR REPLACE INTO meta VALUES (?,?)"


class Event(NamedTuple):
    """One greet or data event: feed index in ``FEEDS``, packed address, time, what was notable."""

    feed: int
    ip: bytes
    at_ms: int
    flags: int = 0
    #: Which of the sensor's own addresses: a bit number, 0 to 63.
    target: int = 0


@dataclass(frozen=True, slots=True)
class Bounds:
    """What a spool may hold."""

    #: Octets of the file, the write-ahead log not counted.
    max_bytes: int = 512 * 1024 * 1024
    #: Distinct (feed, address) rows folded in memory while the file cannot be written.
    memory_rows: int = 100_000
    #: Rows unseen for longer are of no use to the aggregator.
    retention_ms: int = 30 * _DAY_MS
    #: Confirmed batches are kept this long for a replay.
    replay_ms: int = _DAY_MS
    #: Distinct addresses of an IPv6 /64 kept in a UTC day; more are counted under the prefix.
    per_prefix64: int = 64
    #: Prefixes watched for that; past it the count begins anew.
    prefixes64: int = 65_536


class SealedBatch(NamedTuple):
    """A batch as it is sent: known by (spool, seq), its body never changes."""

    spool: str
    seq: int
    sealed_ms: int
    body: bytes


@dataclass
class _Fold:
    """What was heard since the last commit."""

    rows: dict[tuple[int, bytes], list[int]] = field(default_factory=dict)
    hours: dict[tuple[int, int], int] = field(default_factory=dict)
    overflow: dict[tuple[int, bytes], list[int]] = field(default_factory=dict)
    dropped: int = 0
    events: int = 0


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
        self._lock = _take_lock(
            path.with_suffix(".lock"),
            f"spool {path} is in use by another sensor; give each sensor (and each worker) its own",
        )
        try:
            self._db, self.set_aside = _open_or_replace(path, sensor, self.bounds)
        except BaseException:
            self._lock.close()
            raise
        self._fold = _Fold()
        self._admitted = _PrefixAdmission(self.bounds.per_prefix64, self.bounds.prefixes64)
        self.drops = 0

    def fold(self, event: Event) -> bool:
        """Take one event in memory; ``commit`` writes it. False where the bound dropped its row."""
        fold = self._fold
        feed, ip, at_ms, flags, target = event
        hour = (feed, at_ms - at_ms % _HOUR_MS)
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
        with _transaction(self._db, self.path):
            self._db.executemany(_FOLD, [(*key, *row) for key, row in fold.rows.items()])
            self._db.executemany(_COUNT, [(*key, n) for key, n in fold.hours.items()])
            if fold.overflow:
                self._db.executemany(
                    _OVERFLOW, [(*key, *row) for key, row in fold.overflow.items()]
                )
            if fold.dropped:
                self._db.execute(_ADD_META, ("drops", fold.dropped))
        self._fold = _Fold()

    def note_state(self, *, version: str, counters: dict[str, int], now_ms: int) -> None:
        """Leave the sensor's version and counters in the file, for the next batch and for `status`.

        Raises:
            SpoolBusy, SpoolUnwritable, SpoolDamaged: as ``commit``.
        """
        state = json.dumps({"version": version, "counters": counters, "noted_ms": now_ms})
        with _transaction(self._db, self.path):
            self._db.execute(_SET_META, ("state", state))

    def replace(self, sensor: str) -> Path:
        """Set a damaged file aside and go on with a new one; what is folded in memory stays.

        Returns:
            Where the damaged file is now.
        """
        self._db.close()
        aside = _set_aside(self.path)
        self._db = _create(self.path, sensor, self.bounds)
        return aside

    def close(self) -> None:
        """Close the file; call ``commit`` before."""
        self._db.close()
        self._lock.close()


class _PrefixAdmission:
    """At most N distinct addresses of an IPv6 /64 in a UTC day."""

    def __init__(self, per_prefix: int, prefixes: int) -> None:
        self._per_prefix, self._prefixes = per_prefix, prefixes
        self._day = 0
        self._seen: dict[bytes, set[bytes]] = {}

    def admits(self, ip: bytes, at_ms: int) -> bool:
        day = at_ms // _DAY_MS
        if day != self._day or len(self._seen) >= self._prefixes:
            self._day, self._seen = day, {}
        seen = self._seen.setdefault(ip[:8], set())
        if ip in seen:
            return True
        if len(seen) >= self._per_prefix:
            return False
        seen.add(ip)
        return True


class Sealer:
    """The deliverer's side of a spool file; all calls from one thread."""

    def __init__(self, path: Path, *, bounds: Bounds | None = None) -> None:
        """Open a spool that a sensor has made.

        Raises:
            SpoolInUse: another publisher or aggregator delivers from it.
            SpoolError: there is no such spool yet.
        """
        self.path = path
        self.bounds = bounds or Bounds()
        if not path.exists():
            raise SpoolError(f"there is no spool {path}; the sensor makes it when it starts")
        self._lock = _take_lock(
            path.with_suffix(".sealer-lock"),
            f"spool {path} is already being "
            "delivered, by a publisher or an aggregator; stop one of them",
        )
        try:
            self._db = _connect(path, synchronous="FULL", busy_ms=2_000)
            self._inode = path.stat().st_ino
            _check_layout(self._db, path)
            self.sensor = str(self._meta("sensor"))
            with _transaction(self._db, path):
                _begin_epoch(self._db)
        except BaseException:
            self._lock.close()
            raise

    def _meta(self, key: str, default: Any = None) -> Any:
        row = self._db.execute("SELECT value FROM meta WHERE key = ?", (key,)).fetchone()
        return default if row is None else row[0]

    @property
    def replaced(self) -> bool:
        """Whether the file at the path is no longer the one that is open here."""
        try:
            return self.path.stat().st_ino != self._inode
        except OSError:
            return True

    def seal(self, now_ms: int, *, empty: bool = False) -> SealedBatch | None:
        """Move up to 5,000 rows into a new batch, in one durable transaction.

        Args:
            now_ms: the time of sealing.
            empty: seal also where there is nothing, to say that the sensor is alive.

        Returns:
            The batch, or None where there was nothing to seal.

        Raises:
            SpoolBusy, SpoolUnwritable, SpoolDamaged: nothing was sealed.
        """
        with _transaction(self._db, self.path):
            rows = self._take("observation", MAX_ROWS)
            hours = self._take("activity", MAX_ROWS)
            overflow = self._take("overflow", MAX_ROWS)
            if not (rows or hours or overflow or empty):
                return None
            spool, seq = str(self._meta("uuid")), int(self._meta("next_seq"))
            batch = self._batch(spool, seq, now_ms, rows, hours, overflow)
            body = encode(batch)
            self._db.execute(
                "INSERT INTO batch VALUES (?,?,?,?,?,NULL,NULL)",
                (spool, seq, now_ms, sum(row[4] for row in rows), body),
            )
            self._db.execute(_SET_META, ("next_seq", seq + 1))
        return SealedBatch(spool, seq, now_ms, body)

    def _take(self, table: str, limit: int) -> list[tuple[Any, ...]]:
        key = {"observation": "ip", "activity": "hour_ms", "overflow": "prefix"}[table]
        rows = self._db.execute(
            f"SELECT * FROM {table} ORDER BY feed, {key} LIMIT ?",
            (limit,),
        ).fetchall()
        if len(rows) < limit:
            self._db.execute(f"DELETE FROM {table}")  # noqa: S608 - own names
        else:
            self._db.executemany(
                f"DELETE FROM {table} WHERE feed = ? AND {key} = ?",  # noqa: S608 - own names
                [(row[0], row[1]) for row in rows],
            )
        return rows

    def _batch(
        self,
        spool: str,
        seq: int,
        now_ms: int,
        rows: list[tuple[Any, ...]],
        hours: list[tuple[Any, ...]],
        overflow: list[tuple[Any, ...]],
    ) -> Batch:
        state = json.loads(self._meta("state", "{}"))
        return Batch(
            spool=spool,
            seq=seq,
            sensor=self.sensor,
            sealed_ms=now_ms,
            version=state.get("version", ""),
            depth=self.depth() if len(rows) == MAX_ROWS else 0,
            drops=int(self._meta("drops", 0)),
            counters=state.get("counters", {}),
            observations=[
                Observation(FEED_NAMES[feed], format_address(ip), first, last, hits, flags, targets)
                for feed, ip, first, last, hits, flags, targets in rows
            ],
            hours=[HourCount(FEED_NAMES[feed], hour, events) for feed, hour, events in hours],
            overflows=[
                PrefixOverflow(FEED_NAMES[feed], f"{format_address(prefix)}/64", first, last, hits)
                for feed, prefix, first, last, hits in overflow
            ],
        )

    def depth(self) -> int:
        """Rows waiting to be sealed."""
        with _reading(self.path):
            return int(self._db.execute("SELECT count(*) FROM observation").fetchone()[0])

    def waiting(self, limit: int = -1) -> list[SealedBatch]:
        """Sealed batches that were never confirmed, oldest first, all or so many."""
        with _reading(self.path):
            rows = self._db.execute(
                "SELECT spool, seq, sealed_ms, body FROM batch"
                " WHERE confirmed_ms IS NULL AND set_aside IS NULL ORDER BY sealed_ms, seq LIMIT ?",
                (limit,),
            ).fetchall()
        return [SealedBatch(*row) for row in rows]

    def waiting_state(self) -> tuple[int, int | None]:
        """How many batches wait for a confirm, and since when the oldest."""
        with _reading(self.path):
            number, oldest_ms = self._db.execute(
                "SELECT count(*), min(sealed_ms) FROM batch"
                " WHERE confirmed_ms IS NULL AND set_aside IS NULL"
            ).fetchone()
        return int(number), oldest_ms

    def forget(self, batches: Iterable[tuple[str, int]], now_ms: int) -> None:
        """Mark batches as confirmed; ``keep_bounds`` deletes them later."""
        with _transaction(self._db, self.path):
            self._db.executemany(
                "UPDATE batch SET confirmed_ms = ? WHERE spool = ? AND seq = ?",
                [(now_ms, spool, seq) for spool, seq in batches],
            )

    def set_batch_aside(self, spool: str, seq: int, reason: str) -> None:
        """Keep a batch that the broker will never take out of the others' way."""
        with _transaction(self._db, self.path):
            self._db.execute(
                "UPDATE batch SET set_aside = ? WHERE spool = ? AND seq = ?", (reason, spool, seq)
            )

    def replay(self, since_ms: int) -> int:
        """Make confirmed batches sealed since then wait again. Returns how many."""
        return _replay(self._db, self.path, since_ms)

    def keep_bounds(self, now_ms: int) -> int:
        """Drop what the bounds say, in short slices, and checkpoint the log.

        Returns:
            Events dropped that were never delivered.
        """
        with _transaction(self._db, self.path):
            self._db.execute(
                "DELETE FROM batch WHERE rowid IN (SELECT rowid FROM batch"
                " WHERE confirmed_ms < ? ORDER BY rowid LIMIT 64)",
                (now_ms - self.bounds.replay_ms,),
            )
        dropped = 0
        if self.used_bytes() > self.bounds.max_bytes * 9 // 10:
            dropped = self._make_room(now_ms)
        with contextlib.suppress(sqlite3.OperationalError):  # a reader is in the way: next time
            self._db.execute("PRAGMA wal_checkpoint(PASSIVE)")
        return dropped

    def used_bytes(self) -> int:
        """Octets of the file that hold something."""
        pages = self._db.execute("PRAGMA page_count").fetchone()[0]
        free = self._db.execute("PRAGMA freelist_count").fetchone()[0]
        return int(pages - free) * _PAGE_BYTES

    def _make_room(self, now_ms: int) -> int:
        goal = self.bounds.max_bytes * 8 // 10
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
        with _transaction(self._db, self.path):
            return self._db.execute(
                "DELETE FROM batch WHERE rowid IN (SELECT rowid FROM batch"
                " WHERE confirmed_ms IS NOT NULL ORDER BY confirmed_ms LIMIT 64)"
            ).rowcount

    def _drop_rows(self, now_ms: int) -> int | None:
        """Drop the longest unseen tenth; a row that was seen again meanwhile stays.

        Expired rows are the longest unseen ones, so the order covers both rules. A data
        row goes before the greet row of the same time: what is left is still a greet.
        """
        victims = self._db.execute(
            "SELECT feed, ip, last_ms, hits FROM observation ORDER BY last_ms, feed DESC LIMIT ?",
            (max(_SLICE_ROWS, self.depth() // 10),),
        ).fetchall()
        if not victims:
            return None
        dropped = 0
        for at in range(0, len(victims), _SLICE_ROWS):
            dropped += self._drop_slice(victims[at : at + _SLICE_ROWS], now_ms)
        return dropped

    def _drop_slice(self, victims: list[tuple[int, bytes, int, int]], now_ms: int) -> int:
        expired = now_ms - self.bounds.retention_ms
        dropped = 0
        with _transaction(self._db, self.path):
            for feed, ip, last_ms, hits in victims:
                gone = self._db.execute(
                    "DELETE FROM observation WHERE feed = ? AND ip = ? AND last_ms = ?",
                    (feed, ip, last_ms),
                ).rowcount
                if gone and last_ms >= expired:
                    dropped += hits
            self._db.execute(_ADD_META, ("drops", dropped))
        return dropped

    def close(self) -> None:
        """Close the file."""
        self._db.close()
        self._lock.close()


class Status(NamedTuple):
    """What a spool file says of itself, without its sensor's help."""

    sensor: str
    version: str
    #: When the sensor last wrote its state, or None.
    noted_ms: int | None
    rows: dict[str, int]
    #: First time of the oldest row that waits, or None.
    oldest_ms: int | None
    batches_waiting: int
    batches_set_aside: int
    batches_kept: int
    drops: int
    used_bytes: int
    counters: dict[str, int]


def read_status(path: Path) -> Status:
    """Read a spool's state without disturbing its sensor.

    Raises:
        SpoolError: no such file, or not a spool.
    """
    if not path.exists():
        raise SpoolError(f"there is no spool {path}")
    db = _connect(path, synchronous="NORMAL", busy_ms=2_000)
    try:
        _check_layout(db, path)
        return _status(db)
    finally:
        db.close()


def _status(db: sqlite3.Connection) -> Status:
    meta = dict(db.execute("SELECT key, value FROM meta").fetchall())
    state = json.loads(meta.get("state", "{}"))
    counts = dict(db.execute("SELECT feed, count(*) FROM observation GROUP BY feed").fetchall())
    waiting, aside, kept = db.execute(
        "SELECT count(*) FILTER (WHERE confirmed_ms IS NULL AND set_aside IS NULL),"
        " count(*) FILTER (WHERE set_aside IS NOT NULL),"
        " count(*) FILTER (WHERE confirmed_ms IS NOT NULL) FROM batch"
    ).fetchone()
    pages = db.execute("PRAGMA page_count").fetchone()[0]
    free = db.execute("PRAGMA freelist_count").fetchone()[0]
    return Status(
        sensor=str(meta["sensor"]),
        version=state.get("version", ""),
        noted_ms=state.get("noted_ms"),
        rows={name: counts.get(index, 0) for index, name in enumerate(FEED_NAMES)},
        oldest_ms=db.execute("SELECT min(first_ms) FROM observation").fetchone()[0],
        batches_waiting=waiting,
        batches_set_aside=aside,
        batches_kept=kept,
        drops=int(meta.get("drops", 0)),
        used_bytes=(pages - free) * _PAGE_BYTES,
        counters=state.get("counters", {}),
    )


def replay(path: Path, since_ms: int) -> int:
    """Make confirmed batches sealed since then wait again, beside whoever delivers from the spool.

    Whoever that is sends them at its next look: what waits is in the file, and nowhere else.

    Returns:
        How many.

    Raises:
        SpoolError: no such file, or not a spool.
    """
    if not path.exists():
        raise SpoolError(f"there is no spool {path}")
    db = _connect(path, synchronous="FULL", busy_ms=10_000)
    try:
        _check_layout(db, path)
        return _replay(db, path, since_ms)
    finally:
        db.close()


def _replay(db: sqlite3.Connection, path: Path, since_ms: int) -> int:
    with _transaction(db, path):
        return db.execute(
            "UPDATE batch SET confirmed_ms = NULL"
            " WHERE confirmed_ms IS NOT NULL AND sealed_ms >= ?",
            (since_ms,),
        ).rowcount


def find_spools(folder: Path) -> list[Path]:
    """The spool files in a folder, by name.

    Raises:
        SpoolError: no such folder.
    """
    if not folder.is_dir():
        raise SpoolError(
            f"there is no folder of spools {folder}; the sensor's `spool_dir` makes it"
        )
    return sorted(folder.glob("*" + SUFFIX))


def _open_or_replace(
    path: Path, sensor: str, bounds: Bounds
) -> tuple[sqlite3.Connection, Path | None]:
    """Open the file, or set it aside where it is damaged and make a new one."""
    if not path.exists():
        return _create(path, sensor, bounds), None
    try:
        return _open_existing(path, sensor, bounds), None
    except SpoolDamaged:
        aside = _set_aside(path)
        return _create(path, sensor, bounds), aside


def _open_existing(path: Path, sensor: str, bounds: Bounds) -> sqlite3.Connection:
    db = _connect(path, synchronous="NORMAL", busy_ms=2_000)
    try:
        verdict = db.execute("PRAGMA quick_check(1)").fetchone()[0]
        if verdict != "ok":
            raise SpoolDamaged(f"spool {path} is damaged: {verdict}")
        _check_layout(db, path)
        owner = db.execute("SELECT value FROM meta WHERE key = 'sensor'").fetchone()[0]
        if owner != sensor:
            raise SpoolError(
                f"spool {path} belongs to the sensor {owner!r}, not {sensor!r}: "
                "deliver it under its own name, or give this sensor another spool_dir"
            )
        _begin(db, bounds)
    except sqlite3.DatabaseError as exc:
        db.close()
        raise _translated(exc, path) from exc
    except BaseException:
        db.close()
        raise
    return db


def _create(path: Path, sensor: str, bounds: Bounds) -> sqlite3.Connection:
    """Make a whole spool aside, then rename it: another process never sees half of one."""
    fresh = path.with_suffix(".new")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        for suffix in ("", "-wal", "-shm"):
            Path(f"{fresh}{suffix}").unlink(missing_ok=True)
        fresh.touch(mode=0o600)
        db = sqlite3.connect(fresh, isolation_level=None)
        db.executescript(
            f"PRAGMA page_size={_PAGE_BYTES}; PRAGMA auto_vacuum=INCREMENTAL;"
            f"PRAGMA user_version={_LAYOUT}; BEGIN; {_SCHEMA} COMMIT; PRAGMA journal_mode=WAL;"
        )
        db.execute(_SET_META, ("sensor", sensor))
        _begin_epoch(db)
        db.close()
        fresh.rename(path)
    except (OSError, sqlite3.Error) as exc:
        raise SpoolError(f"cannot make the spool {path}: {exc}") from exc
    db = _connect(path, synchronous="NORMAL", busy_ms=2_000)
    _begin(db, bounds)
    return db


def _begin(db: sqlite3.Connection, bounds: Bounds) -> None:
    db.execute(f"PRAGMA wal_autocheckpoint={_WRITER_CHECKPOINT_PAGES}")
    db.execute(f"PRAGMA max_page_count={max(64, bounds.max_bytes // _PAGE_BYTES)}")
    db.execute("BEGIN IMMEDIATE")
    _begin_epoch(db)
    db.execute("COMMIT")
    # From here on the reactor waits: the lock is tried for a moment only.
    db.execute("PRAGMA busy_timeout=5")


def _begin_epoch(db: sqlite3.Connection) -> None:
    db.execute(_SET_META, ("uuid", str(uuid.uuid4())))
    db.execute(_SET_META, ("next_seq", 1))


def _connect(path: Path, *, synchronous: str, busy_ms: int) -> sqlite3.Connection:
    try:
        db = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        db.execute(f"PRAGMA busy_timeout={busy_ms}")
        db.execute(f"PRAGMA synchronous={synchronous}")
        db.execute("PRAGMA temp_store=MEMORY")
        db.execute("PRAGMA journal_size_limit=67108864")
    except sqlite3.Error as exc:
        raise _translated(exc, path) from exc
    return db


def _check_layout(db: sqlite3.Connection, path: Path) -> None:
    try:
        layout = db.execute("PRAGMA user_version").fetchone()[0]
        owned = layout and db.execute("SELECT 1 FROM meta WHERE key = 'sensor'").fetchone()
    except sqlite3.DatabaseError as exc:
        raise _translated(exc, path) from exc
    if layout > _LAYOUT:
        raise SpoolError(
            f"spool {path} has layout {layout}, newer than this program's {_LAYOUT}: "
            "upgrade smtpfeeds on this host"
        )
    if not owned:
        raise SpoolDamaged(f"{path} is not a spool")


def _set_aside(path: Path) -> Path:
    aside = path.with_suffix(time.strftime(".damaged-%Y%m%dT%H%M%SZ", time.gmtime()))
    while aside.exists():
        aside = aside.with_name(aside.name + "-again")
    path.rename(aside)
    for suffix in ("-wal", "-shm"):
        beside = Path(f"{path}{suffix}")
        if beside.exists():
            beside.rename(f"{aside}{suffix}")
    logger.error("damaged spool set aside; a new one is begun", extra=fields(file=str(aside)))
    return aside


def _take_lock(path: Path, refusal: str) -> Any:
    """Hold an advisory lock on a file for as long as the returned stream is open."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        stream = os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600), "r+b")
    except OSError as exc:
        raise SpoolError(f"cannot make the lock {path}: {exc.strerror}") from exc
    try:
        fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as exc:
        stream.close()
        raise SpoolInUse(refusal) from exc
    return stream


@contextlib.contextmanager
def _transaction(db: sqlite3.Connection, path: Path) -> Iterator[None]:
    """One write transaction; SQLite's errors become ours, and nothing of it stays."""
    try:
        db.execute("BEGIN IMMEDIATE")
        yield
        db.execute("COMMIT")
    except BaseException as exc:
        if db.in_transaction:
            with contextlib.suppress(sqlite3.Error):
                db.execute("ROLLBACK")
        if isinstance(exc, sqlite3.Error):
            raise _translated(exc, path) from exc
        raise


@contextlib.contextmanager
def _reading(path: Path) -> Iterator[None]:
    """SQLite's errors become ours."""
    try:
        yield
    except sqlite3.Error as exc:
        raise _translated(exc, path) from exc


_BUSY: Final = {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED}
_DAMAGED: Final = {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB}


def _translated(exc: sqlite3.Error, path: Path) -> SpoolError:
    code = getattr(exc, "sqlite_errorcode", 0) & 0xFF
    if code in _BUSY:
        return SpoolBusy(f"spool {path}: {exc}")
    if code in _DAMAGED:
        return SpoolDamaged(f"spool {path} is damaged: {exc}")
    return SpoolUnwritable(f"spool {path} cannot be written: {exc}")


Clock = Callable[[], int]


def now_ms() -> int:
    """The host's clock, in milliseconds since 1970-01-01 UTC."""
    return time.time_ns() // 1_000_000
