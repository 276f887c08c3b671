"""Create the spool's folder as root, for the user that the sensor becomes."""

import os
import pwd
from pathlib import Path

from smtpfeeds_common.errors import SpoolError


def make_folder(folder: Path, user: pwd.struct_passwd | None) -> None:
    """Create the spool's folder for that user; an existing folder is not changed.

    The owner of files in it is never changed: they could be links to other files.

    Raises:
        SpoolError: it cannot be created.
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
