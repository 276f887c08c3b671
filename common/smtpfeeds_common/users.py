"""The user that a program runs as: root given up for good, in a service or for a check."""

import codecs
import os
import pwd
from pathlib import Path
from typing import Final

from .errors import SettingsError

_ENCODINGS: Final = ("ascii", "idna", "latin-1", "utf-8")


def find_user(name: str, *, setting: str = "user") -> pwd.struct_passwd | None:
    """The user to become, or None where none is named.

    Raises:
        SettingsError: no such user, or this process may not become it.
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
    """Give up root for good, with its groups; nothing happens where this is not root."""
    if os.geteuid() != 0:
        return
    # Python reads these from its own files when they are first used (idna for any host name), and
    # the user may not be able to.
    for encoding in _ENCODINGS:
        codecs.lookup(encoding)

    os.initgroups(user.pw_name, user.pw_gid)
    os.setresgid(user.pw_gid, user.pw_gid, user.pw_gid)
    os.setresuid(user.pw_uid, user.pw_uid, user.pw_uid)
    os.environ["HOME"] = user.pw_dir


def only_root_reads(path: str) -> bool:
    """Whether a file can be read by root and by no service's user; False where it is not there."""
    try:
        status = Path(path).stat()
    except OSError:
        return False
    return status.st_uid == 0 and status.st_mode & 0o044 == 0
