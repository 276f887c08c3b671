"""Packages that tests use beside their own environment, each from a lock of its own.

What only a test reads or runs is not in the environment that `make setup` creates for everybody. A
test installs it into a folder below `.cache`, once for each lock and interpreter.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
import venv
from collections.abc import Callable
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parents[1]
LOCKS: Final = ROOT / "deploy" / "requirements"
_CACHE: Final = ROOT / ".cache"
_INSTALL: Final = (
    *("-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--require-hashes"),
)


def pinned_packages(name: str) -> Path:
    """Return a folder with the packages of `deploy/requirements/NAME.txt`."""

    def install(folder: Path, lock: Path) -> None:
        # The lock names every package; bytecode is compiled when it is used.
        options = ("--no-compile", "--no-deps", "--target", folder, "-r", lock)
        subprocess.run([sys.executable, *_INSTALL, *options], check=True)

    return _installed(name, f"{name}-packages", install)


def pinned_environment(name: str) -> Path:
    """Return the interpreter of an environment with nothing but the packages of a lock."""

    def install(folder: Path, lock: Path) -> None:
        venv.create(folder, with_pip=True)
        subprocess.run([folder / "bin" / "python", *_INSTALL, "-r", lock], check=True)

    return _installed(name, f"{name}-venv", install) / "bin" / "python"


def _installed(name: str, place: str, install: Callable[[Path, Path], None]) -> Path:
    """Return a folder of the cache, after its installation if lock or interpreter changed."""
    lock, folder = LOCKS / f"{name}.txt", _CACHE / place
    wanted = hashlib.sha256(lock.read_bytes() + sys.version.encode()).hexdigest()
    stamp = folder / "installed-for"
    _CACHE.mkdir(exist_ok=True)
    with (_CACHE / f"{place}.lock").open("w") as taken:
        fcntl.flock(taken, fcntl.LOCK_EX)
        if not stamp.is_file() or stamp.read_text() != wanted:
            shutil.rmtree(folder, ignore_errors=True)
            install(folder, lock)
            stamp.write_text(wanted)
    return folder


def environment_with(name: str) -> dict[str, str]:
    """Return an environment in which this interpreter imports the packages of a lock too."""
    path = os.pathsep.join([str(pinned_packages(name)), *filter(None, sys.path)])
    # The packages come without bytecode: the first import writes it, and later ones are faster.
    environ = {key: each for key, each in os.environ.items() if key != "PYTHONDONTWRITEBYTECODE"}
    return {**environ, "PYTHONPATH": path}
