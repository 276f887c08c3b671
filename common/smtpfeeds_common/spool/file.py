"""The spool's file at the level of SQLite and the kernel: connections, transactions, locks, errors.

This is the only module that imports sqlite3. It translates every error of SQLite, and of the
kernel on access to the file, to a ``SpoolError``.
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

#: The type of an open file, for the other modules of the spool.
Connection = sqlite3.Connection

PAGE_BYTES: Final = 4_096

_BUSY: Final = {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED}
_DAMAGED: Final = {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB}
#: Errors that can pass by themselves: disk or quota full, I/O error, too many files, no memory.
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
    """Open an existing file; never create a missing one."""
    address = f"file:{quote(str(path))}?mode=rw"
    with reading(path):
        db = sqlite3.connect(address, uri=True, isolation_level=None, check_same_thread=False)
        try:
            db.set_authorizer(_only_our_statements)
            # A damaged value may be a text that is not UTF-8; by default reading it is an error.
            db.text_factory = _text
            db.execute(f"PRAGMA busy_timeout={busy_ms}")
            db.execute(f"PRAGMA synchronous={synchronous}")
            db.execute("PRAGMA temp_store=MEMORY")
            db.execute("PRAGMA journal_size_limit=67108864")
        except BaseException:
            db.close()
            raise
    return db


def check_pages(db: Connection, path: Path) -> None:
    """Read the whole file, which takes seconds if it is large.

    Raises:
        SpoolDamaged: SQLite reports it malformed.
    """
    with reading(path):
        result = db.execute("PRAGMA quick_check(1)").fetchone()[0]
    if result != "ok":
        raise SpoolDamaged(f"spool {path} is damaged: {result}")


def _text(octets: bytes) -> str:
    return octets.decode(errors="replace")


def _only_our_statements(
    _action: int, _one: str | None, _other: str | None, _db: str | None, source: str | None
) -> int:
    """Refuse what a view or a trigger does.

    No sensor creates one. In a file that somebody changed they could run without end.
    """
    return sqlite3.SQLITE_OK if source is None else sqlite3.SQLITE_DENY


def connect_new(path: Path) -> Connection:
    """Create a file. Use it within ``reading``, which translates SQLite's errors."""
    return sqlite3.connect(path, isolation_level=None)


@contextlib.contextmanager
def transaction(db: Connection, path: Path) -> Iterator[None]:
    """Run one write transaction; roll it back on any error, and translate SQLite's errors."""
    try:
        db.execute("BEGIN IMMEDIATE")
        yield
        db.execute("COMMIT")
    except BaseException as exc:
        # SQLite may have rolled back already (disk full).
        with contextlib.suppress(sqlite3.Error):
            db.execute("ROLLBACK")
        if isinstance(exc, sqlite3.Error):
            raise _translated(exc, path) from exc
        raise


@contextlib.contextmanager
def reading(path: Path) -> Iterator[None]:
    """Translate SQLite's errors to a ``SpoolError``."""
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
    """Translate the kernel's errors on access to a spool.

    An error that can pass by itself becomes ``SpoolUnwritable``, and so does a file system that has
    become read-only under an existing spool. Any other error means that the host is set up wrongly
    and becomes a plain ``SpoolError``.
    """
    try:
        yield
    except OSError as exc:
        passing = exc.errno in _PASSING or (exc.errno == errno.EROFS and path.exists())
        error = SpoolUnwritable if passing else SpoolError
        raise error(f"spool {path} cannot be written: {exc.strerror}") from exc


def check_access(path: Path) -> None:
    """Check that this user may write an existing spool and create files beside it.

    SQLite reports a missing right and a full disk as the same error; only a full disk can pass.

    Raises:
        SpoolUnwritable: the file system is read-only.
        SpoolError: this user lacks a right.
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
    """Take an advisory lock on a file, held as long as the returned stream is open.

    Raises:
        SpoolInUse: another process holds it; ``refusal`` is the message.
        SpoolUnwritable, SpoolError: the file cannot be created.
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
    """Return the inode of the file at a path.

    Raises:
        SpoolError: there is no file.
    """
    try:
        return path.stat().st_ino
    except OSError as exc:
        raise SpoolError(f"the spool {path} does not exist any more: {exc.strerror}") from exc
