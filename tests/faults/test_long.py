"""The long runs: every fault many times, at random times under load.

In each run no event is lost, counted twice or invented; each adds a line to the table of
`docs/explanation/faults.md`.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from faults import breaking
from faults.pipeline import Shape
from faults.publication import (
    check_whole,
    generation,
    kill_publisher,
    published_disagreements,
    wait_for_next,
)
from faults.run import Result, Run

pytestmark = [pytest.mark.large, pytest.mark.timeout(1200)]

KILLS = 20
Begin = Callable[..., Run]
Note = Callable[[Result], None]


def end(run: Run, note: Note) -> None:
    """Compare, record the result in any case, and check it."""
    result, verdict = run.finish()
    note(result)
    assert verdict.good, str(verdict)


@pytest.mark.parametrize(
    ("name", "kill"),
    [
        ("kill -9 of a sensor", breaking.kill_sensor),
        ("kill -9 of an ingest worker, two running", breaking.kill_worker),
        ("kill -9 of PostgreSQL", breaking.kill_database),
        ("kill -9 of the RabbitMQ node", breaking.kill_broker),
    ],
    ids=["sensor", "worker", "database", "broker"],
)
def test_kill(begin: Begin, long_results: Note, name: str, kill: Callable[[Run], None]) -> None:
    run = begin(name)
    for _ in range(KILLS):
        run.strike(kill)
    end(run, long_results)


def test_kill_leader(begin: Begin, long_results: Note) -> None:
    """A restarted node has the queue's data before the next leader is killed."""
    run = begin("kill -9 of the leader of three RabbitMQ nodes", Shape(cluster=True))
    for _ in range(KILLS):
        run.strike(breaking.kill_leader)
        run.pipeline.wait(run.pipeline.brokers.whole, "three members are online", 120)
    end(run, long_results)


def test_kill_publisher(begin: Begin, long_results: Note) -> None:
    """The feeds are complete after every kill, and the next generation follows in seconds."""
    run = begin("kill -9 of the publishing aggregator", Shape(publishing=True))
    wait_for_next(run)
    for _ in range(KILLS):
        run.strike(kill_publisher, wait=False)
        killed_at, before = time.monotonic(), generation(run)
        wait_for_next(run, before)
        took_s = time.monotonic() - killed_at
        print(f"  next generation after {took_s:.1f} s", flush=True)
        run.recovery_s = max(run.recovery_s, took_s)
        check_whole(before)  # it is kept: what was published at the kill
        run.recovered()
    result, verdict = run.finish()
    verdict.differences += published_disagreements(run)
    long_results(result)
    assert verdict.good, str(verdict)


def test_promotion(begin: Begin, long_results: Note) -> None:
    """The standby is synchronous: it has all committed data when the primary is killed."""
    run = begin("promotion of a synchronous standby", Shape(standby=True))
    for _ in range(5):
        dead = run.pipeline.primary
        run.strike(breaking.promote_standby)
        dead.become_standby_of(run.pipeline.primary)
        run.pipeline.primary.set_up(synchronous_standby_names="ANY 1 (*)")
    end(run, long_results)


def test_restore(begin: Begin, long_results: Note) -> None:
    """The sensors deliver again what arrived after the backup."""
    run = begin("restore of an earlier backup, then replay")
    for number in range(4):
        backup = run.pipeline.folder / f"backup-{number}"
        run.pipeline.primary.back_up(backup)

        def restore(run: Run, backup: Path = backup) -> None:
            run.pipeline.primary.kill()
            run.pipeline.primary.restore(backup)
            run.pipeline.primary.start()
            breaking.replay(run)

        run.strike(restore, after_s=(3, 6))
    end(run, long_results)


@pytest.mark.parametrize("wire", ["sensors-broker", "aggregators-broker", "aggregators-database"])
def test_cut(begin: Begin, long_results: Note, wire: str) -> None:
    """Connections are reset, refused or stalled, or lose their data."""
    run = begin(f"network cut, {wire.replace('-', ' to ')}", Shape(proxies=True))
    for _ in range(KILLS):
        run.strike(breaking.cut(wire), after_s=(0.2, 1.0))
    end(run, long_results)


def test_broker_unavailable_for_an_hour(begin: Begin, long_results: Note) -> None:
    """18,000 events, five a second for an hour, wait in the spools and are then delivered."""
    run = begin("broker unavailable for the events of an hour", rate_per_s=300)

    def unavailable(run: Run) -> None:
        (node,) = run.pipeline.brokers.nodes
        node.stop()
        goal = run.load.answered + 18_000
        run.pipeline.wait(lambda: run.load.answered >= goal, "an hour's events", 400)
        node.start()

    run.strike(unavailable)
    end(run, long_results)


@pytest.mark.parametrize(
    ("name", "fault"),
    [
        ("queue deleted under the consumer, then replay", breaking.delete_queue),
        ("queue at its limit", breaking.fill_queue),
        ("PostgreSQL read-only", breaking.read_only_database),
        ("PostgreSQL out of connections", breaking.refuse_connections),
        ("ingest worker frozen (SIGSTOP)", breaking.freeze_worker),
    ],
    ids=["deleted", "limit", "read-only", "connections", "frozen"],
)
def test_that_lasts(
    begin: Begin, long_results: Note, name: str, fault: Callable[[Run], None]
) -> None:
    run = begin(name)
    for _ in range(5):
        run.strike(fault)
    end(run, long_results)


def test_everything_at_random(begin: Begin, long_results: Note) -> None:
    """The next fault comes before the recovery from the previous one."""
    run = begin("all of these at random, without a pause", Shape(proxies=True))
    kinds = [
        breaking.kill_sensor,
        breaking.kill_worker,
        breaking.kill_database,
        breaking.freeze_worker,
        *(breaking.cut(wire) for wire in run.pipeline.wires),
    ] * 9
    run.chance.shuffle(kinds)
    for number, kind in enumerate(kinds):
        run.strike(kind, after_s=(0.1, 1.5), wait=False)
        if number % 10 == 5:
            run.strike(breaking.kill_broker, after_s=(0.1, 1.5), wait=False)
    end(run, long_results)


def test_single_host_at_random(begin: Begin, long_results: Note) -> None:
    """Without a broker: sensors, one aggregator on their spools, PostgreSQL and its connection."""
    run = begin("single host: all at random", Shape(single_host=True, proxies=True))
    kinds = [
        breaking.kill_sensor,
        breaking.kill_worker,
        breaking.kill_database,
        breaking.freeze_worker,
        breaking.cut("aggregators-database"),
    ] * 12
    kinds += [breaking.read_only_database, breaking.refuse_connections] * 2
    run.chance.shuffle(kinds)
    for kind in kinds:
        run.strike(kind, after_s=(0.1, 1.5), wait=False)
    end(run, long_results)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """Create a file system of 400 MB; needs root."""
    disk = tmp_path / "disk"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=400m", "tmpfs", str(disk)], check=True)
    yield disk
    subprocess.run(["umount", "--lazy", str(disk)], check=True)


def fill_disk(run: Run) -> None:
    """Fill the database's disk for a while."""
    database = run.pipeline.primary
    balloon = database.data.parents[2] / "balloon"
    with balloon.open("wb", buffering=0) as stream, contextlib.suppress(OSError):
        while True:
            stream.write(bytes(1 << 20))
    run.pipeline.sleep(run.chance.uniform(4, 8))
    balloon.unlink()
    database.start()  # where it had to give up


if os.geteuid() == 0:  # a filesystem with a bound of its own is not for an ordinary user to make

    def test_disk_full(begin: Begin, long_results: Note, small_disk: Path) -> None:
        """Tables cannot grow, the log perhaps neither; when there is room all of it comes in."""
        run = begin("disk full under PostgreSQL", Shape(database_folder=small_disk))
        for _ in range(5):
            run.strike(fill_disk)
        end(run, long_results)
