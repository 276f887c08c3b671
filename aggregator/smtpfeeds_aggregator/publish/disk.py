"""What is published must survive a power cut, and be readable by the web server."""

import os
from pathlib import Path
from typing import Final

FILE_MODE: Final = 0o644


def sync_file(descriptor: int) -> None:
    """Make an open file world-readable and put it on disk."""
    os.fchmod(descriptor, FILE_MODE)
    os.fsync(descriptor)


def sync_directory(path: Path) -> None:
    """Put a directory's entries on disk."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
