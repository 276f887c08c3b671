"""A folder that the test's user may not enter, also where the tests run as root."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

#: On every Linux the user nobody, who owns no file.
_NOBODY = 65534


@contextmanager
def without_rights(folder: Path) -> Iterator[None]:
    """Make the folder, and let nobody enter it for a while; root becomes another user so long."""
    folder.mkdir(mode=0)
    is_root = os.geteuid() == 0
    if is_root:
        os.seteuid(_NOBODY)
    try:
        yield
    finally:
        if is_root:
            os.seteuid(0)
        folder.chmod(0o700)
