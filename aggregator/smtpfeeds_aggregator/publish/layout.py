"""Convert the layout of version 0.1.0, in which the served folder was a symlink.

    FEEDS_DIR/feeds -> generations/NAME
    FEEDS_DIR/generations/NAME/smtpgreet.txt ...

The published files stay readable under FEEDS_DIR/feeds throughout: the new directory is created
beside it, with hard links to the files of the current generation, and the kernel exchanges both in
one step. If the file system cannot do that, `feeds` is missing for a moment; if the process is
killed then, the next run restores it.
"""

import ctypes
import errno
import os
import re
import shutil
from contextlib import suppress
from pathlib import Path
from typing import Final

from ..datasets.generations import CURRENT, GENERATIONS, Generations, sync_path

_ASIDE: Final = "layout"
_NAME: Final = re.compile(r"[0-9]{8}T[0-9]{6}Z-[0-9a-f]{8}")
_AT_FDCWD: Final = -100
_RENAME_EXCHANGE: Final = 2


def take_over(path: Path, served: Path, unfinished: Path) -> None:
    """Convert a feeds directory of 0.1.0 to the present layout; leave any other unchanged."""
    old = path / GENERATIONS
    if not served.is_symlink() and served.exists():
        _remove(old)
        return
    current = _current(served, old)
    if current is None:
        with suppress(FileNotFoundError):
            served.unlink()  # it is a dangling link
        return
    aside = unfinished / _ASIDE
    shutil.rmtree(aside, ignore_errors=True)
    _make(current, aside, unfinished)
    exchange(aside, served)
    sync_path(path)
    with suppress(FileNotFoundError):
        aside.unlink()
    _remove(old)
    for link in path.glob(".feeds-*"):
        link.unlink(missing_ok=True)


def _current(served: Path, old: Path) -> Path | None:
    """Return the published generation; after a kill between two steps, the newest."""
    if served.is_symlink() and served.is_dir():
        return served.resolve()
    with suppress(FileNotFoundError):
        names = sorted(folder.name for folder in old.iterdir() if _NAME.fullmatch(folder.name))
        return old / names[-1] if names else None
    return None


def _remove(old: Path) -> None:
    """Delete the generations of 0.1.0, and nothing else in a folder of that name."""
    with suppress(OSError):
        for folder in old.iterdir():
            if _NAME.fullmatch(folder.name.removeprefix(".partial-")):
                shutil.rmtree(folder, ignore_errors=True)
        old.rmdir()


def _make(current: Path, aside: Path, unfinished: Path) -> None:
    generations = Generations(aside, unfinished, public=True)
    generations.prepare()
    folder = generations.path(current.name)
    shutil.copytree(current, folder, copy_function=link_or_copy)
    sync_path(folder)
    (aside / CURRENT).symlink_to(Path(GENERATIONS) / current.name)
    for file in folder.iterdir():
        (aside / file.name).symlink_to(Path(CURRENT) / file.name)
    sync_path(aside)


def is_there(path: Path) -> bool:
    """Return whether a file or folder exists.

    From Python 3.14 on, `Path.exists` also returns False if it cannot be read. What was published
    before would then seem to have been removed.

    Raises:
        OSError: this cannot be known.
    """
    try:
        path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return False
    return True


def link_or_copy(source: str | Path, target: str | Path) -> None:
    """Link a file; copy it if the file system has no hard links."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)


def exchange(one: Path, other: Path) -> None:
    """Exchange two paths; if the file system cannot, `one` replaces `other`.

    Raises:
        OSError: both fail.
    """
    try:
        _rename_exchange(one, other)
    except OSError as exc:
        if exc.errno not in {errno.ENOSYS, errno.EINVAL, errno.ENOTSUP, errno.ENOENT}:
            raise
        other.unlink(missing_ok=True)
        one.rename(other)


def _rename_exchange(one: Path, other: Path) -> None:
    library = ctypes.CDLL(None, use_errno=True)
    try:
        renameat2 = library.renameat2
    except AttributeError:  # a C library from before 2018
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS)) from None
    done = renameat2(_AT_FDCWD, os.fsencode(one), _AT_FDCWD, os.fsencode(other), _RENAME_EXCHANGE)
    if done != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), str(other))
