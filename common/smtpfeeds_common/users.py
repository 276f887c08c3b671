"""Finds and becomes the user that a program runs as; giving up root is permanent.

A command of root that writes into the aggregator's folder becomes the folder's owner first. Files
of root there would stop the aggregator's next publication or refresh, and root must not follow the
links that another user can put there.
"""

import codecs
import os
import pwd
import sys
from collections.abc import Sequence
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
    _give_up(user.pw_uid, user.pw_gid)
    os.environ["HOME"] = user.pw_dir


#: What a user must be able to read to run a command: Python, its modules, and ours.
_PROGRAM: Final = (sys.executable, os.__file__, __file__)


def become_owner(folder: Path, program: Sequence[str] = _PROGRAM) -> str:
    """As root, become the owner of a folder; does nothing for another user, or root's own folder.

    Args:
        folder: if it does not exist, the nearest folder above it counts.
        program: files that the owner must be able to read.

    Returns:
        The name of the owner; empty if nothing was done.

    Raises:
        SettingsError: root may not become the owner here, or the owner cannot run this program.
    """
    if os.geteuid() != 0:
        return ""
    status = next(each for each in (folder, *folder.absolute().parents) if each.exists()).stat()
    if status.st_uid == 0:
        return ""
    name = user_name(status.st_uid)
    belongs = f"{folder} belongs to user {name}, so its files must too"
    try:
        _become_id(status.st_uid, status.st_gid)
    except OSError as exc:
        raise SettingsError(
            f"{belongs}; root may not become {name} here ({exc.strerror}): start the command as "
            f"{name}"
        ) from exc
    for file in program:
        if not os.access(file, os.R_OK):
            raise SettingsError(
                f"{belongs}; but {name} cannot read {file}, which this command needs: install the "
                "programs where every user can read them, such as in /opt/smtpfeeds"
            )
    return name


def remedy_for_owner(path: Path, folder: Path) -> str:
    """Return what to do if a path in a folder belongs to another user; empty if it does not.

    Args:
        path: what this user may not write; if it does not exist, the nearest folder above counts.
        folder: the folder of this user that contains it.
    """
    nearest = next((each for each in (path, *path.parents) if os.path.lexists(each)), folder)
    owner, us = nearest.lstat().st_uid, os.geteuid()
    if owner == us:
        return ""
    names = f"{nearest} belongs to user {user_name(owner)}"
    return f"{names}: run `chown -R {user_name(us)}: {folder}` as root"


def remedy_for_error(error: OSError, folder: Path) -> str:
    """Return the same for an error of the system in a folder; empty if the reason is another."""
    if not isinstance(error, PermissionError) or error.filename is None:
        return ""
    return remedy_for_owner(Path(os.fsdecode(error.filename)), folder)


def user_name(uid: int) -> str:
    """Return the name of a user; the number if the system has no name for it."""
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def _become_id(uid: int, folder_gid: int) -> None:
    """Become a user who may have no name in the system, as in containers."""
    try:
        become(pwd.getpwuid(uid))
    except KeyError:
        os.setgroups([])
        _give_up(uid, folder_gid)


def _give_up(uid: int, gid: int) -> None:
    os.setresgid(gid, gid, gid)
    os.setresuid(uid, uid, uid)


def only_root_reads(path: str) -> bool:
    """Whether only root can read a file; False if it does not exist."""
    try:
        status = Path(path).stat()
    except OSError:
        return False
    return status.st_uid == 0 and status.st_mode & 0o044 == 0
