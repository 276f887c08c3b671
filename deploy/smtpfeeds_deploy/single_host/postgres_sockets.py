"""Chooses the folder of a private PostgreSQL's socket, whose path may have at most 107 bytes.

The folder is `run` beside the data if its path is short enough, else a new 0700 folder in /tmp.
The file `socket-folder` keeps the name of that folder, so that it can be removed after a crash.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from pathlib import Path

from smtpfeeds_deploy.single_host.unprivileged import Identity, hand_over, is_private_folder

PORT = 5432  # only part of the socket's name; the server does not listen on TCP

# sun_path holds 107 bytes and a NUL (unix(7)).
_LONGEST_FOLDER = 107 - len(f"/.s.PGSQL.{PORT}")


class SocketFolder:
    """The folder of a server's socket."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._record = root / "socket-folder"

    def make(self, identity: Identity) -> Path:
        """Create the folder, without sockets, owned by the server and closed to other users."""
        folder = self._root / "run"
        # A comma separates hosts in a connection string, and cannot be quoted there.
        if len(os.fsencode(folder)) > _LONGEST_FOLDER or "," in str(folder):
            folder = self._short(os.geteuid() if identity.uid is None else identity.uid)
        folder.mkdir(mode=0o700, exist_ok=True)
        for stale in folder.glob(".s.PGSQL.*"):
            stale.unlink(missing_ok=True)
        hand_over(folder, identity)
        return folder

    def remove(self) -> None:
        """Remove a folder that is outside the root."""
        recorded = self._recorded()
        if recorded is not None:
            if is_private_folder(recorded, recorded.lstat().st_uid):
                shutil.rmtree(recorded, ignore_errors=True)
            self._record.unlink(missing_ok=True)

    def _short(self, owner: int) -> Path:
        recorded = self._recorded()
        # If a boot has emptied /tmp, another user may have created a folder with this name.
        if recorded is not None and is_private_folder(recorded, owner):
            return recorded
        # Not $TMPDIR, which may be too long as well.
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
