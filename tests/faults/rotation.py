"""Sensors installed from the bundles that `fleet enroll` writes, whose accounts are then rotated.

What `install.sh` does on a host of its own is done here in a folder: the same settings and the same
secret, with other paths. A new bundle is installed as the script does, with a restart, or as an
operator may, by the secret's file alone.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tarfile
import tomllib
from collections.abc import Sequence
from pathlib import Path

from sensor_support import SensorProcess
from servers.processes import bound_to_parent
from servers.rabbitmq import RabbitNode
from smtpfeeds_aggregator.fleet.bundle import SETTINGS
from smtpfeeds_common import __version__

_PROGRAM = str(Path(sys.executable).parent / "smtpfeeds")
_COMMAND_LIMIT_S = 120


class FleetCommands:
    """`smtpfeeds fleet`, for one virtual host and one database."""

    def __init__(self, node: RabbitNode, vhost: str, dsn: str, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.bundles = folder / "bundles"
        password = folder / "management"
        password.write_text(node.home.password + "\n")
        self._common = [
            *("--management", f"http://{node.home.user}@{node.host}:{node.admin_port}"),
            *("--management-password-file", str(password), "--vhost", vhost),
        ]
        self._database = ["--dsn", dsn]
        # What is installed here is this checkout; the bundle only carries the file.
        package = folder / f"smtpfeeds-{__version__}-py3-none-any.whl"
        package.write_bytes(b"the wheel")
        self._bundle = [
            *("--broker", f"amqps://{node.host}:{node.tls_port}/{vhost}"),
            *("--package", str(package), "--output", str(self.bundles)),
        ]

    def set_up(self, password_file: Path) -> None:
        """The virtual host and the aggregator's account."""
        _end(self._start("set-up", "--password-file", str(password_file), *self._common))

    def enroll(self, names: Sequence[str], ca_file: Path) -> None:
        """Accounts, and a bundle for each."""
        self._bundle += ["--broker-ca", str(ca_file)]
        words = ("enroll", *names, *self._common, *self._database, *self._bundle)
        _end(self._start(*words))

    def begin_rotation(self, name: str) -> subprocess.Popen[str]:
        """Start to rotate; several may run at a time."""
        words = ("rotate", name, *self._common, *self._database, *self._bundle)
        return self._start(*words)

    def revoke(self, name: str) -> None:
        """Delete an account, and close its connections."""
        _end(self._start("revoke", name, *self._common, *self._database))

    def _start(self, *words: str) -> subprocess.Popen[str]:
        environ = {k: v for k, v in os.environ.items() if not k.startswith("SMTPFEEDS_")}
        return subprocess.Popen(
            bound_to_parent([_PROGRAM, "fleet", *words]),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env=environ,
        )


def _end(command: subprocess.Popen[str]) -> str:
    printed, _ = command.communicate(timeout=_COMMAND_LIMIT_S)
    assert command.returncode == 0, printed
    return printed


end_command = _end


class BundledSensor:
    """A sensor as its bundle installs it, on a free port of loopback behind a trusted proxy."""

    def __init__(self, name: str, bundles: Path, folder: Path) -> None:
        self.name, self._bundle, self.folder = name, bundles / f"{name}.tar.gz", folder
        folder.mkdir(parents=True)
        self._unpack()
        settings = tomllib.loads((folder / "sensor.toml").read_text())
        # The paths of a host are those of this folder; what is heard comes by a proxy.
        settings = {key: self._here(value) for key, value in settings.items()}
        self.process = SensorProcess(
            folder,
            **settings
            | {
                "listen": ["127.0.0.1:0"],
                "trusted_proxies": ["127.0.0.0/8"],
                "backoff_max_s": 1,
                "confirm_timeout_s": 5,
                "seal_interval_s": 0.2,
            },
        )
        self.process.start()

    @property
    def place(self) -> tuple[str, int]:
        return self.process.place()

    def install(self, *, restart: bool) -> None:
        """Install the newest bundle of the sensor."""
        self._unpack()
        if restart:
            host, port = self.place
            self.process.settings["listen"] = [f"{host}:{port}"]
            assert self.process.stop() == 0
            self.process.start()

    def stop(self) -> int:
        return self.process.stop()

    def kill(self) -> None:
        if self.process.process is not None and self.process.process.poll() is None:
            self.process.process.send_signal(signal.SIGKILL)
            self.process.process.wait()

    def _unpack(self) -> None:
        """The files of settings and secret, each whole or not at all as `install` leaves it."""
        with tarfile.open(self._bundle) as tar:
            for member in tar.getmembers():
                name = member.name.rpartition("/")[2]
                content = tar.extractfile(member)
                if content is not None and name in {"sensor.toml", "broker-password", "ca.pem"}:
                    beside = self.folder / f"{name}.new"
                    beside.write_bytes(content.read())
                    # The test's own changes of the settings stay.
                    if name != "sensor.toml" or not (self.folder / name).exists():
                        beside.replace(self.folder / name)

    def _here(self, value: object) -> object:
        return value.replace(SETTINGS, str(self.folder)) if isinstance(value, str) else value
