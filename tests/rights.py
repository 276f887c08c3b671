"""A folder that the test's user may not enter, also where the tests run as root."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

#: Version 3 of the structures in linux/capability.h.
_VERSION = 0x20080522
#: CAP_DAC_OVERRIDE and CAP_DAC_READ_SEARCH, with which root enters every folder.
_ENTERS_ALL = 1 << 1 | 1 << 2
#: Of this thread: effective, permitted and inheritable, twice 32 bits each.
_Sets = ctypes.c_uint32 * 6


@contextmanager
def without_rights(folder: Path) -> Iterator[None]:
    """Make the folder, and let nobody enter it for a while; root has no capability for it."""
    folder.mkdir(mode=0)
    before = _capabilities()
    fewer = _Sets(*before)
    fewer[0] &= ~_ENTERS_ALL
    _set_capabilities(fewer)
    try:
        yield
    finally:
        _set_capabilities(before)
        folder.chmod(0o700)


def _capabilities() -> ctypes.Array[ctypes.c_uint32]:
    sets = _Sets()
    _call("capget", sets)
    return sets


def _set_capabilities(sets: ctypes.Array[ctypes.c_uint32]) -> None:
    _call("capset", sets)


def _call(name: str, sets: ctypes.Array[ctypes.c_uint32]) -> None:
    header = (ctypes.c_uint32 * 2)(_VERSION, 0)
    if getattr(ctypes.CDLL(None, use_errno=True), name)(header, sets) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), name)
