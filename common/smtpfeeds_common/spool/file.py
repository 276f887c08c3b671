"""The spool's file as SQLite and the kernel have it: connections, transactions, locks, errors.

The only module that imports sqlite3; every error of SQLite, and every one of the kernel on the way
to the file, leaves it as one of ours.
"""

import contextlib
import errno
import fcntl
import os
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

from ..errors import SpoolBusy, SpoolDamaged, SpoolError, SpoolInUse, SpoolUnwritable

#: The type of an open file, for the modules beside this one.
Connection = sqlite3.Connection

PAGE_BYTES: Final = 4_096

_BUSY: Final = {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED}
_DAMAGED: Final = {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB}
#: What passes by itself: a full disk or quota, a failing one, too many open files, no memory.
_PASSING: Final = {
    errno.ENOSPC,
    errno.EDQUOT,
    errno.EFBIG,
    errno.EIO,
    errno.EMFILE,
    errno.ENFILE,
    errno.ENOMEM,
}


def connect(path: Path, *, synchronous: str, busy_ms: int) -> Connection:
    """Open a file that is there: one that went away meanwhile is not made again, and empty."""
    address = f"file:{quote(str(path))}?mode=rw"
    with reading(path):
        db = sqlite3.connect(address, uri=True, isolation_level=None, check_same_thread=False)
        try:
            db.execute(f"PRAGMA busy_timeout={busy_ms}")
            db.execute(f"PRAGMA synchronous={synchronous}")
            db.execute("PRAGMA temp_store=MEMORY")
            db.execute("PRAGMA journal_size_limit=67108864")
        except BaseException:
            db.close()
            raise
    return db


def connect_new(path: Path) -> Connection:
    """Make a file; the errors are SQLite's own still: see ``reading``."""
    return sqlite3.connect(path, isolation_level=None)


@contextlib.contextmanager
def transaction(db: Connection, path: Path) -> Iterator[None]:
    """One write transaction; SQLite's errors become ours, and nothing of it stays."""
    try:
        db.execute("BEGIN IMMEDIATE")
        yield
        db.execute("COMMIT")
    except BaseException as exc:
        # It may be over already (disk full).
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


def _translated(exc: sqlite3.Error, path: Path) -> SpoolError:
    code = getattr(exc, "sqlite_errorcode", 0) & 0xFF
    if code in _BUSY:
        return SpoolBusy(f"spool {path}: {exc}")
    if code in _DAMAGED:
        return SpoolDamaged(f"spool {path} is damaged: {exc}")
    return SpoolUnwritable(f"spool {path} cannot be written: {exc}")


@contextlib.contextmanager
def file_access(path: Path) -> Iterator[None]:
    """The kernel's errors on the way to a spool become ours.

    One that passes by itself is ``SpoolUnwritable``; so is a file system that has become read-only
    under a spool. Any other is a mistake in how the host is set up: a plain ``SpoolError``.
    """
    try:
        yield
    except OSError as exc:
        passing = exc.errno in _PASSING or (exc.errno == errno.EROFS and path.exists())
        error = SpoolUnwritable if passing else SpoolError
        raise error(f"spool {path} cannot be written: {exc.strerror}") from exc


def check_access(path: Path) -> None:
    """See to it that this user may write an existing spool and files beside it.

    SQLite has one error for a missing right and for a full disk; only the latter passes.
    """
    read_only = False
    with file_access(path):
        read_only = bool(os.statvfs(path).f_flag & os.ST_RDONLY)
    if read_only:
        raise SpoolUnwritable(f"spool {path} cannot be written: its file system is read-only")
    for each, rights in ((path, os.R_OK | os.W_OK), (path.parent, os.W_OK | os.X_OK)):
        if not os.access(each, rights):
            raise SpoolError(
                f"spool {path} cannot be written: this user has no write access to {each}"
            )


def take_lock(path: Path, refusal: str) -> Any:
    """Hold an advisory lock on a file for as long as the returned stream is open.

    Raises:
        SpoolInUse: another process holds it; with ``refusal``.
        SpoolUnwritable, SpoolError: it cannot be made.
    """
    with file_access(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        stream = os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600), "r+b")
    try:
        fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as exc:
        stream.close()
        raise SpoolInUse(refusal) from exc
    return stream


def inode(path: Path) -> int:
    """Which file it is that stands at a path now.

    Raises:
        SpoolError: none.
    """
    try:
        return path.stat().st_ino
    except OSError as exc:
        raise SpoolError(f"the spool {path} is gone: {exc.strerror}") from exc
