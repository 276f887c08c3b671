"""The spool's file: its layout, how it is opened, locked, made and set aside.

The only module that imports sqlite3; every error of SQLite leaves it as one of ours.
"""

import contextlib
import fcntl
import json
import logging
import os
import sqlite3
import time
import uuid
from collections.abc import Iterator
from dataclasses import asdict
from dataclasses import fields as fields_of
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

from ..errors import SpoolBusy, SpoolDamaged, SpoolError, SpoolInUse, SpoolUnwritable
from ..logs import fields
from .fold import Bounds

logger = logging.getLogger(__name__)

#: The type of an open file, for the modules beside this one.
Connection = sqlite3.Connection

SUFFIX: Final = ".spool"
_LAYOUT: Final = 1
PAGE_BYTES: Final = 4_096
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


ADD_META: Final = """
INSERT INTO meta VALUES (?,?) ON CONFLICT (key) DO UPDATE SET value = value + excluded.value
"""
SET_META: Final = "INSERT OR REPLACE INTO meta VALUES (?,?)"


def open_or_replace(
    path: Path, sensor: str, bounds: Bounds
) -> tuple[sqlite3.Connection, Path | None]:
    """Open the file, or set it aside where it is damaged and make a new one."""
    if not path.exists():
        # A log whose file is gone would be played into the new one: SQLite cannot tell.
        orphaned = any(beside.exists() for beside in _beside(path))
        aside = set_aside(path) if orphaned else None
        return create(path, sensor, bounds), aside
    try:
        return _open_existing(path, sensor, bounds), None
    except SpoolDamaged:
        aside = set_aside(path)
        return create(path, sensor, bounds), aside


def _open_existing(path: Path, sensor: str, bounds: Bounds) -> sqlite3.Connection:
    db = connect(path, synchronous="NORMAL", busy_ms=2_000)
    try:
        verdict = db.execute("PRAGMA quick_check(1)").fetchone()[0]
        if verdict != "ok":
            raise SpoolDamaged(f"spool {path} is damaged: {verdict}")
        check_layout(db, path)
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


def create(path: Path, sensor: str, bounds: Bounds) -> sqlite3.Connection:
    """Make a whole spool aside, then rename it: another process never sees half of one."""
    fresh = path.with_suffix(".new")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        for left_over in (fresh, *_beside(fresh)):
            left_over.unlink(missing_ok=True)
        fresh.touch(mode=0o600)
        with contextlib.closing(sqlite3.connect(fresh, isolation_level=None)) as db:
            db.executescript(
                f"PRAGMA page_size={PAGE_BYTES}; PRAGMA auto_vacuum=INCREMENTAL;"
                f"PRAGMA user_version={_LAYOUT}; BEGIN; {_SCHEMA} COMMIT; PRAGMA journal_mode=WAL;"
            )
            db.execute(SET_META, ("sensor", sensor))
            begin_epoch(db)
        fresh.rename(path)
    except (OSError, sqlite3.Error) as exc:
        raise SpoolError(f"cannot make the spool {path}: {exc}") from exc
    db = connect(path, synchronous="NORMAL", busy_ms=2_000)
    try:
        with reading(path):
            _begin(db, bounds)
    except BaseException:
        db.close()
        raise
    return db


def _beside(path: Path) -> tuple[Path, Path]:
    """The write-ahead log and its index."""
    return Path(f"{path}-wal"), Path(f"{path}-shm")


def _begin(db: sqlite3.Connection, bounds: Bounds) -> None:
    db.execute(f"PRAGMA wal_autocheckpoint={_WRITER_CHECKPOINT_PAGES}")
    db.execute(f"PRAGMA max_page_count={max(64, bounds.max_bytes // PAGE_BYTES)}")
    db.execute("BEGIN IMMEDIATE")
    begin_epoch(db)
    db.execute(SET_META, ("bounds", json.dumps(asdict(bounds))))
    db.execute("COMMIT")
    # From here on the reactor would wait: the lock is tried once, and again a few ms later.
    db.execute("PRAGMA busy_timeout=0")


def noted_bounds(db: sqlite3.Connection) -> Bounds:
    """The bounds that its sensor has set; the default for what is not noted."""
    row = db.execute("SELECT value FROM meta WHERE key = 'bounds'").fetchone()
    noted = json.loads(row[0]) if row else {}
    known = {each.name for each in fields_of(Bounds)}
    return Bounds(**{name: value for name, value in noted.items() if name in known})


def begin_epoch(db: sqlite3.Connection) -> None:
    db.execute(SET_META, ("uuid", str(uuid.uuid4())))
    db.execute(SET_META, ("next_seq", 1))


def connect(path: Path, *, synchronous: str, busy_ms: int) -> sqlite3.Connection:
    """Open a file that is there: one that went away meanwhile is not made anew, and empty."""
    try:
        address = f"file:{quote(str(path))}?mode=rw"
        db = sqlite3.connect(address, uri=True, isolation_level=None, check_same_thread=False)
        db.execute(f"PRAGMA busy_timeout={busy_ms}")
        db.execute(f"PRAGMA synchronous={synchronous}")
        db.execute("PRAGMA temp_store=MEMORY")
        db.execute("PRAGMA journal_size_limit=67108864")
    except sqlite3.Error as exc:
        raise _translated(exc, path) from exc
    return db


def inode(path: Path) -> int:
    """Which file it is that stands at a path now.

    Raises:
        SpoolError: none.
    """
    try:
        return path.stat().st_ino
    except OSError as exc:
        raise SpoolError(f"the spool {path} is gone: {exc.strerror}") from exc


def check_layout(db: sqlite3.Connection, path: Path) -> None:
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


def set_aside(path: Path) -> Path:
    aside = path.with_suffix(time.strftime(".damaged-%Y%m%dT%H%M%SZ", time.gmtime()))
    while aside.exists():
        aside = aside.with_name(aside.name + "-again")
    if path.exists():  # it may be gone: deleted under a running sensor
        path.rename(aside)
    for beside, beside_aside in zip(_beside(path), _beside(aside), strict=True):
        if beside.exists():
            beside.rename(beside_aside)
    logger.error("damaged spool set aside; a new one is begun", extra=fields(file=str(aside)))
    return aside


def take_lock(path: Path, refusal: str) -> Any:
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
def transaction(db: sqlite3.Connection, path: Path) -> Iterator[None]:
    """One write transaction; SQLite's errors become ours, and nothing of it stays."""
    try:
        db.execute("BEGIN IMMEDIATE")
        yield
        db.execute("COMMIT")
    except BaseException as exc:
        # It may be over already (disk full), or the file closed (a replacement that failed).
        with contextlib.suppress(sqlite3.Error):
            db.execute("ROLLBACK")
        if isinstance(exc, sqlite3.Error):
            raise _translated(exc, path) from exc
        raise


@contextlib.contextmanager
def reading(path: Path) -> Iterator[None]:
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
