"""Rotating accounts of real sensors under load loses no event and counts none twice."""

from __future__ import annotations

import time
from contextlib import ExitStack
from pathlib import Path

import pytest

from faults.rotation import Fleet
from ingest_support import Table, until
from ingest_support.fixtures import dsn, table  # noqa: F401 - fixtures
from servers.certificates import Certificates
from servers.rabbitmq import RabbitNode

# ruff: noqa: F811 - fixtures are imported by name and used by name

VHOST = "smtpfeeds-rotation"


def epochs(table: Table) -> list[int]:
    return [epoch for (epoch,) in table("SELECT epoch FROM sensor ORDER BY name")]


def test_rotation_under_load_loses_nothing_and_counts_nothing_twice(
    rabbitmq: RabbitNode, certificates: Certificates, dsn: str, table: Table, tmp_path: Path
) -> None:
    """The new password is installed as a file; the sensors continue without a restart."""
    with ExitStack() as stack:
        fleet = Fleet(
            stack, rabbitmq, certificates, dsn, tmp_path, vhost=VHOST, sensors=2, rate_per_s=60
        )
        pids = [sensor.pid for sensor in fleet.sensors]
        fleet.rotate(*fleet.sensors, restart=lambda: False)
        before = table.one("SELECT count(*) FROM sighting WHERE sensor LIKE '%%@2'")
        until(
            lambda: table.one("SELECT count(*) FROM sighting WHERE sensor LIKE '%%@2'") > before,
            "events come by the new account",
        )
        fleet.settle()
        fleet.assert_exact(2)
        assert fleet.load.odd == []
        assert epochs(table) == [2, 2]
        assert pids == [sensor.pid for sensor in fleet.sensors]


@pytest.mark.large
@pytest.mark.timeout(1200)
def test_ten_accounts_rotated_under_load(
    rabbitmq: RabbitNode, certificates: Certificates, dsn: str, table: Table, tmp_path: Path
) -> None:
    """Each of ten is rotated twice, some at the same time, with and without a restart."""
    with ExitStack() as stack:
        fleet = Fleet(
            stack, rabbitmq, certificates, dsn, tmp_path, vhost=VHOST, sensors=10, rate_per_s=60
        )
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
