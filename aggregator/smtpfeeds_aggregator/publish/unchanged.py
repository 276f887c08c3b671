"""Replace a file that has not changed since the previous edition by a hard link to it.

The disk has it once, and its modification time stays, so a web server's Last-Modified and ETag show
when the content changed. Nothing changes a published file in place, so two editions may share it.
On a file system without hard links each edition has its own file.

The octets on the disk are compared, not the hashes of two manifests: a file that was damaged after
it was published must not be published again. That reads little, because files of different sizes
are not read, and the others only up to the first block that differs: the one with the time of the
edition, in files that have it.
"""

import filecmp
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from .stopping import KeepGoing, each_guarded
from .written import Written

#: Suffix of the link, until it replaces the file.
_SUFFIX: Final = ".link"


def share_unchanged(
    folder: Path, before: Path | None, files: Iterable[Written], keep_going: KeepGoing
) -> None:
    """Link the files that are the same in both folders; a file that cannot be linked stays.

    Args:
        folder: the folder of the generation that is written.
        before: the folder of the published generation; None: there is none.
        files: the files that were written and read back.
        keep_going: called before each file.
    """
    if before is None:
        return
    for file in each_guarded(files, keep_going):
        if _is_same(folder, before, file.name):
            _link(folder, before, file.name)


def _is_same(folder: Path, before: Path, name: str) -> bool:
    """Return whether two separate files have equal content."""
    old, new = before / name, folder / name
    try:
        # MISP's closed days and the archive's past days are links already.
        return not (old.is_symlink() or old.samefile(new)) and filecmp.cmp(old, new, shallow=False)
    except OSError:
        return False  # the file is new, or the old one cannot be read


def _link(folder: Path, before: Path, name: str) -> None:
    aside = folder / f"{name}{_SUFFIX}"
    try:
        os.link(before / name, aside)
    except OSError:
        return  # no hard links here, or too many of this file
    aside.replace(folder / name)
