"""A file that is octet for octet that of the edition before becomes a hard link to it.

The disk holds it once, and its time of change stays, and with it what a web server makes of that:
Last-Modified and ETag say when the content changed. Nothing changes a published file in place, so
two editions may share one. A file system without hard links keeps a file for each.
"""

import filecmp
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from .stopping import KeepGoing, each_guarded
from .written import Written

#: The link, until it takes the file's place.
_SUFFIX: Final = ".link"


def share_unchanged(
    folder: Path, before: Path | None, files: Iterable[Written], keep_going: KeepGoing
) -> list[str]:
    """Link files that are the same in both folders; what else fails leaves a file as it is.

    Args:
        folder: of the generation that is written.
        before: of the published one; None: there is none.
        files: what was written, and read back.
        keep_going: asked before each.

    Returns:
        The names of those that are linked now.
    """
    if before is None:
        return []
    names = [file.name for file in each_guarded(files, keep_going)]
    return [
        name for name in names if _is_same(folder, before, name) and _link(folder, before, name)
    ]


def _is_same(folder: Path, before: Path, name: str) -> bool:
    """Whether both have these octets, in two files."""
    old, new = before / name, folder / name
    try:
        # Of MISP's closed days it is one file already; renaming that onto itself does nothing.
        return not (old.is_symlink() or old.samefile(new)) and filecmp.cmp(old, new, shallow=False)
    except OSError:
        return False  # it is new, or the old one cannot be read


def _link(folder: Path, before: Path, name: str) -> bool:
    aside = folder / f"{name}{_SUFFIX}"
    try:
        os.link(before / name, aside)
    except OSError:
        return False  # no hard links here, or too many of this file
    aside.replace(folder / name)
    return True
