"""Loads an operator's files: a child compiles the index, and this process maps it.

Compiling a full table takes seconds, so a folder may keep the index. The next start and the
commands map that one as long as table and names are the same.
"""

import os
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, BinaryIO, Final

from smtpfeeds_common.errors import OriginError

from ..datasets.directory import sha256_of
from .generation import CHILD, generation_name, open_index, table_of
from .table.in_memory import OriginTable
from .table.index import OriginIndex

#: Changes when a file does: device, inode, size and time of modification.
Signature = tuple[int, int, int, int]

_SUFFIX: Final = ".index"
_SHA_DIGITS: Final = 32


class KeptIndex:
    """A folder with the last compiled index: `GENERATION-SHA256.index`.

    The name has the SHA-256 of the file, so that a damaged one is not used. If the folder is not
    writable, no index is kept.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def find(self, facts: dict[str, Any]) -> OriginTable | None:
        """Return the table with these facts, if its index is kept and undamaged."""
        for path in self._folder.glob(f"{facts['generation']}-*{_SUFFIX}"):
            with suppress(OriginError):
                if path.name == self._name(facts["generation"], path):
                    table = open_index(path)
                    if (table.info.source, table.info.table_time) == (
                        facts["source"],
                        datetime.fromisoformat(facts["table_time"]),
                    ):
                        return table
        return None

    @contextmanager
    def making(self, generation: str) -> Iterator[BinaryIO]:
        """Yield a file to write an index to; it replaces the kept one unless the body raises."""
        try:
            self._folder.mkdir(exist_ok=True)
            descriptor, path = tempfile.mkstemp(dir=self._folder, prefix=".new-")
        except OSError:
            with _memory_file() as out:
                yield out
            return
        partial = Path(path)
        try:
            with os.fdopen(descriptor, "r+b") as out:
                yield out
            with suppress(OSError):
                partial.chmod(0o644)
                name = self._name(generation, partial)
                partial.rename(self._folder / name)
                self._remove_others(name)
        finally:
            partial.unlink(missing_ok=True)

    def _name(self, generation: str, path: Path) -> str:
        return f"{generation}-{sha256_of(path, OriginError)[:_SHA_DIGITS]}{_SUFFIX}"

    def _remove_others(self, kept: str) -> None:
        for path in self._folder.glob(f"*{_SUFFIX}"):
            if path.name != kept:
                path.unlink(missing_ok=True)


def load_files(
    table: Path,
    names: Path | None,
    *,
    timeout_s: float,
    kept: KeptIndex | None = None,
    stop: threading.Event | None = None,
    progress: Callable[[str], None] | None = None,
    known: dict[str, Any] | None = None,
) -> OriginTable:
    """Load a pyasn table and a list of AS names, such as an operator's files.

    Args:
        kept: keeps the index between runs.
        known: the manifest, if the files are a generation's; their names are clean then.

    Raises:
        OriginError: a file cannot be used, or changed while it was read.
    """
    before = signature(table), signature(names) if names else None
    facts = _facts(table, names, before[0], known)
    table_in_use = kept.find(facts) if kept is not None else None
    if table_in_use is not None:
        return table_in_use
    making = kept.making(facts["generation"]) if kept is not None else _memory_file()
    with making as out:
        CHILD.run(
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
            raise OriginError(f"{table} changed while it was read; the next attempt reads it again")
    return table_of(index)


def _facts(
    table: Path, names: Path | None, seen: Signature, known: dict[str, Any] | None
) -> dict[str, Any]:
    """Return the facts that the index stores about its table."""
    if known:
        return {key: known[key] for key in ("source", "table_time", "generation")}
    names_sha = sha256_of(names, OriginError) if names else ""
    return {
        "source": str(table),
        "table_time": datetime.fromtimestamp(seen[3] // 10**9, UTC).isoformat(),
        "generation": generation_name(sha256_of(table, OriginError), names_sha),
    }


def signature(path: Path) -> Signature:
    """Return a value that changes when a file does.

    Raises:
        OriginError: there is no such file.
    """
    try:
        status = path.stat()
    except OSError as exc:
        raise OriginError(f"cannot read {path}: {exc.strerror}; check the setting") from exc
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns


def _memory_file() -> BinaryIO:
    """Open an unnamed file in memory, or in the temporary directory on systems without memfd."""
    try:
        if hasattr(os, "memfd_create"):
            return os.fdopen(os.memfd_create("smtpfeeds-origin"), "r+b")
        return _temporary_file()
    except OSError as exc:
        raise OriginError(f"no space for an origin index: {exc.strerror}") from exc


def _temporary_file() -> BinaryIO:
    return tempfile.TemporaryFile("r+b")  # type: ignore[return-value,unused-ignore]
