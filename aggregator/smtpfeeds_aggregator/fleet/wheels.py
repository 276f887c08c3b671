"""The packages of a sensor as files, for a host that reaches no package index.

pip's lock with hashes decides what a wheel is: a file whose SHA-256 it does not name is refused,
whatever its name says. Which of a package's wheels fits a host depends on its Python and
processor, so a folder is for one kind of host; pip on the host takes what fits.
"""

import hashlib
import re
from pathlib import Path
from typing import Final

from smtpfeeds_common.errors import FleetError
from smtpfeeds_common.shipped import shipped_file

LOCK: Final = "requirements/sensor.txt"
_HASH: Final = re.compile(r"--hash=sha256:([0-9a-f]{64})")


def locked_wheels(folder: Path, lock: str | None = None) -> tuple[Path, ...]:
    """Return the wheels of a folder; all must be locked, and each package needs at least one.

    Args:
        folder: with files `*.whl`; others are ignored.
        lock: a requirements file with hashes; by default that of a sensor.

    Raises:
        FleetError: a wheel is not a locked one, a package has none, or one cannot be read.
    """
    hashes = _locked(shipped_file(LOCK).decode() if lock is None else lock)
    package_of = {each: package for package, every in hashes.items() for each in every}
    wheels = tuple(sorted(folder.glob("*.whl")))
    packages = set()
    for wheel in wheels:
        package = package_of.get(_sha256(wheel))
        if package is None:
            raise FleetError(
                f"{wheel} is not a wheel that a sensor's lock names: remove it, and fetch the "
                f"locked one with `pip download --only-binary=:all: --require-hashes`"
            )
        packages.add(package)
    # What only some hosts need has a marker behind a semicolon.
    missing = [package for package in hashes if ";" not in package and package not in packages]
    if missing:
        raise FleetError(
            f"{folder} has no wheel of {', '.join(missing)}: fetch it with `pip download "
            "--only-binary=:all: --require-hashes`, for the host's Python and processor"
        )
    return wheels


def _locked(text: str) -> dict[str, list[str]]:
    """Return the hashes of each package of a lock, by name and version."""
    locked = {}
    for line in text.replace("\\\n", " ").splitlines():
        if hashes := _HASH.findall(line):
            locked[line.partition(" --hash")[0].strip()] = hashes
    return locked


def _sha256(path: Path) -> str:
    try:
        with path.open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    except OSError as exc:
        raise FleetError(f"cannot read the wheel {path}: {exc.strerror}") from exc
