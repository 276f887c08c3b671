"""The spool's folder, made while the sensor is still root, for the user that it becomes."""

import os
import pwd
from pathlib import Path

from smtpfeeds_common.errors import SpoolError


def make_folder(folder: Path, user: pwd.struct_passwd | None) -> None:
    """Make the spool's folder, for that user; one that is there is left as it is.

    Files in it are never given away: its owner could have put links to others there.

    Raises:
        SpoolError: it cannot be made.
    """
    if folder.is_dir():
        return
    try:
        folder.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
        folder.mkdir(mode=0o750)
        if user is not None and os.geteuid() == 0:
            os.chown(folder, user.pw_uid, user.pw_gid)
    except OSError as exc:
        raise SpoolError(f"spool_dir: cannot create {folder}: {exc.strerror}") from exc
