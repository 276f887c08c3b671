"""How a server that refuses to run as root is started by root, without adding a user.

PostgreSQL looks at its effective uid and refuses 0. In a user namespace of its own without any
mapping (`unshare --user`, util-linux) a process sees itself as the overflow uid, while the kernel
still counts it as the owner of root's files: the data stay root's alone. Where user namespaces are
off (most containers), the server runs as another user, and the data belong to that user.

That user may be unable to reach the data or the programs, as below /root. Then the server keeps one
right of root, to pass through folders that are not its own (capabilities(7)), and no other: nothing
is moved elsewhere and no folder is opened to others. With user namespaces it could read root's
files, too.

Who is not root needs none of it, except a uid that the system has no user for (containers are
started so): PostgreSQL looks for the name of its uid and ends; in such a namespace it is
`nobody`.
"""

from __future__ import annotations

import os
import pwd
import shutil
import stat
import subprocess
from dataclasses import dataclass
from pathlib import Path

from smtpfeeds_common.errors import SingleHostError

_FALLBACK_USER = "nobody"
_OWN_NAMESPACE = ("unshare", "--user", "--")
#: Rights that let a process reach a folder below one that it may not enter, the lesser one first;
#: containers often have the second one alone.
_REACHING = ("dac_read_search", "dac_override")


@dataclass(frozen=True)
class Identity:
    """Who the server is: what goes before its command, and who must own its files."""

    prefix: tuple[str, ...] = ()
    #: None: the files are ours, as anything that we make.
    uid: int | None = None
    gid: int | None = None

    @property
    def name(self) -> str:
        """The user's name."""
        return _name(os.geteuid() if self.uid is None else self.uid)

    def keeping(self, capability: str) -> Identity:
        """The same, which keeps one right of root."""
        sets = ("bounding-set", "inh-caps", "ambient-caps")
        kept = (
            # access(2), by which PostgreSQL looks for its programs, counts it only so.
            "--securebits=+no_setuid_fixup",
            *(f"--{each}=-all,+{capability}" for each in sets),
            "--no-new-privs",
        )
        return Identity((*self.prefix[:-1], *kept, "--"), self.uid, self.gid)


def has_name(uid: int) -> bool:
    """Whether the system knows a user of this uid."""
    try:
        pwd.getpwuid(uid)
    except KeyError:
        return False
    return True


def user_namespaces_work() -> bool:
    """Whether a program can be started in a user namespace of its own, by trying it."""
    try:
        done = subprocess.run(
            [*_OWN_NAMESPACE, "true"], capture_output=True, timeout=10, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return False
    return done.returncode == 0


def choose_identity(
    *,
    euid: int,
    data_uid: int | None,
    namespaces: bool,
    sudo_uid: int | None,
    has_name: bool = True,
) -> Identity:
    """Decide who the server is to be.

    Args:
        euid: Who we are.
        data_uid: Who owns the data that exist already, or None.
        namespaces: Whether user namespaces work.
        sudo_uid: Who called sudo, if anyone did.
        has_name: Whether the system knows a user of our uid.

    Raises:
        SingleHostError: The data belong to someone whom we cannot be, or there is nobody to be.
    """
    if euid != 0:
        if data_uid not in (None, euid):
            msg = f"its database belongs to user {_name(data_uid)}: start it as that user"
            raise SingleHostError(msg)
        if not has_name:
            return _nameless(euid, namespaces=namespaces)
        return Identity()
    if data_uid in (None, 0) and namespaces:
        return Identity(prefix=_OWN_NAMESPACE)
    return _as_user(data_uid or sudo_uid)


def death_signal(signal_name: str) -> tuple[str, ...]:
    """A command's prefix: the kernel sends it this signal when the thread that started it ends."""
    setpriv = shutil.which("setpriv")
    return (setpriv, f"--pdeathsig={signal_name}", "--") if setpriv else ()


def hand_over(path: Path, identity: Identity) -> None:
    """Give a file or a whole folder to the identity, where that is another user."""
    if identity.uid is None or identity.gid is None:
        return
    for each in (path, *path.rglob("*")) if path.is_dir() else (path,):
        if each.lstat().st_uid != identity.uid:
            os.chown(each, identity.uid, identity.gid, follow_symlinks=False)


def reaching(parent: Path, program: str, identity: Identity) -> Identity:
    """The identity as it can enter the folder and run the program, with no more than it needs.

    Raises:
        SingleHostError: It cannot, and may not keep the right to; nothing was changed.
    """
    if identity.uid is None:
        return identity
    paths = (str(parent), program)
    for able in (identity, *map(identity.keeping, _REACHING)):
        if all(_reaches(able, path) for path in paths):
            return able
    path = next(path for path in paths if not _reaches(identity, path))
    msg = (
        f"PostgreSQL does not run as root, user namespaces are off here, and user {identity.name} "
        f"cannot reach {path}, nor may root give it the right to (CAP_DAC_OVERRIDE is missing): "
        "choose a folder that every user can enter, or start as an ordinary user"
    )
    raise SingleHostError(msg)


def _reaches(identity: Identity, path: str) -> bool:
    test = [*identity.prefix, "test", "-x", path]
    return subprocess.run(test, capture_output=True, check=False, cwd="/").returncode == 0


def is_private_folder(path: Path, uid: int) -> bool:
    """Whether this is a real folder that belongs to `uid` and that nobody else may enter."""
    try:
        status = path.lstat()
    except OSError:
        return False
    return (
        stat.S_ISDIR(status.st_mode)
        and status.st_uid == uid
        and stat.S_IMODE(status.st_mode) & 0o077 == 0
    )


def _nameless(uid: int, *, namespaces: bool) -> Identity:
    if not namespaces:
        msg = (
            f"PostgreSQL does not run as uid {uid}, which the system has no user for, and user "
            "namespaces are off here: start as a user that `getent passwd` lists"
        )
        raise SingleHostError(msg)
    return Identity(prefix=_OWN_NAMESPACE)


def _as_user(uid: int | None) -> Identity:
    try:
        user = pwd.getpwuid(uid) if uid else pwd.getpwnam(_FALLBACK_USER)
    except KeyError as exc:
        msg = (
            "PostgreSQL does not run as root, user namespaces are off here, and there is no user "
            f"{uid or _FALLBACK_USER}: start as an ordinary user"
        )
        raise SingleHostError(msg) from exc
    setpriv = shutil.which("setpriv")
    if setpriv is None:
        msg = "PostgreSQL does not run as root, and setpriv is missing: install util-linux"
        raise SingleHostError(msg)
    change = (f"--reuid={user.pw_uid}", f"--regid={user.pw_gid}", "--clear-groups")
    return Identity((setpriv, *change, "--"), user.pw_uid, user.pw_gid)


def _name(uid: int | None) -> str:
    try:
        return pwd.getpwuid(uid or 0).pw_name
    except KeyError:
        return str(uid)
