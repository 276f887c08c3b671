"""The log file of a child process, with a bound.

The child writes to the file itself, so its last lines are in the file even if the parent is
killed. Past the bound the parent copies the file to ``NAME.log.1`` and truncates it. The child
opened it with O_APPEND and continues at the new end. A line that the child writes between the copy
and the truncation is lost.
"""

import os
import shutil
from pathlib import Path
from typing import Final

#: The logs of a program take at most about twice this, the earlier file included.
MAX_BYTES: Final = 8_000_000
_TAIL_BYTES: Final = 8_192
_TAIL_LINES: Final = 12


class BoundedLog:
    """A log file ``NAME.log`` and the earlier one, ``NAME.log.1``."""

    def __init__(self, path: Path, *, max_bytes: int = MAX_BYTES) -> None:
        self.path = path
        self._max_bytes = max_bytes

    def open(self) -> int:
        """Open the file for a child's stdout and stderr; return a descriptor that appends."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        return os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)

    def keep_bound(self) -> None:
        """Copy and truncate the file if it is past its bound."""
        try:
            if self.path.stat().st_size <= self._max_bytes:
                return
        except FileNotFoundError:
            return
        shutil.copyfile(self.path, self.path.with_name(self.path.name + ".1"))
        os.truncate(self.path, 0)

    def tail(self, since: int = 0) -> str:
        """Return the last lines written after an offset."""
        try:
            with self.path.open("rb") as stream:
                size = stream.seek(0, os.SEEK_END)
                stream.seek(max(since, size - _TAIL_BYTES, 0))
                text = stream.read().decode(errors="replace")
        except FileNotFoundError:
            return ""
        return "\n".join(text.splitlines()[-_TAIL_LINES:])

    def size(self) -> int:
        """Return the octets in the file."""
        try:
            return self.path.stat().st_size
        except FileNotFoundError:
            return 0
