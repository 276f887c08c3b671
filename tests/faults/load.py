"""Clients that never stop coming while things break, and the ledger that they keep.

In a thread with an event loop of its own, at a steady rate. What a client sent is taken from the
octets it wrote, what was answered from the replies it read: a client that was cut off in between
is entered as one that may count.
"""

from __future__ import annotations

import asyncio
import random
import socket
import threading
import time
from collections import deque
from collections.abc import Sequence
from ipaddress import IPv4Address, IPv6Address

from smtpfeeds_common.addresses import normalise_address
from smtpfeeds_common.feeds import DATA, GREET
from smtpfeeds_deploy.simulation import proxy_header
from smtpfeeds_deploy.simulation.clients import KINDS, Client
from smtpfeeds_deploy.simulation.ledger import Bracket, Heard, Session
from smtpfeeds_deploy.simulation.simulate import Target
from smtpfeeds_deploy.simulation.talk import ClientTrouble, ClosedBySensor, Talk, now_ms

from .reckoning import Entry

PARALLEL = 24
_CONNECT_LIMIT_S = 10.0
#: A sensor that was too busy may read what a client sent this long after it gave up.
_LATE_MS = 30_000
#: So often of 100 visits each kind comes.
_WEIGHTS = {
    "scanner": 30,
    "mailer": 16,
    "spammer": 18,
    "early_spammer": 8,
    "bare_ehlo": 5,
    "bare_lf_bot": 6,
    "bdat_sender": 3,
    "data_out_of_order": 3,
    "helo_twice": 3,
    "vanisher": 3,
    "hasty": 2,
    "data_without_greet": 1,
    "http_request": 1,
    "half_word": 1,
}
#: Who comes again and again, of whom so many.
_REGULARS, _REGULARS_SHARE = 40, 0.3
#: Answered events that are remembered for those who wait until they are in the database.
_LATEST = 20_000


class NotingTalk(Talk):
    """A connection that remembers what was written to it."""

    def __init__(self) -> None:
        super().__init__()
        self.sent = bytearray()

    def send(self, data: bytes) -> None:
        if not self.closed:
            self.sent += data
        super().send(data)


def feeds_attempted(sent: bytes) -> list[str]:
    """The feeds that what a client wrote may count in: by its whole lines, as the table says."""
    verbs = [line.strip().upper().partition(b" ")[0] for line in sent.split(b"\n")[:-1]]
    greets = [n for n, verb in enumerate(verbs) if verb in {b"HELO", b"EHLO"}]
    if not greets:
        return []
    data = any(verb in {b"DATA", b"BDAT"} for verb in verbs[greets[0] :])
    return [GREET.name, DATA.name] if data else [GREET.name]


class Load:
    """Clients at a steady rate, in a thread, until they are stopped."""

    def __init__(
        self,
        targets: Sequence[Target],
        *,
        seed: int,
        rate_per_s: float = 80,
        parallel: int = PARALLEL,
    ) -> None:
        self.rate_per_s = rate_per_s
        self.entries: list[Entry] = []
        #: Events that clients saw answered.
        self.answered = 0
        #: The latest of them: feed, address, sensor, and when it was sent (ms).
        self.latest: deque[tuple[str, str, str, int]] = deque(maxlen=_LATEST)
        #: What clients were answered otherwise than they must be.
        self.odd: list[str] = []
        self._targets, self._parallel = list(targets), parallel
        self._chance = random.Random(seed)
        self._regulars = [self._address() for _ in range(_REGULARS)]
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="load", daemon=True)
        self._number = 0
        self._next_at = 0.0

    def start(self) -> None:
        self._next_at = time.monotonic()
        self._thread.start()

    def stop(self) -> None:
        """No new clients; wait for those that are here."""
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        asyncio.run(self._all())

    async def _all(self) -> None:
        async with asyncio.TaskGroup() as group:
            for _ in range(self._parallel):
                group.create_task(self._one_after_another())

    async def _one_after_another(self) -> None:
        while not self._stop.is_set():
            now = time.monotonic()
            self._next_at = max(self._next_at + 1 / self.rate_per_s, now - 1)
            if self._next_at > now:
                await asyncio.sleep(self._next_at - now)
            await self._visit()

    async def _visit(self) -> None:
        kind = self._chance.choices([*_WEIGHTS], [*_WEIGHTS.values()])[0]
        target = self._chance.choice(self._targets)
        regular = self._chance.random() < _REGULARS_SHARE
        source = self._chance.choice(self._regulars) if regular else self._address()
        session = Session(kind, source, target.sensor, "")
        began, talk = now_ms(), NotingTalk()
        try:
            await self._connect(talk, target)
            header = self._header(source)
            talk.send(header)
            talk.sent.clear()
            await KINDS[kind](Client(talk, session, now_ms, began))
        except ClosedBySensor:
            pass  # it may have been killed
        except ClientTrouble as exc:
            self.odd.append(f"{kind} {source}: {exc.message}")
        except (OSError, TimeoutError):
            # No sensor is there: one that was killed comes back.
            await asyncio.sleep(0.02)
        finally:
            talk.close()
        self._enter(session, bytes(talk.sent), began)

    async def _connect(self, talk: NotingTalk, target: Target) -> None:
        loop = asyncio.get_running_loop()
        connecting = loop.create_connection(
            lambda: talk, target.host, target.port, flags=socket.AI_NUMERICHOST
        )
        await asyncio.wait_for(connecting, _CONNECT_LIMIT_S)

    def _enter(self, session: Session, sent: bytes, began: int) -> None:
        # A hasty client never looks at its answer.
        answered = () if session.kind == "hasty" else tuple(session.events)
        known = {event.feed for event in answered}
        when = Bracket(began, now_ms() + _LATE_MS)
        unanswered = tuple(Heard(feed, when) for feed in feeds_attempted(sent) if feed not in known)
        self.entries.append(Entry(session.source, session.sensor, answered, unanswered))
        self.answered += len(answered)
        for event in answered:
            entry = (event.feed, session.source, session.sensor, event.when.lowest)
            self.latest.append(entry)

    def _header(self, source: str) -> bytes:
        self._number += 1
        version = proxy_header.version_2 if self._number % 2 else proxy_header.version_1
        destination = "2001:db8::1" if ":" in source else "192.0.2.1"
        return version(source, destination, 1024 + self._number % 60_000, 25)

    def _address(self) -> str:
        """From the benchmark's prefix (RFC 2544), or of a documentation /64 of its own."""
        if self._chance.random() < 0.7:
            return str(
                IPv4Address(int(IPv4Address("198.18.0.0")) + self._chance.randrange(1 << 17))
            )
        prefix = int(IPv6Address("2001:db8:1::")) + (self._chance.randrange(1 << 24) << 64)
        return normalise_address(str(IPv6Address(prefix + 25)))
