"""Finds and becomes the user that a program runs as; giving up root is permanent."""

import codecs
import os
import pwd
from pathlib import Path
from typing import Final

from .errors import SettingsError

_ENCODINGS: Final = ("ascii", "idna", "latin-1", "utf-8")


def find_user(name: str, *, setting: str = "user") -> pwd.struct_passwd | None:
    """Return the user to become; None if the name is empty.

    Raises:
        SettingsError: there is no such user, or this process may not become it.
    """
    if not name:
        return None
    try:
        user = pwd.getpwnam(name)
    except KeyError as exc:
        raise SettingsError(f"{setting}: this host has no user {name!r}") from exc
    if os.geteuid() not in {0, user.pw_uid}:
        raise SettingsError(
            f"{setting}: only root can become {name!r}; remove the setting, or start as root"
        )
    return user


def become(user: pwd.struct_passwd) -> None:
    """Give up root and its groups permanently; does nothing if this process is not root."""
    if os.geteuid() != 0:
        return
    # Python loads these from its own files at first use (idna for any host name), which the user
    # may not be allowed to read.
    for encoding in _ENCODINGS:
        codecs.lookup(encoding)

    os.initgroups(user.pw_name, user.pw_gid)
    os.setresgid(user.pw_gid, user.pw_gid, user.pw_gid)
    os.setresuid(user.pw_uid, user.pw_uid, user.pw_uid)
    os.environ["HOME"] = user.pw_dir


def only_root_reads(path: str) -> bool:
    """Whether only root can read a file; False if it does not exist."""
    try:
        status = Path(path).stat()
    except OSError:
        return False
    return status.st_uid == 0 and status.st_mode & 0o044 == 0
