"""Minutes of load on a real sensor: killed in the middle of it, and under attack beside it."""

import asyncio
import multiprocessing
import os
import random
import resource
import statistics
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path

import pytest

from sensor_support import SensorProcess, memory_bytes, running
from servers.processes import free_port

SESSIONS = 20_000
KILLS = 10
ATTACK_S = float(os.environ.get("ATTACK_S", "600"))

pytestmark = [pytest.mark.large, pytest.mark.timeout(1800)]


class Ledger:
    """What the clients themselves know."""

    def __init__(self) -> None:
        #: Greets sent, and greets that were answered, by source.
        self.sent: Counter[str] = Counter()
        self.answered: Counter[str] = Counter()


async def greet(place: tuple[str, int], source: str, ledger: Ledger) -> None:
    with suppress(OSError, asyncio.IncompleteReadError):
        reader, writer = await asyncio.open_connection(*place, local_addr=(source, 0))
        try:
            if (await reader.readuntil(b"\r\n"))[:3] != b"220":
                return
            ledger.sent[source] += 1
            writer.write(b"EHLO x\r\n")
            if (await reader.readuntil(b"\r\n"))[:3] == b"250":
                ledger.answered[source] += 1
        finally:
            writer.close()


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
        # In this thread, though it stops the clients for a second: see ``bound_to_parent``.
        sensor.start()

    await asyncio.gather(killer(), *(one_client(number) for number in range(64)))


def test_killed_ten_times_in_the_middle_of_20000_sessions(tmp_path: Path) -> None:
    """Every greet a client saw answered is in the spool, none twice in the counts."""
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


class Attack:
    """Slow clients, floods, half-open connections and garbage, until told to stop."""

    def __init__(self, place: tuple[str, int]) -> None:
        self.place = place
        self.until = 0.0
        self.tries = 0

    @property
    def goes_on(self) -> bool:
        return time.monotonic() < self.until

    async def connect(self, source: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        self.tries += 1
        return await asyncio.open_connection(*self.place, local_addr=(source, 0))

    async def slow(self, number: int) -> None:
        while self.goes_on:
            with suppress(OSError):
                _, writer = await self.connect(f"127.50.{number // 200}.{1 + number % 200}")
                while self.goes_on and not writer.is_closing():
                    writer.write(b"E")
                    await writer.drain()
                    await asyncio.sleep(1)
                writer.close()

    async def half_open(self, number: int) -> None:
        while self.goes_on:
            with suppress(OSError):
                _, writer = await self.connect(f"127.51.{number // 200}.{1 + number % 200}")
                await asyncio.sleep(random.uniform(1, 30))
                writer.close()

    async def flood(self, source: str) -> None:
        while self.goes_on:
            with suppress(OSError):
                _, writer = await self.connect(source)
                writer.close()
            await asyncio.sleep(0.002)

    async def garbage(self, number: int) -> None:
        octets = random.randbytes(65_536)
        while self.goes_on:
            with suppress(OSError):
                _, writer = await self.connect(f"127.53.0.{number}")
                writer.write(random.choice([b"EHLO " + b"A" * 65_536, b"\r\n" * 30_000, octets]))
                await asyncio.wait_for(writer.drain(), 1)
                writer.close()
            await asyncio.sleep(0.01)

    async def run(self, seconds: float) -> None:
        self.until = time.monotonic() + seconds
        await asyncio.gather(
            *(self.slow(number) for number in range(200)),
            *(self.half_open(number) for number in range(200)),
            *(self.flood("127.52.0.1") for _ in range(4)),
            *(self.flood(f"127.52.1.{1 + number}") for number in range(8)),
            *(self.garbage(1 + number) for number in range(4)),
        )


async def honest_clients(place: tuple[str, int], seconds: float) -> tuple[int, list[float]]:
    """One a fiftieth of a second; gives how many, and the seconds of those answered."""
    took: list[float] = []
    tried = 0
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        tried += 1
        ledger = Ledger()
        began = time.monotonic()
        await asyncio.wait_for(greet(place, f"127.60.{tried % 200}.1", ledger), 30)
        if ledger.answered:
            took.append(time.monotonic() - began)
        await asyncio.sleep(0.02)
    return tried, took


def attack_in_a_child(place: tuple[str, int], seconds: float) -> None:
    asyncio.run(Attack(place).run(seconds))


def test_honest_clients_are_answered_beside_an_attack(tmp_path: Path) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 20_000), hard))
    with running(tmp_path, max_connections_per_source=20) as sensor:
        assert sensor.process is not None
        attacker = multiprocessing.get_context("fork").Process(
            target=attack_in_a_child, args=(sensor.place(), ATTACK_S)
        )
        attacker.start()
        time.sleep(ATTACK_S / 10)
        early = memory_bytes(sensor.process.pid)
        tried, took = asyncio.run(honest_clients(sensor.place(), ATTACK_S * 0.85))
        late = memory_bytes(sensor.process.pid)
        attacker.join()
        assert sensor.stop() == 0
        counters = {name: number for name, number in sensor.counters().items() if number}
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    share = len(took) / tried
    print(
        f"honest: {tried} tried, {share:.4f} answered, median {statistics.median(took) * 1000:.1f}"
        f" ms, 99 % {sorted(took)[int(len(took) * 0.99)] * 1000:.1f} ms; memory {early / 1e6:.1f}"
        f" → {late / 1e6:.1f} MB; {counters}"
    )
    assert share > 0.999
    assert late - early < 8_000_000
