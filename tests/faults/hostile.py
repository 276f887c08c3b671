"""A hostile account among sensors that keep a ledger of their events.

The account has a sensor's documented rights. It sends values at the limits of the schema,
properties that no library writes, and extreme sizes, times, numbers of addresses and repeats. A
seed decides.
"""

from __future__ import annotations

import json
import random
import struct
import threading
import time
import uuid
from collections import Counter
from collections.abc import Callable
from typing import Any, Final

import pika
from pika.adapters.blocking_connection import BlockingChannel
from pika.exceptions import AMQPError, NackError

from ingest_support import DAY_MS, HOUR_MS, made_batch, now_ms
from ingest_support.edges import Edge, edges, plain_batch
from servers.raw_amqp import (
    HEADERS,
    TIMESTAMP,
    USER_ID,
    RawPublisher,
    RefusedByBrokerError,
    header,
    long,
    properties,
    short,
)
from smtpfeeds_common.feeds import FeedName
from smtpfeeds_common.topology import EXCHANGE, routing_key
from smtpfeeds_common.wire import (
    MAX_BODY_BYTES,
    MAX_ROWS_READ,
    Batch,
    HourCount,
    Observation,
    PrefixOverflow,
    encode,
)

#: (sensor, address, feed) → hits.
Ledger = Counter[tuple[str, str, str]]

_FEEDS: Final[tuple[FeedName, ...]] = ("smtpgreet", "smtpdata")
_EARLIEST_MS: Final = 946_684_800_000
_LATEST_MS: Final = 253_370_764_800_000


class HostileAccount:
    """Publishes as fast as possible, until stopped."""

    def __init__(self, url: str, name: str, seed: int) -> None:
        self.name, self.sent, self.refused_by_broker = name, 0, 0
        self._url, self._chance = url, random.Random(seed)
        self._edges: list[Edge] = list(edges(name))
        self._spool = uuid.uuid4()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name=name)
        self._bodies: list[tuple[int, Callable[[], bytes]]] = [
            (60, self._edge),
            (40, self._several_edges),
            (20, self._octets),
            (20, self._changed_octets),
            (20, self._odd_times),
            (20, self._again),
            (4, self._crowd),
            (2, self._hours),
            (2, self._prefixes),
            (2, self._refused_rows),
            (2, self._padded),
            (1, self._too_long),
        ]

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stop.set()
        self._thread.join(60)
        assert not self._thread.is_alive()

    def _run(self) -> None:
        weights, makers = zip(*self._bodies, strict=True)
        raw = RawPublisher(self._url)
        while not self._stop.is_set():
            (make,) = self._chance.choices(makers, weights)
            body, encoded = make(), self._properties()
            try:
                raw.publish(EXCHANGE, routing_key(self.name).encode(), encoded, body)
                self.sent += 1
            except (RefusedByBrokerError, OSError):
                # The broker closes the channel of who sends what it cannot read.
                self.refused_by_broker += 1
                raw.close()
                raw = RawPublisher(self._url)
        raw.close()

    # Properties

    def _properties(self) -> bytes:
        me = short(self.name.encode())
        entries = [
            header(b"t", b"T", b"\xff" * 8),
            header(b"\xff", b"S", long(b"\xff")),
            header(b"a", b"F", long(b"")),
            header(b"x-smtpfeeds-account", b"S", long(b"honest-1")),
            header(b"x-smtpfeeds-account", b"T", b"\xff" * 8),
            header(b"k", b"x", long(bytes(50_000))),
        ]
        nested = b""
        for _ in range(self._chance.choice((1, 100, 3_000))):
            nested = header(b"a", b"F", long(nested))
        chosen = self._chance.sample([*entries, nested], self._chance.randrange(3))
        kinds = [
            properties(USER_ID, me),
            properties(HEADERS | USER_ID, long(b"".join(chosen)), me),
            properties(TIMESTAMP | USER_ID, b"\xff" * 8, me),
            properties(0),
            properties(USER_ID, short(b"honest-1")),
            properties(HEADERS, struct.pack(">I", 2**31)),
        ]
        (kind,) = self._chance.choices(kinds, (40, 40, 5, 5, 1, 1))
        return kind

    # Bodies

    def _batch(self, *rows: Observation, **more: Any) -> bytes:
        return encode(self._plain(*rows, **more))

    def _plain(self, *rows: Observation, **more: Any) -> Batch:
        more.setdefault("seq", self._chance.randrange(1, 2**63 - 1))
        return made_batch(*rows, sensor=self.name, spool=self._spool, **more)

    def _edge(self) -> bytes:
        return self._chance.choice(self._edges).body

    def _several_edges(self) -> bytes:
        batch = plain_batch(self.name)
        for edge in self._chance.sample(self._edges, 3):
            name, _, field = edge.field.partition(".")
            if not field:
                batch[name] = edge.value
            elif batch[name] and isinstance(batch[name][0], dict):
                batch[name][0][field] = edge.value
        return json.dumps(batch).encode()

    def _octets(self) -> bytes:
        return self._chance.randbytes(self._chance.choice((0, 1, 100, 100_000)))

    def _changed_octets(self) -> bytes:
        body = bytearray(json.dumps(plain_batch(self.name)).encode())
        for _ in range(self._chance.randrange(1, 6)):
            body[self._chance.randrange(len(body))] = self._chance.randrange(256)
        return bytes(body)

    def _odd_times(self) -> bytes:
        now = now_ms()
        times = (_EARLIEST_MS, now - 31 * DAY_MS, now - 29 * DAY_MS, now + 40 * DAY_MS, _LATEST_MS)
        first, last = sorted(self._chance.choices(times, k=2))
        rows = [
            Observation(feed, "203.0.113.1", first, last, 2**53, 2**63 - 1, -(2**63))
            for feed in _FEEDS
        ]
        hours = [HourCount("smtpgreet", at, 2**53) for at in times]
        return self._batch(*rows, hours=hours, sealed_ms=self._chance.choice(times))

    def _again(self) -> bytes:
        """Send a number that was used before, with other rows."""
        now = now_ms()
        row = Observation("smtpgreet", "203.0.113.2", now, now, 1)
        return self._batch(row, seq=self._chance.randrange(1, 20))

    def _crowd(self) -> bytes:
        now = now_ms()
        rows = [
            Observation("smtpgreet", f"2001:db8:bad::{host:x}", now, now, 1)
            for host in self._chance.sample(range(2**16), 1_000)
        ]
        return self._batch(*rows)

    def _hours(self) -> bytes:
        begin = self._chance.randrange(_EARLIEST_MS, now_ms() + 400 * DAY_MS)
        rows = [HourCount("smtpdata", begin + n * HOUR_MS, 1) for n in range(MAX_ROWS_READ)]
        return self._batch(hours=rows)

    def _prefixes(self) -> bytes:
        now = now_ms()
        rows = [
            PrefixOverflow("smtpgreet", f"2001:db8:{prefix:x}::/64", now, now, 1)
            for prefix in range(2**12)
        ]
        return self._batch(overflows=rows)

    def _refused_rows(self) -> bytes:
        now = now_ms()
        return self._batch(*[Observation("smtpgreet", "\0" * 60, now, now, 1)] * MAX_ROWS_READ)

    def _padded(self) -> bytes:
        body = self._batch()
        return body[:-1] + b',"later":"' + b"x" * (MAX_BODY_BYTES - len(body) - 12) + b'"}'

    def _too_long(self) -> bytes:
        return b"[" * (MAX_BODY_BYTES + self._chance.randrange(1, 4_000_000))


class HonestSensor:
    """Publishes batches at a steady rate, keeps them while the broker is full, and records them."""

    def __init__(self, url: str, name: str, seed: int, *, interval_s: float = 0.2) -> None:
        self.name = name
        self.ledger: Ledger = Counter()
        self.events: Counter[FeedName] = Counter()
        self._url, self._chance, self._interval_s = url, random.Random(seed), interval_s
        self._spool, self._seq = uuid.uuid4(), 0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name=name)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stop.set()
        self._thread.join(60)
        assert not self._thread.is_alive()

    def _run(self) -> None:
        channel: BlockingChannel | None = None
        while not self._stop.is_set():
            body = self._next()
            confirmed = False
            while not confirmed:
                try:
                    channel = channel or self._connect()
                    self._publish(channel, body)
                    confirmed = True
                except NackError:
                    time.sleep(0.2)  # the queue is full: held, and sent again
                except AMQPError:
                    channel = None
            self._stop.wait(self._interval_s)
        if channel is not None:
            channel.connection.close()

    def _connect(self) -> BlockingChannel:
        channel = pika.BlockingConnection(pika.URLParameters(self._url)).channel()
        channel.confirm_delivery()
        return channel

    def _publish(self, channel: BlockingChannel, body: bytes) -> None:
        sent = pika.BasicProperties(delivery_mode=2, user_id=self.name)
        channel.basic_publish(EXCHANGE, routing_key(self.name), body, sent, mandatory=True)

    def _next(self) -> bytes:
        self._seq += 1
        now = now_ms()
        rows, events = [], Counter[FeedName]()
        for ip in {f"192.0.2.{self._chance.randrange(250)}" for _ in range(20)} | {"2001:db8:1::1"}:
            for feed in _FEEDS[: self._chance.randrange(1, 3)]:
                hits = self._chance.randrange(1, 5)
                rows.append(Observation(feed, ip, now, now, hits))
                self.ledger[self.name, ip, feed] += hits
                events[feed] += hits
        self.events += events
        hours = [HourCount(feed, now, count) for feed, count in events.items()]
        return encode(
            made_batch(*rows, sensor=self.name, spool=self._spool, seq=self._seq, hours=hours)
        )
