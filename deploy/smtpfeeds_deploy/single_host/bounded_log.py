"""The log file of a child process, with a bound.

The child itself writes to the file, so that it needs no reader beside it and
its last words are there whatever happens to us. Past the bound the file is
copied aside and cut; the child appends, so it goes on at the new end. A line
written between the copy and the cut is lost; that is the price.
"""

import os
import shutil
from pathlib import Path
from typing import Final

#: Together with the one kept aside, a program's logs take at most about twice this.
MAX_BYTES: Final = 8_000_000
_TAIL_BYTES: Final = 8_192
_TAIL_LINES: Final = 12


class BoundedLog:
    """One log file and the one before it, ``NAME.log`` and ``NAME.log.1``."""

    def __init__(self, path: Path, *, max_bytes: int = MAX_BYTES) -> None:
        self.path = path
        self._max_bytes = max_bytes

    def open(self) -> int:
        """A file descriptor that appends, for a child's stdout and stderr."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        return os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)

    def keep_bound(self) -> None:
        """Copy the file aside and cut it where it is past its bound."""
        try:
            if self.path.stat().st_size <= self._max_bytes:
                return
        except FileNotFoundError:
            return
        shutil.copyfile(self.path, self.path.with_name(self.path.name + ".1"))
        os.truncate(self.path, 0)

    def tail(self, since: int = 0) -> str:
        """The last lines, of what was written from an offset on."""
        try:
            with self.path.open("rb") as stream:
                size = stream.seek(0, os.SEEK_END)
                stream.seek(max(since, size - _TAIL_BYTES, 0))
                text = stream.read().decode(errors="replace")
        except FileNotFoundError:
            return ""
        return "\n".join(text.splitlines()[-_TAIL_LINES:])

    def size(self) -> int:
        """Octets in the file now."""
        try:
            return self.path.stat().st_size
        except FileNotFoundError:
            return 0
