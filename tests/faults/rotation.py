"""Sensors installed from the bundles that `fleet enroll` writes, whose accounts are then rotated.

A folder replaces the host on which `install.sh` runs: same settings and secret, other paths. A new
bundle is installed like by the script, with a restart, or only its secret is copied.
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import tarfile
import tomllib
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import pika

from ingest_support import Table, running, settings_of, until
from sensor_support import SensorProcess
from servers.certificates import Certificates
from servers.processes import bound_to_parent
from servers.rabbitmq import RabbitNode
from smtpfeeds_aggregator.cli.fleet_accounts import CENTRE
from smtpfeeds_aggregator.fleet.bundle import SETTINGS
from smtpfeeds_aggregator.fleet.management import Management
from smtpfeeds_common import __version__
from smtpfeeds_common.spool import read_status
from smtpfeeds_common.topology import QUEUE
from smtpfeeds_deploy.simulation.simulate import Target

from .databases import read_all
from .load import Load
from .reckoning import Entry, events, judge

_PROGRAM = str(Path(sys.executable).parent / "smtpfeeds")
_COMMAND_LIMIT_S = 120
#: A run with fewer answered events proves nothing.
_FEWEST_EVENTS = 60


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
        """Create the virtual host and the aggregator's account."""
        _end(self._start("set-up", "--password-file", str(password_file), *self._common))

    def enroll(self, names: Sequence[str], ca_file: Path) -> None:
        """Create accounts, and a bundle for each."""
        self._bundle += ["--broker-ca", str(ca_file)]
        words = ("enroll", *names, *self._common, *self._database, *self._bundle)
        _end(self._start(*words))

    def begin_rotation(self, name: str) -> subprocess.Popen[str]:
        """Start a rotation; several may run at a time."""
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


class BundledSensor:
    """A sensor as its bundle installs it, on a free port of loopback behind a trusted proxy."""

    def __init__(self, name: str, bundles: Path, folder: Path) -> None:
        self.name, self._bundle, self.folder = name, bundles / f"{name}.tar.gz", folder
        folder.mkdir(parents=True)
        self._unpack()
        settings = tomllib.loads((folder / "sensor.toml").read_text())
        # Paths of a host become paths of this folder; clients come through a proxy.
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

    @property
    def pid(self) -> int:
        assert self.process.process is not None
        return self.process.process.pid

    def stop(self) -> int:
        return self.process.stop()

    def kill(self) -> None:
        if self.process.process is not None and self.process.process.poll() is None:
            self.process.process.send_signal(signal.SIGKILL)
            self.process.process.wait()

    def _unpack(self) -> None:
        """Write settings and secret, each file atomically."""
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


class Fleet:
    """Sensors from their bundles, an aggregator, and clients.

    The stack ends all of them.
    """

    def __init__(
        self,
        stack: ExitStack,
        node: RabbitNode,
        certificates: Certificates,
        dsn: str,
        folder: Path,
        *,
        vhost: str,
        sensors: int,
        rate_per_s: float,
    ) -> None:
        seed = int(os.environ.get("FAULT_SEED", random.SystemRandom().randrange(1 << 32)))
        print(f"\nseed {seed}", flush=True)
        self.chance, self.dsn = random.Random(seed), dsn
        self.commands = FleetCommands(node, vhost, dsn, folder / "centre")
        secret = folder / "centre" / "broker-password"
        secret.write_text("[the centre's]\n")
        stack.callback(_remove, node, vhost)
        self.commands.set_up(secret)
        names = [f"edge-{number}" for number in range(1, sensors + 1)]
        self.commands.enroll(names, certificates.authority)
        settings = settings_of(
            dsn,
            f"amqps://{CENTRE}@{node.host}:{node.tls_port}/{vhost}",
            broker_password_file=str(secret),
            broker_ca_file=str(certificates.authority),
        )
        node.admin.permit(node.home.user, vhost, configure="^$", write="^$", read=".*")
        # Idle until the end, which a slow machine reaches after several heartbeats.
        idle = pika.URLParameters(f"{node.url(vhost)}?heartbeat=0")
        self._queue = stack.enter_context(pika.BlockingConnection(idle))
        self._aggregator = stack.enter_context(ExitStack())
        self._aggregator.enter_context(running(settings))
        self.sensors = []
        for name in names:
            self.sensors.append(BundledSensor(name, self.commands.bundles, folder / name))
            stack.callback(self.sensors[-1].kill)
        targets = [Target(sensor.place[0], sensor.place[1], sensor.name) for sensor in self.sensors]
        self.load = Load(targets, seed=seed, rate_per_s=rate_per_s)
        self.load.start()
        stack.callback(self.load.stop)
        table = Table(dsn)
        stack.callback(table.connection.close)
        until(lambda: table.one("SELECT count(*) FROM sighting") > 20, "events come")

    def rotate(self, *sensors: BundledSensor, restart: Callable[[], bool]) -> None:
        """Rotate these accounts at one time, and install each new bundle."""
        commands = [(each, self.commands.begin_rotation(each.name)) for each in sensors]
        for each, command in commands:
            _end(command)
            each.install(restart=restart())

    def settle(self) -> None:
        """Stop the clients, wait until all their events are stored, then stop everything."""
        self.load.stop()
        answered, _ = events(self.load.entries)
        until(self._nothing_waits, "no spool holds anything", limit_s=120)
        asked = "SELECT coalesce(sum(events), 0) FROM activity"
        table = Table(self.dsn)
        until(lambda: table.one(asked) >= answered, "all that was answered counts", limit_s=120)
        table.connection.close()
        assert [sensor.stop() for sensor in self.sensors] == [0] * len(self.sensors)
        until(lambda: self._waiting() == 0, "the queue is empty", limit_s=120)
        # What it has in hand is stored and acknowledged; else it is in the queue again.
        self._aggregator.close()
        assert self._waiting() == 0

    def _waiting(self) -> int:
        channel = self._queue.channel()
        count = channel.queue_declare(QUEUE, passive=True).method.message_count
        channel.close()
        return int(count)

    def _nothing_waits(self) -> bool:
        for sensor in self.sensors:
            report = read_status(sensor.process.spool)
            if report.batches_waiting or report.batches_to_replay or any(report.rows.values()):
                return False
        return True

    def assert_exact(self, rotations: int) -> None:
        """Check that the database has each event once; a restart may have cut clients off."""
        answered, unanswered = events(self.load.entries)
        verdict = judge(self._entries(), read_all(self.dsn))
        losses = [read_status(sensor.process.spool) for sensor in self.sensors]
        print(
            f"{len(self.sensors)} sensors, {rotations} rotations, {answered} events answered, "
            f"{unanswered} cut off: {verdict}",
            flush=True,
        )
        assert verdict.good, str(verdict)
        assert answered > _FEWEST_EVENTS, "the load was too small to prove anything"
        assert not any(each.drops or each.batches_refused for each in losses)

    def _entries(self) -> list[Entry]:
        """Return the clients' entries; late behaviours are required only in the current epoch. A
        behaviour that becomes known after its event belongs to a row of the same epoch. If the
        epoch changed in between, there may be no such row (docs/how-to/fleet.md).
        """
        table = Table(self.dsn)
        rows = table(
            "SELECT sensor, ceil(extract(epoch FROM max(ended_at)) * 1000) FROM past_epoch"
            " GROUP BY sensor"
        )
        table.connection.close()
        # The account was deleted before: what came later was delivered in the new epoch.
        began_ms = {name: int(at_ms) for name, at_ms in rows}
        return [
            replace(entry, ended_ms=None)
            if entry.began_ms <= began_ms.get(entry.sensor, 0)
            else entry
            for entry in self.load.entries
        ]


def _remove(node: RabbitNode, vhost: str) -> None:
    where = f"http://{node.home.user}@{node.host}:{node.admin_port}"
    management = Management(where, node.home.password, vhost=vhost)
    for name in [*management.sensors(), CENTRE]:
        management.delete(name)
    management.close()
    node.admin.delete_vhost(vhost)
