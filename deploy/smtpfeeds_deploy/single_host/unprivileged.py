"""Lets root start PostgreSQL, which refuses to run as root, without adding a user.

PostgreSQL refuses the effective uid 0. In its own user namespace without a mapping
(`unshare --user`, util-linux) a process sees the overflow uid instead, but the kernel still treats
it as the owner of root's files, so the data belong to root alone. If user namespaces are off, as
in most containers, the server runs as another user, who then owns the data.

That user may be unable to reach the data or the programs, for example below /root. The server
then keeps one capability of root, to pass through the folders of others (capabilities(7)), and no
other one. No file is moved and no folder is opened to others. With user namespaces the server can
read root's files as well.

Other users need none of this, except a uid without a user in the system, as containers often
have: PostgreSQL looks up the name of its uid and ends if there is none. In the namespace it is
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
#: Capabilities that let a process pass through folders that it may not enter, the weaker one first;
#: containers often have only the second one.
_REACHING = ("dac_read_search", "dac_override")


@dataclass(frozen=True)
class Identity:
    """The user of the server: the prefix of its command, and the owner of its files."""

    prefix: tuple[str, ...] = ()
    #: None: the server has the uid of this process.
    uid: int | None = None
    gid: int | None = None

    @property
    def name(self) -> str:
        """The name of the user."""
        return _name(os.geteuid() if self.uid is None else self.uid)

    def keeping(self, capability: str) -> Identity:
        """Return the same identity with one capability of root."""
        sets = ("bounding-set", "inh-caps", "ambient-caps")
        options = (
            # PostgreSQL finds its programs with access(2), which honours the capability only so.
            "--securebits=+no_setuid_fixup",
            *(f"--{capability_set}=-all,+{capability}" for capability_set in sets),
            "--no-new-privs",
        )
        return Identity((*self.prefix[:-1], *options, "--"), self.uid, self.gid)


def has_name(uid: int) -> bool:
    """Return whether the system knows a user with this uid."""
    try:
        pwd.getpwuid(uid)
    except KeyError:
        return False
    return True


def user_namespaces_work() -> bool:
    """Try whether a program can be started in its own user namespace."""
    try:
        result = subprocess.run(
            [*_OWN_NAMESPACE, "true"], capture_output=True, timeout=60, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return False
    return result.returncode == 0


def choose_identity(
    *,
    euid: int,
    data_uid: int | None,
    namespaces: bool,
    sudo_uid: int | None,
    has_name: bool = True,
) -> Identity:
    """Choose the user that the server runs as.

    Args:
        euid: the effective uid of this process.
        data_uid: the owner of existing data, or None.
        namespaces: whether user namespaces work.
        sudo_uid: the user that called sudo, or None.
        has_name: whether the system knows a user with ``euid``.

    Raises:
        SingleHostError: the data belong to another user, or no user is suitable.
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
    """Return a command prefix; the kernel then sends this signal when the starting thread ends."""
    setpriv = shutil.which("setpriv")
    return (setpriv, f"--pdeathsig={signal_name}", "--") if setpriv else ()


def hand_over(path: Path, identity: Identity) -> None:
    """Make the identity the owner of a file or a whole folder, if it is another user."""
    if identity.uid is None or identity.gid is None:
        return
    for each in (path, *path.rglob("*")) if path.is_dir() else (path,):
        if each.lstat().st_uid != identity.uid:
            os.chown(each, identity.uid, identity.gid, follow_symlinks=False)


def reaching(parent: Path, program: str, identity: Identity) -> Identity:
    """Return the identity with the least capabilities to enter the folder and run the program.

    Raises:
        SingleHostError: no permitted capability is enough; nothing was changed.
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
        f"cannot reach {path}, and root lacks the capability for it (CAP_DAC_OVERRIDE): "
        "choose a folder that every user can enter, or start as an ordinary user"
    )
    raise SingleHostError(msg)


def _reaches(identity: Identity, path: str) -> bool:
    test = [*identity.prefix, "test", "-x", path]
    return subprocess.run(test, capture_output=True, check=False, cwd="/").returncode == 0


def is_private_folder(path: Path, uid: int) -> bool:
    """Return whether this is a real folder that belongs to `uid` and is closed to other users."""
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
            f"PostgreSQL does not run as uid {uid}, for which the system has no user, and user "
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
