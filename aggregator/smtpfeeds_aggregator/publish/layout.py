"""Takes over the layout of version 0.1.0, in which the served folder was a symlink.

    FEEDS_DIR/feeds -> generations/NAME
    FEEDS_DIR/generations/NAME/smtpgreet.txt ...

What is published stays readable under FEEDS_DIR/feeds throughout: the new directory is made
aside, with hard links to the files of the current generation, and the two change places in one
step of the kernel. Where the file system cannot do that, `feeds` is missing for a moment; if the
process dies then, the next run puts it there.
"""

import ctypes
import errno
import os
import re
import shutil
from contextlib import suppress
from pathlib import Path
from typing import Final

from ..datasets.generations import CURRENT, GENERATIONS, Generations, sync_directory

_ASIDE: Final = "layout"
_NAME: Final = re.compile(r"[0-9]{8}T[0-9]{6}Z-[0-9a-f]{8}")
_AT_FDCWD: Final = -100
_RENAME_EXCHANGE: Final = 2


def take_over(path: Path, served: Path, unfinished: Path) -> None:
    """Bring a feeds directory of 0.1.0 into today's layout; nothing happens to any other."""
    old = path / GENERATIONS
    if not served.is_symlink() and served.exists():
        _remove(old)
        return
    current = _current(served, old)
    if current is None:
        with suppress(FileNotFoundError):
            served.unlink()  # it leads nowhere
        return
    aside = unfinished / _ASIDE
    shutil.rmtree(aside, ignore_errors=True)
    _make(current, aside, unfinished)
    exchange(aside, served)
    sync_directory(path)
    with suppress(FileNotFoundError):
        aside.unlink()
    _remove(old)
    for link in path.glob(".feeds-*"):
        link.unlink(missing_ok=True)


def _current(served: Path, old: Path) -> Path | None:
    """The generation that is published; after a death between two steps, the newest."""
    if served.is_symlink() and served.is_dir():
        return served.resolve()
    with suppress(FileNotFoundError):
        names = sorted(folder.name for folder in old.iterdir() if _NAME.fullmatch(folder.name))
        return old / names[-1] if names else None
    return None


def _remove(old: Path) -> None:
    """Remove the generations of 0.1.0, and nothing else that may be in a folder of that name."""
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
    sync_directory(folder)
    (aside / CURRENT).symlink_to(Path(GENERATIONS) / current.name)
    for file in folder.iterdir():
        (aside / file.name).symlink_to(Path(CURRENT) / file.name)
    sync_directory(aside)


def link_or_copy(source: str | Path, target: str | Path) -> None:
    """One more name for a file; a copy where the file system has no hard links."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)


def exchange(one: Path, other: Path) -> None:
    """Exchange two paths; where the file system cannot, `one` takes the place of `other`.

    Raises:
        OSError: neither can be.
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
