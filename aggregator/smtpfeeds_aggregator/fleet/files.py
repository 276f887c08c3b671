"""Files of the fleet that are whole or not there: certificates, private keys, bundles.

An interruption at any step is harmless: a file is written beside its place, synced, and
renamed. A key and its certificate are two files, so the key's rename is what counts:
when only the certificate is left to rename, ``finish_pair`` does it.
"""

import fcntl
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from ..datasets.generations import sync_path

PRIVATE: Final = 0o600
_PUBLIC: Final = 0o644


def write_whole(
    path: Path, content: bytes, *, mode: int = _PUBLIC, owner: int | None = None
) -> None:
    """Write or replace a file, which has these permissions and this owner from the start."""
    _stage(path, content, mode, owner)
    _beside(path).replace(path)
    sync_path(path.parent)


def write_pair(certificate: Path, key: Path, contents: tuple[bytes, bytes]) -> None:
    """Write a certificate and its key, which must not exist yet; call it in ``locked``.

    Args:
        certificate: where the first of the contents goes.
        key: where the second one goes, for its owner alone.
        contents: both, PEM.
    """
    _stage(certificate, contents[0], _PUBLIC)
    _stage(key, contents[1], PRIVATE)
    _beside(key).replace(key)
    # The key is on the disk before its certificate.
    sync_path(key.parent)
    _beside(certificate).replace(certificate)
    sync_path(certificate.parent)


def finish_pair(certificate: Path, key: Path, belong: Callable[[bytes, bytes], bool]) -> None:
    """Complete a ``write_pair`` that was interrupted after the key was in its place."""
    staged = _beside(certificate)
    if not key.exists() or certificate.exists() or not staged.exists():
        return
    if belong(staged.read_bytes(), key.read_bytes()):
        staged.replace(certificate)
        sync_path(certificate.parent)


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold the lock of a folder, for which other commands of ours wait."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _stage(path: Path, content: bytes, mode: int, owner: int | None = None) -> None:
    beside = _beside(path)
    beside.unlink(missing_ok=True)
    descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, PRIVATE)
    with os.fdopen(descriptor, "wb") as stream:
        # Whatever the umask: other programs read what is public.
        os.fchmod(descriptor, mode)
        if owner is not None:
            os.fchown(descriptor, owner, -1)
        stream.write(content)
        stream.flush()
        os.fsync(descriptor)


def _beside(path: Path) -> Path:
    return path.with_name(f".{path.name}.new")
