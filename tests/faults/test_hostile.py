"""A hostile account among honest sensors: all their events are counted, and no program ends."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from faults.hostile import HonestSensor, HostileAccount, Ledger
from ingest_support import Table, until
from ingest_support.fixtures import dsn, table  # noqa: F401 - fixtures
from servers.fixtures import Vhost
from servers.processes import bound_to_parent, end
from smtpfeeds_common.topology import EXCHANGE

# ruff: noqa: F811 - fixtures are imported by name and used by name

PROGRAM = str(Path(sys.executable).parent / "smtpfeeds")
HOSTILE, HONEST = "mallory", ("honest-1", "honest-2", "honest-3", "honest-4")
#: Of the hostile account at a time.
CONNECTIONS = 3
#: Memory beyond what an aggregator has when it is ready: deliveries in hand twice, three
#: collections and their fold, and what Python's allocator keeps.
MEMORY_MAX_MB = 450


@dataclass
class Aggregator:
    """One aggregator's process, and its memory over time."""

    process: subprocess.Popen[bytes]
    log: Path
    memory_mb: list[float] = field(default_factory=list)

    def look(self) -> None:
        assert self.process.poll() is None, self.log.read_text()[-5_000:]
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        (line,) = (line for line in status.splitlines() if line.startswith("VmRSS"))
        self.memory_mb.append(int(line.split()[1]) / 1024)


@contextmanager
def aggregator(folder: Path, name: str, dsn: str, broker: str) -> Iterator[Aggregator]:
    config, log = folder / f"{name}.toml", folder / f"{name}.log"
    config.write_text(f"dsn = {json.dumps(dsn)}\nbroker = [{json.dumps(broker)}]\n")
    with log.open("wb") as stream:
        process = subprocess.Popen(
            bound_to_parent([PROGRAM, "aggregator", "run", "--config", str(config)]), stderr=stream
        )
    try:
        until(lambda: " ready " in log.read_text(), f"{name} is ready")
        yield Aggregator(process, log)
    finally:
        end(process, limit_s=60)


def account(vhost: Vhost, name: str) -> str:
    topics = {EXCHANGE: f"^observations\\.{name}$"}
    return vhost.add_account(name, write=f"^{EXCHANGE}$", topics=topics)


def recorded(table: Table) -> Ledger:
    rows = table("SELECT sensor, host(ip), feed, hits FROM sighting WHERE sensor LIKE 'honest-%%'")
    return Ledger({(sensor, ip, feed): hits for sensor, ip, feed, hits in rows})


def suffer(vhost: Vhost, dsn: str, table: Table, folder: Path, seconds: float) -> None:
    seed = int(os.environ.get("FAULT_SEED", time.time_ns()))
    print(f"\nseed {seed}, {seconds:g} s", flush=True)
    with ExitStack() as stack:
        aggregators = [
            stack.enter_context(aggregator(folder, name, dsn, vhost.url)) for name in ("a1", "a2")
        ]
        for each in aggregators:
            each.look()
        url = account(vhost, HOSTILE)
        hostile = [HostileAccount(url, HOSTILE, seed + number) for number in range(CONNECTIONS)]
        honest = [
            HonestSensor(account(vhost, name), name, seed + CONNECTIONS + number)
            for number, name in enumerate(HONEST)
        ]
        senders: list[HostileAccount | HonestSensor] = [*hostile, *honest]
        for one in senders:
            one.start()
            stack.callback(one.stop)
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            time.sleep(0.5)
            for each in aggregators:
                each.look()
        for one in senders:
            one.stop()
        sent = sum((one.ledger for one in honest), Ledger())
        until(lambda: recorded(table) == sent, "all that was honest is counted", limit_s=120)
        for each in aggregators:
            each.look()
        show(hostile, honest, aggregators)
        events = sum(one.events.total() for one in honest)
        counted = table.one("SELECT sum(events) FROM activity WHERE sensor LIKE 'honest-%%'")
        assert counted == events
        assert_visible(folder / "a1.toml")
    for each in aggregators:
        log = each.log.read_text()
        assert each.process.returncode == 0, log[-5_000:]
        for word in ("Traceback", "part failed", "broker unavailable", "database refuses"):
            assert word not in log, log[-20_000:]
        assert max(each.memory_mb) < each.memory_mb[0] + MEMORY_MAX_MB
    assert sum(one.sent for one in hostile) > 20, "the account did too little to prove anything"


def assert_visible(config: Path) -> None:
    """One command shows the hostile account."""
    done = subprocess.run(
        [PROGRAM, "sensors", "refusals", HOSTILE, "--format", "json", "--config", str(config)],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    reasons = {row["reason"]: row["messages"] for row in json.loads(done.stdout)}
    print(f"refused: {reasons}", flush=True)
    assert reasons["not_a_batch"] > 0


def show(
    hostile: list[HostileAccount], honest: list[HonestSensor], aggregators: list[Aggregator]
) -> None:
    print(
        f"hostile: {sum(one.sent for one in hostile)} confirmed, "
        f"{sum(one.refused_by_broker for one in hostile)} refused by the broker; "
        f"honest events: {sum(one.events.total() for one in honest)}",
        flush=True,
    )
    for each in aggregators:
        third = max(1, len(each.memory_mb) // 3)
        print(
            f"memory: {each.memory_mb[0]:.0f} MB when ready; at most "
            f"{max(each.memory_mb[:third]):.0f} in the first third, "
            f"{max(each.memory_mb[-third:]):.0f} in the last",
            flush=True,
        )


@pytest.mark.timeout(600)
def test_hostile_account_does_not_affect_honest_sensors_for_seconds(
    vhost: Vhost, dsn: str, table: Table, tmp_path: Path
) -> None:
    suffer(vhost, dsn, table, tmp_path, seconds=6)


@pytest.mark.large
@pytest.mark.timeout(1200)
def test_hostile_account(vhost: Vhost, dsn: str, table: Table, tmp_path: Path) -> None:
    """Runs ten minutes, or HOSTILE_SECONDS."""
    suffer(vhost, dsn, table, tmp_path, seconds=float(os.environ.get("HOSTILE_SECONDS", "600")))
