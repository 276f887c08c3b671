"""Where a private PostgreSQL's socket lies, given that a socket's path may have 107 bytes.

In `run` beside the data where that is short enough, else in a new 0700 folder under /tmp whose
name is kept in `socket-folder`, so that a crash leaves none behind that we do not know of.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from pathlib import Path

from smtpfeeds_deploy.single_host.unprivileged import Identity, hand_over, is_private_folder

PORT = 5432  # only a part of the socket's name

# sun_path holds 107 bytes and a NUL (unix(7)).
_LONGEST_FOLDER = 107 - len(f"/.s.PGSQL.{PORT}")


class SocketFolder:
    """The folder of one server's socket."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._record = root / "socket-folder"

    def make(self, identity: Identity) -> Path:
        """A folder, empty of sockets, that the server's identity owns and nobody else enters."""
        folder = self._root / "run"
        # A comma separates hosts in a connection string, and cannot be quoted there.
        if len(os.fsencode(folder)) > _LONGEST_FOLDER or "," in str(folder):
            folder = self._short(os.geteuid() if identity.uid is None else identity.uid)
        folder.mkdir(mode=0o700, exist_ok=True)
        for left in folder.glob(".s.PGSQL.*"):
            left.unlink(missing_ok=True)
        hand_over(folder, identity)
        return folder

    def remove(self) -> None:
        """Leave nothing outside the root."""
        recorded = self._recorded()
        if recorded is not None:
            if is_private_folder(recorded, recorded.lstat().st_uid):
                shutil.rmtree(recorded, ignore_errors=True)
            self._record.unlink(missing_ok=True)

    def _short(self, owner: int) -> Path:
        recorded = self._recorded()
        # Another user may have created a folder of that name since the last boot emptied /tmp.
        if recorded is not None and is_private_folder(recorded, owner):
            return recorded
        # /tmp by name: $TMPDIR may be too long as well.
        folder = Path(tempfile.mkdtemp(prefix="smtpfeeds-", dir="/tmp"))
        self._record.write_text(f"{folder}\n")
        return folder

    def _recorded(self) -> Path | None:
        with contextlib.suppress(FileNotFoundError):
            recorded = Path(self._record.read_text().strip())
            if recorded.exists():
                return recorded
            self._record.unlink()
        return None
