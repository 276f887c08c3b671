"""Giving up root once the listeners are open; nothing afterwards needs it."""

import os
import pwd
from pathlib import Path

from smtpfeeds_common.errors import SettingsError, SpoolError


def find_user(name: str) -> pwd.struct_passwd | None:
    """The user to become, or None where none is named.

    Raises:
        SettingsError: no such user, or this process may not become it.
    """
    if not name:
        return None
    try:
        user = pwd.getpwnam(name)
    except KeyError as exc:
        raise SettingsError(f"user: this host has no user {name!r}") from exc
    if os.geteuid() not in {0, user.pw_uid}:
        raise SettingsError(f"user: only root can become {name!r}; leave it out, or start as root")
    return user


def make_folder(folder: Path, user: pwd.struct_passwd | None) -> None:
    """Make the spool's folder, for that user; one that is there is left as it is.

    Never are files in it given away: its owner could have put links to others there.

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
        raise SpoolError(f"spool_dir: cannot make {folder}: {exc.strerror}") from exc


def become(user: pwd.struct_passwd) -> None:
    """Give up root for good, with its groups."""
    if os.geteuid() != 0:
        return
    os.initgroups(user.pw_name, user.pw_gid)
    os.setresgid(user.pw_gid, user.pw_gid, user.pw_gid)
    os.setresuid(user.pw_uid, user.pw_uid, user.pw_uid)
    os.environ["HOME"] = user.pw_dir
