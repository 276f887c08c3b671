"""Accounts of real sensors are rotated while clients talk to them: 0 lost, 0 twice."""

from __future__ import annotations

import os
import random
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import pika
import pytest

from faults.databases import read_all
from faults.load import Load
from faults.reckoning import events, judge
from faults.rotation import BundledSensor, FleetCommands, end_command
from ingest_support import Table, running, settings_of, until
from ingest_support.fixtures import dsn, table  # noqa: F401 - fixtures
from servers.certificates import Certificates
from servers.rabbitmq import RabbitNode
from smtpfeeds_aggregator.fleet.management import Management
from smtpfeeds_common.spool import read_status
from smtpfeeds_common.topology import QUEUE
from smtpfeeds_deploy.simulation.simulate import Target

# ruff: noqa: F811 - fixtures are imported by name and asked for by name

VHOST = "smtpfeeds-rotation"
CENTRE = "smtpfeeds-aggregator"


class Fleet:
    """Sensors from their bundles, an aggregator, and clients; all ended with the stack."""

    def __init__(
        self,
        stack: ExitStack,
        node: RabbitNode,
        certificates: Certificates,
        dsn: str,
        folder: Path,
        *,
        sensors: int,
        rate_per_s: float,
    ) -> None:
        seed = int(os.environ.get("FAULT_SEED", random.SystemRandom().randrange(1 << 32)))
        print(f"\nseed {seed}", flush=True)
        self.chance, self.dsn = random.Random(seed), dsn
        self.commands = FleetCommands(node, VHOST, dsn, folder / "centre")
        secret = folder / "centre" / "broker-password"
        secret.write_text("[the centre's]\n")
        stack.callback(_remove, node)
        self.commands.set_up(secret)
        names = [f"edge-{number}" for number in range(1, sensors + 1)]
        self.commands.enroll(names, certificates.authority)
        settings = settings_of(
            dsn,
            f"amqps://{CENTRE}@{node.host}:{node.tls_port}/{VHOST}",
            broker_password_file=str(secret),
            broker_ca_file=str(certificates.authority),
        )
        node.admin.permit(node.home.user, VHOST, configure="^$", write="^$", read=".*")
        self._queue = stack.enter_context(
            pika.BlockingConnection(pika.URLParameters(node.url(VHOST)))
        )
        self._aggregator = stack.enter_context(ExitStack())
        self._aggregator.enter_context(running(settings))
        self.sensors = []
        for name in names:
            self.sensors.append(BundledSensor(name, self.commands.bundles, folder / name))
            stack.callback(self.sensors[-1].kill)
        targets = [Target(*sensor.place, sensor.name) for sensor in self.sensors]
        self.load = Load(targets, seed=seed, rate_per_s=rate_per_s)
        self.load.start()
        stack.callback(self.load.stop)

    def rotate(self, *sensors: BundledSensor, restart: Callable[[], bool]) -> None:
        """Rotate these accounts at one time, and install each new bundle."""
        commands = [(each, self.commands.begin_rotation(each.name)) for each in sensors]
        for each, command in commands:
            end_command(command)
            each.install(restart=restart())

    def settle(self) -> None:
        """Stop the clients, let all that they did come in, and stop everything in that order."""
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
            if report.batches_waiting or any(report.rows.values()):
                return False
        return True

    def assert_exact(self, rotations: int) -> None:
        answered, unanswered = events(self.load.entries)
        verdict = judge(self.load.entries, read_all(self.dsn))
        losses = [read_status(sensor.process.spool) for sensor in self.sensors]
        print(
            f"{len(self.sensors)} sensors, {rotations} rotations, {answered} events answered, "
            f"{unanswered} cut off: {verdict}",
            flush=True,
        )
        assert verdict.good, str(verdict)
        assert self.load.odd == []
        assert not any(each.drops or each.batches_refused for each in losses)


def _remove(node: RabbitNode) -> None:
    where = f"http://{node.home.user}@{node.host}:{node.admin_port}"
    management = Management(where, node.home.password, vhost=VHOST)
    for name in [*management.sensors(), CENTRE]:
        management.delete(name)
    management.close()
    node.admin.delete_vhost(VHOST)


def epochs(table: Table) -> list[int]:
    return [epoch for (epoch,) in table("SELECT epoch FROM sensor ORDER BY name")]


@pytest.mark.timeout(180)
def test_accounts_rotated_under_load_lose_nothing_and_count_nothing_twice(
    rabbitmq: RabbitNode, certificates: Certificates, dsn: str, table: Table, tmp_path: Path
) -> None:
    """The new password is installed as a file; the sensors go on without a restart."""
    with ExitStack() as stack:
        fleet = Fleet(stack, rabbitmq, certificates, dsn, tmp_path, sensors=2, rate_per_s=60)
        until(lambda: table.one("SELECT count(*) FROM sighting") > 20, "events come")
        pids = [each.process.process and each.process.process.pid for each in fleet.sensors]
        fleet.rotate(*fleet.sensors, restart=lambda: False)
        before = table.one("SELECT count(*) FROM sighting WHERE sensor LIKE '%%@2'")
        until(
            lambda: table.one("SELECT count(*) FROM sighting WHERE sensor LIKE '%%@2'") > before,
            "events come by the new account",
        )
        fleet.settle()
        fleet.assert_exact(2)
        assert epochs(table) == [2, 2]
        assert pids == [each.process.process and each.process.process.pid for each in fleet.sensors]
        assert events(fleet.load.entries)[0] > 60, "the load was too small to prove anything"


@pytest.mark.large
@pytest.mark.timeout(1200)
def test_ten_accounts_rotated_under_load(
    rabbitmq: RabbitNode, certificates: Certificates, dsn: str, table: Table, tmp_path: Path
) -> None:
    """Each of ten twice, some at one time, with a restart and without."""
    with ExitStack() as stack:
        fleet = Fleet(stack, rabbitmq, certificates, dsn, tmp_path, sensors=10, rate_per_s=60)
        until(lambda: table.one("SELECT count(*) FROM sighting") > 20, "events come")
        rotations = 0
        for _ in range(2):
            waiting = list(fleet.sensors)
            fleet.chance.shuffle(waiting)
            while waiting:
                some = [waiting.pop() for _ in range(min(len(waiting), fleet.chance.randint(1, 3)))]
                fleet.rotate(*some, restart=lambda: fleet.chance.random() < 0.5)
                rotations += len(some)
                time.sleep(fleet.chance.uniform(0, 2))
        fleet.settle()
        fleet.assert_exact(rotations)
        assert epochs(table) == [3] * 10
