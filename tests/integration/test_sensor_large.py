"""Minutes of load on a real sensor, which is killed meanwhile, or under attack."""

import asyncio
import os
import random
import time
from pathlib import Path

import pytest

from sensor_support import SensorProcess, many_files, memory_bytes, running
from sensor_support.attack import Ledger, greet, honest_clients, under_attack
from servers.processes import free_port

SESSIONS = 20_000
KILLS = 10
ATTACK_S = float(os.environ.get("ATTACK_S", "600"))

pytestmark = [pytest.mark.large, pytest.mark.timeout(1800)]


async def greet_many(sensor: SensorProcess, ledger: Ledger, kill_at: int) -> None:
    done = 0
    half_way = asyncio.Event()

    async def one_client(number: int) -> None:
        nonlocal done
        while done < SESSIONS:
            done += 1
            if done >= kill_at:
                half_way.set()
            source = f"127.{1 + number}.{done % 200}.{1 + done % 199}"
            await greet(sensor.place(), source, ledger)

    async def killer() -> None:
        await half_way.wait()
        assert sensor.process is not None
        sensor.process.kill()
        sensor.process.wait()
        # In this thread, which stops the clients for a second; see ``bound_to_parent``.
        sensor.start()

    await asyncio.gather(killer(), *(one_client(number) for number in range(64)))


def test_killed_ten_times_in_the_middle_of_20000_sessions(tmp_path: Path) -> None:
    """Every greet that was answered is in the spool, and counted once."""
    ledger = Ledger()
    sensor = SensorProcess(
        tmp_path, listen=[f"127.0.0.1:{free_port()}"], max_connections_per_source=1000
    )
    sensor.start()
    for _ in range(KILLS):
        asyncio.run(greet_many(sensor, ledger, random.randrange(SESSIONS // 4, SESSIONS * 3 // 4)))
    assert sensor.stop() == 0
    kept = {ip: hits for (feed, ip), (hits, _, _) in sensor.rows().items() if feed == "smtpgreet"}
    lost = sum(1 for ip, number in ledger.answered.items() if kept.get(ip, 0) < number)
    twice = sum(1 for ip, number in kept.items() if ledger.sent[ip] < number)
    print(
        f"answered {ledger.answered.total()}, kept {sum(kept.values())}, "
        f"sent {ledger.sent.total()}, lost {lost}, counted twice {twice}"
    )
    assert ledger.answered.total() > SESSIONS * KILLS // 4
    assert (lost, twice) == (0, 0)
    assert sensor.query("SELECT sum(events) FROM activity") == [(sum(kept.values()),)]


def test_honest_clients_are_answered_during_an_attack_of_ten_minutes(tmp_path: Path) -> None:
    with many_files(), running(tmp_path, max_connections_per_source=20) as sensor:
        assert sensor.process is not None
        with under_attack(sensor.place(), ATTACK_S):
            time.sleep(ATTACK_S / 10)
            early = memory_bytes(sensor.process.pid)
            outcome = asyncio.run(honest_clients(sensor.place(), ATTACK_S * 0.85))
            late = memory_bytes(sensor.process.pid)
        assert sensor.stop() == 0
        counters = {name: number for name, number in sensor.counters().items() if number}
    print(f"{outcome}; memory {early / 1e6:.1f} → {late / 1e6:.1f} MB; {counters}")
    assert outcome.share > 0.999
    assert late - early < 8_000_000
