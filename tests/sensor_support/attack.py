"""An attack on a sensor, and honest clients beside it, which record what they did."""

import asyncio
import multiprocessing
import random
import statistics
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import NamedTuple


class Ledger:
    """Counts of what the clients did."""

    def __init__(self) -> None:
        #: By source: greets sent, and greets answered.
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


class Attack:
    """Slow clients, floods, half-open connections and garbage.

    It lasts for a given time, and on a busy machine until the garbage was sent so many times.
    """

    def __init__(self, place: tuple[str, int], garbage: int = 0) -> None:
        self.place = place
        self.until = 0.0
        self.tries = 0
        self._garbage = garbage

    @property
    def goes_on(self) -> bool:
        return time.monotonic() < self.until or self._garbage > 0

    async def connect(self, source: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        self.tries += 1
        return await asyncio.open_connection(*self.place, local_addr=(source, 0))

    async def slow(self, number: int) -> None:
        while self.goes_on:
            with suppress(OSError):
                _, writer = await self.connect(f"127.50.{number // 200}.{1 + number % 200}")
                while not writer.is_closing() and self.goes_on:
                    writer.write(b"E")
                    await writer.drain()
                    await asyncio.sleep(1)
                writer.close()

    async def half_open(self, number: int) -> None:
        while self.goes_on:
            with suppress(OSError):
                _, writer = await self.connect(f"127.51.{number // 200}.{1 + number % 200}")
                left_s = max(1.0, self.until - time.monotonic())
                await asyncio.sleep(min(left_s, random.uniform(1, 30)))
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
                self._garbage -= 1
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


class Outcome(NamedTuple):
    """The results of the honest clients."""

    tried: int
    #: Time to the reply of each answered client, sorted.
    took_s: list[float]

    @property
    def share(self) -> float:
        return len(self.took_s) / self.tried

    def __str__(self) -> str:
        median_ms = statistics.median(self.took_s) * 1000
        late_ms = self.took_s[int(len(self.took_s) * 0.99)] * 1000
        return (
            f"honest: {self.tried} tried, {self.share:.4f} answered, median {median_ms:.1f} ms, "
            f"99 % {late_ms:.1f} ms"
        )


async def honest_clients(place: tuple[str, int], seconds: float, *, at_least: int = 0) -> Outcome:
    """Run one client every 20 ms for so long, and for at least so many clients."""
    took: list[float] = []
    tried = 0
    until = time.monotonic() + seconds
    while time.monotonic() < until or tried < at_least:
        tried += 1
        ledger = Ledger()
        began = time.monotonic()
        await asyncio.wait_for(greet(place, f"127.60.{tried % 200}.1", ledger), 60)
        if ledger.answered:
            took.append(time.monotonic() - began)
        await asyncio.sleep(0.02)
    return Outcome(tried, sorted(took))


def _attack_in_a_child(place: tuple[str, int], seconds: float, garbage: int) -> None:
    asyncio.run(Attack(place, garbage).run(seconds))


@contextmanager
def under_attack(place: tuple[str, int], seconds: float, *, garbage: int = 0) -> Iterator[None]:
    """Run the attack in its own process, and wait for its end after the block."""
    attacker = multiprocessing.get_context("fork").Process(
        target=_attack_in_a_child, args=(place, seconds, garbage)
    )
    attacker.start()
    try:
        yield
        attacker.join()
    finally:
        attacker.kill()
        attacker.join()
