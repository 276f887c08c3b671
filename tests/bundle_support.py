"""A folder in place of a sensor's host, in which a bundle's own install script runs.

The script changes a host, as root. Here its paths are inside a folder, and the programs that need
root are replaced: those for users, owners and services. Everything else runs as it is.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tarfile
from pathlib import Path

#: In place of programs that change the host; `install` runs without owners.
_STUBS = {
    "id": "echo 0",
    "systemctl": "true",
    "systemd-sysusers": "true",
    "install": """
for word do
    shift
    case $word in -o|-g) skip=1;; *) [ -n "$skip" ] || set -- "$@" "$word"; skip=;; esac
done
exec /usr/bin/install "$@"
""",
}
_LIMIT_S = 300


def unpack(bundle: Path, folder: Path) -> Path:
    """Unpack a bundle into a new folder; returns the bundle's own folder."""
    shutil.rmtree(folder, ignore_errors=True)
    with tarfile.open(bundle) as tar:
        # Debian 12's Python 3.11.2 has no filters yet; later ones warn without.
        filters = {"filter": "data"} if hasattr(tarfile, "data_filter") else {}
        tar.extractall(folder, **filters)  # type: ignore[arg-type]
    (unpacked,) = folder.iterdir()
    return unpacked


class Host:
    """A folder in which a bundle's install script runs."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.settings = folder, folder / "etc"
        self.programs, self.state = folder / "programs", folder / "state"
        for name in ("bin", "lib", "units", "state"):
            (folder / name).mkdir(parents=True)
        for name, text in _STUBS.items():
            self._program(folder / "bin" / name, text)

    def without_programs(self) -> None:
        """Replace the programs that install packages, so that none is installed."""
        (self.programs / "bin").mkdir(parents=True)
        for name in ("python", "pip", "smtpfeeds"):
            self._program(self.programs / "bin" / name, "true")

    def here(self, text: str) -> str:
        """Return commands or settings with the paths of this host."""
        for place, here in (
            ("/etc/smtpfeeds", self.settings),
            ("/opt/smtpfeeds", self.programs),
            ("/var/lib/smtpfeeds", self.state),
            ("/usr/lib/sysusers.d", self.folder / "lib"),
            ("/etc/systemd/system", self.folder / "units"),
        ):
            text = text.replace(place, str(here))
        return text

    def install(self, bundle: Path, **settings: str) -> str:
        """Unpack a bundle and run its script; return what it prints.

        Args:
            bundle: the file.
            settings: TOML values of the sensor's settings, in place of those in the bundle.
        """
        unpacked = unpack(bundle, self.folder / "unpacked")
        script, toml = unpacked / "install.sh", unpacked / "sensor.toml"
        script.write_text(self.here(script.read_text()))
        lines = [
            line for line in toml.read_text().splitlines() if line.split(" = ")[0] not in settings
        ]
        lines += [f"{name} = {value}" for name, value in settings.items()]
        toml.write_text(self.here("\n".join(lines) + "\n"))
        done = subprocess.run(
            ["sh", str(script)],
            env={**os.environ, "PATH": f"{self.folder}/bin:{os.environ['PATH']}"},
            cwd=self.folder,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=_LIMIT_S,
            check=False,
        )
        assert done.returncode == 0, f"{done.stdout}{done.stderr}"
        return done.stdout

    def files(self) -> set[str]:
        """Return the names of the files in the folder of settings."""
        return {path.name for path in self.settings.iterdir()}

    def _program(self, path: Path, text: str) -> None:
        path.write_text(f"#!/bin/sh\n{text}\n")
        path.chmod(0o755)
