"""Clients that connect at a steady rate while parts break, and their ledger.

They run in a thread with its own event loop. The ledger takes sent events from the octets that a
client wrote, and answered events from the replies that it read: an event without a reply may count
or not. The kind of a client gives its behaviours (`shown`), and its PROXY header the sensor's
address.
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
from .shown import BY_KIND, target_of

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
#: The sensor's addresses that clients come to, behind a proxy.
_DIALLED = {4: [f"192.0.2.{n}" for n in range(1, 9)], 6: [f"2001:db8::{n}" for n in range(1, 9)]}
#: A sensor that was killed answers again within this.
_LAST_VISIT_LIMIT_S = 60.0
#: Answered events that are remembered for those who wait until they are in the database.
_LATEST = 20_000


class NotingTalk(Talk):
    """A connection that records what was written to it."""

    def __init__(self) -> None:
        super().__init__()
        self.sent = bytearray()

    def send(self, data: bytes) -> None:
        if not self.closed:
            self.sent += data
        super().send(data)


def feeds_attempted(sent: bytes) -> list[str]:
    """Return the feeds in which a client's octets may count: by its complete lines."""
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
        #: Wrong answers.
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
        """Start no new clients, and wait for the present ones."""
        self._stop.set()
        self._thread.join()

    def begin_last_visits(self) -> threading.Thread:
        """Start one more client at each sensor; its event stores the behaviours of all others.

        Returns:
            The thread of these clients.
        """
        thread = threading.Thread(
            target=lambda: asyncio.run(self._last_visits()), name="last visits", daemon=True
        )
        thread.start()
        return thread

    async def _last_visits(self) -> None:
        until = time.monotonic() + _LAST_VISIT_LIMIT_S
        for target in self._targets:
            while not await self._visit("scanner", target):
                if time.monotonic() > until:
                    self.odd.append(f"{target.sensor} answers no client")
                    break

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
            kind = self._chance.choices([*_WEIGHTS], [*_WEIGHTS.values()])[0]
            await self._visit(kind, self._chance.choice(self._targets))

    async def _visit(self, kind: str, target: Target) -> bool:
        """Run one client and record it; return whether an event was answered."""
        regular = self._chance.random() < _REGULARS_SHARE
        source = self._chance.choice(self._regulars) if regular else self._address()
        dialled = self._chance.choice(_DIALLED[6 if ":" in source else 4])
        session = Session(kind, source, target.sensor, dialled)
        began, talk, is_whole = now_ms(), NotingTalk(), False
        try:
            await self._connect(talk, target)
            header = self._header(source, dialled)
            talk.send(header)
            talk.sent.clear()
            await KINDS[kind](Client(talk, session, now_ms, began))
            is_whole = True
        except ClosedBySensor:
            pass  # it may have been killed
        except ClientTrouble as exc:
            self.odd.append(f"{kind} {source}: {exc.message}")
        except (OSError, TimeoutError):
            # No sensor listens; one that was killed is started again.
            await asyncio.sleep(0.02)
        finally:
            talk.close()
        # The loop closes a socket in its next round, where nothing is left to be sent.
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        ended = now_ms() if is_whole and talk.closed else None
        entry = self._entry(session, bytes(talk.sent), began, ended)
        self._enter(entry)
        return bool(entry.answered)

    async def _connect(self, talk: NotingTalk, target: Target) -> None:
        loop = asyncio.get_running_loop()
        connecting = loop.create_connection(
            lambda: talk, target.host, target.port, flags=socket.AI_NUMERICHOST
        )
        await asyncio.wait_for(connecting, _CONNECT_LIMIT_S)

    def _entry(self, session: Session, sent: bytes, began: int, ended: int | None) -> Entry:
        # A hasty client never looks at its answer.
        answered = () if session.kind == "hasty" else tuple(session.events)
        known = {event.feed for event in answered}
        when = Bracket(began, now_ms() + _LATE_MS)
        unanswered = tuple(Heard(feed, when) for feed in feeds_attempted(sent) if feed not in known)
        shown = BY_KIND[session.kind]
        return Entry(
            session.source,
            session.sensor,
            answered,
            unanswered,
            target=target_of(session.target),
            flags=shown.whole,
            answered_flags=shown.answered,
            began_ms=began,
            ended_ms=ended,
        )

    def _enter(self, entry: Entry) -> None:
        self.entries.append(entry)
        self.answered += len(entry.answered)
        for event in entry.answered:
            self.latest.append((event.feed, entry.source, entry.sensor, event.when.lowest))

    def _header(self, source: str, dialled: str) -> bytes:
        self._number += 1
        version = proxy_header.version_2 if self._number % 2 else proxy_header.version_1
        return version(source, dialled, 1024 + self._number % 60_000, 25)

    def _address(self) -> str:
        """Return an address of the benchmark prefix (RFC 2544), or of a documentation /64 of its
        own.
        """
        if self._chance.random() < 0.7:
            return str(
                IPv4Address(int(IPv4Address("198.18.0.0")) + self._chance.randrange(1 << 17))
            )
        prefix = int(IPv6Address("2001:db8:1::")) + (self._chance.randrange(1 << 24) << 64)
        return normalise_address(str(IPv6Address(prefix + 25)))
