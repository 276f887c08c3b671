"""From files to a table in memory: the index is made in a child, then mapped here."""

import hashlib
import os
import tempfile
import threading
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, BinaryIO, Final

from smtpfeeds_common.errors import OriginError

from ..acquire.children import run_child
from .in_memory import OriginInfo, OriginTable
from .index import OriginIndex

#: Of a SHA-256 this much names a generation: 48 bits, among a handful of tables.
SHA_DIGITS: Final = 12

#: What tells that a file is another: device, inode, size and time of change.
Signature = tuple[int, int, int, int]


def load_files(
    table: Path,
    names: Path | None,
    *,
    timeout_s: float,
    stop: threading.Event | None = None,
    progress: Callable[[str], None] | None = None,
    known: dict[str, Any] | None = None,
) -> OriginTable:
    """Load a pyasn table and a list of names, such as an operator keeps as plain files.

    Args:
        known: the manifest, where they are a generation's: what they are called, and clean names.

    Raises:
        OriginError: one of them cannot be used, or changed while it was read.
    """
    before = signature(table), signature(names) if names else None
    generation = generation_name(sha256_of(table), sha256_of(names) if names else "")
    changed = datetime.fromtimestamp(before[0][3] // 10**9, UTC)
    facts = {"source": str(table), "table_time": changed.isoformat(), "generation": generation}
    if known:
        facts |= {key: known[key] for key in facts}
    with _memory_file() as out:
        run_child(
            "compile",
            {
                "table": str(table),
                "names": str(names or ""),
                "names_cleaned": known is not None,
                "fd": out.fileno(),
                "facts": facts,
            },
            timeout_s=timeout_s,
            pass_fds=(out.fileno(),),
            stop=stop,
            progress=progress,
        )
        index = OriginIndex(out.fileno(), name=f"the index of {table}")
    if before != (signature(table), signature(names) if names else None):
        raise OriginError(f"{table} changed while it was read: it is tried again")
    return table_of(index)


def table_of(index: OriginIndex) -> OriginTable:
    """The table that an index says it is."""
    facts: dict[str, Any] = index.facts
    try:
        info = OriginInfo(
            source=facts["source"],
            table_time=_time(facts["table_time"]),
            prefixes_ipv4=facts["prefixes4"],
            prefixes_ipv6=facts["prefixes6"],
            origins=facts["origins"],
            names=facts["names"],
            bad_lines=facts["bad_lines"],
        )
        return OriginTable(index, facts["generation"], info)
    except (KeyError, TypeError, ValueError) as exc:
        raise OriginError(f"an origin index lacks what it should say of its table: {exc}") from exc


def _time(text: str | None) -> datetime | None:
    return datetime.fromisoformat(text) if text else None


def generation_name(table_sha: str, names_sha: str) -> str:
    """The stable name of a table and its names."""
    return f"{table_sha[:SHA_DIGITS]}-{names_sha[:SHA_DIGITS] or 'nonames'}"


def signature(path: Path) -> Signature:
    """What changes when a file does.

    Raises:
        OriginError: there is no such file.
    """
    try:
        found = path.stat()
    except OSError as exc:
        raise OriginError(f"cannot read {path}: {exc.strerror}; check the setting") from exc
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns


def sha256_of(path: Path) -> str:
    """The SHA-256 of a file, as hexadecimal digits; the interpreter lock is let go meanwhile.

    Raises:
        OriginError: it cannot be read.
    """
    try:
        with path.open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    except OSError as exc:
        raise OriginError(f"cannot read {path}: {exc.strerror}; check the setting") from exc


def _memory_file() -> BinaryIO:
    """An unnamed file in memory, or in the temporary directory where there is no such thing."""
    try:
        if hasattr(os, "memfd_create"):
            return os.fdopen(os.memfd_create("smtpfeeds-origin"), "r+b")
        return _temporary_file()
    except OSError as exc:
        raise OriginError(f"no room for an origin index: {exc.strerror}") from exc


def _temporary_file() -> BinaryIO:
    return tempfile.TemporaryFile("r+b")  # type: ignore[return-value,unused-ignore]
