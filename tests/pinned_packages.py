"""Packages that tests use beside their own environment, each from a lock of its own.

What only a test reads or runs is not in the environment that `make setup` makes for everybody. A
test installs it into a folder below `.cache`, once for each lock and interpreter.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parents[1]
LOCKS: Final = ROOT / "deploy" / "requirements"
_CACHE: Final = ROOT / ".cache"
#: The lock names all that is wanted; bytecode is compiled when it is used.
_INSTALL: Final = (
    *("-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-compile"),
    *("--no-deps", "--require-hashes"),
)


def pinned_packages(name: str) -> Path:
    """Return a folder with the packages of `deploy/requirements/NAME.txt`."""
    lock = LOCKS / f"{name}.txt"
    folder = _CACHE / f"{name}-packages"
    wanted = hashlib.sha256(lock.read_bytes() + sys.version.encode()).hexdigest()
    stamp = folder / "made-for"
    _CACHE.mkdir(exist_ok=True)
    with (_CACHE / f"{name}-packages.lock").open("w") as taken:
        fcntl.flock(taken, fcntl.LOCK_EX)
        if not stamp.is_file() or stamp.read_text() != wanted:
            shutil.rmtree(folder, ignore_errors=True)
            subprocess.run([sys.executable, *_INSTALL, "--target", folder, "-r", lock], check=True)
            stamp.write_text(wanted)
    return folder


def environment_with(name: str) -> dict[str, str]:
    """Return an environment in which this interpreter imports the packages of a lock too."""
    path = os.pathsep.join([str(pinned_packages(name)), *filter(None, sys.path)])
    # The packages come without bytecode: the first import writes it, and later ones are faster.
    environ = {key: each for key, each in os.environ.items() if key != "PYTHONDONTWRITEBYTECODE"}
    return {**environ, "PYTHONPATH": path}
