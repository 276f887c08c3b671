"""Batches, sources and aggregators for the tests of ingest."""

from __future__ import annotations

import queue
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from threading import Event
from typing import Any

import pika
import psycopg
from pika.exceptions import AMQPError

from servers.processes import HANG_LIMIT_S
from smtpfeeds_aggregator.accounts import Flood, RefusedMessage
from smtpfeeds_aggregator.clock.database import ClockLimits, DatabaseClock
from smtpfeeds_aggregator.service import Service
from smtpfeeds_aggregator.settings import AggregatorSettings
from smtpfeeds_aggregator.sources import Delivery, Refusal
from smtpfeeds_common.topology import EXCHANGE, routing_key
from smtpfeeds_common.wire import Batch, HourCount, Observation, PrefixOverflow, encode

GREET, DATA = "smtpgreet", "smtpdata"
HOUR_MS = 3_600_000
DAY_MS = 24 * HOUR_MS


def now_ms() -> int:
    return int(time.time() * 1000)


def utc(ms: int) -> datetime:
    return datetime.fromtimestamp(ms / 1000, UTC)


def greet(ip: str, at_ms: int | None = None, **more: Any) -> Observation:
    """Create one greet, by default a second ago."""
    at_ms = now_ms() - 1000 if at_ms is None else at_ms
    return Observation(
        more.pop("feed", GREET),
        ip,
        more.pop("first_ms", at_ms),
        at_ms,
        more.pop("hits", 1),
        **more,
    )


def data(ip: str, at_ms: int | None = None, **more: Any) -> Observation:
    return greet(ip, at_ms, feed=DATA, **more)


def made_batch(
    *rows: Observation,
    sensor: str = "s1",
    spool: uuid.UUID | None = None,
    seq: int = 1,
    hours: Sequence[HourCount] = (),
    overflows: Sequence[PrefixOverflow] = (),
    **more: Any,
) -> Batch:
    return Batch(
        spool=spool or uuid.uuid4(),
        seq=seq,
        sensor=sensor,
        sealed_ms=more.pop("sealed_ms", now_ms()),
        observations=list(rows),
        hours=list(hours),
        overflows=list(overflows),
        **more,
    )


def delivery_of(batch: Batch | bytes, account: str | None = "s1", token: Any = None) -> Delivery:
    body = batch if isinstance(batch, bytes) else encode(batch)
    who = account if isinstance(batch, bytes) else batch.sensor
    return Delivery(body, who, f"observations.{who}", redelivered=False, token=token)


class KnowsAllOrigins:
    """An origin table that knows every address and derives the ASN from the first octet."""

    def __init__(self, generation: str = "known", offset: int = 64_500) -> None:
        self.generation = generation
        self.offset = offset

    def lookup_many(self, addresses: Sequence[bytes]) -> list[int | None]:
        return [self.offset + address[0] if address[0] else None for address in addresses]

    def name(self, asn: int) -> str | None:
        return f"AS {asn} {self.generation}"


class MemorySource:
    """A fake source: returns deliveries from a list, and records what happens to them."""

    def __init__(self) -> None:
        self._waiting: queue.SimpleQueue[Delivery] = queue.SimpleQueue()
        self.acknowledged: list[Delivery] = []
        self.refused: list[tuple[Delivery, Refusal]] = []
        self.pauses = 0
        self.resumes = 0
        self.session = 1
        self.can_send_more = True

    def put(self, *batches: Batch | bytes, account: str | None = "s1") -> None:
        for batch in batches:
            self._waiting.put(delivery_of(batch, account, token=self.session))

    def waiting(self) -> int:
        return self._waiting.qsize()

    def run(self, stop: Event) -> None:
        stop.wait()

    def get(self, timeout_s: float) -> Delivery | None:
        try:
            return self._waiting.get(timeout=min(timeout_s, 0.05))
        except queue.Empty:
            return None

    def is_current(self, delivery: Delivery) -> bool:
        return bool(delivery.token == self.session)

    def acknowledge(self, deliveries: list[Delivery]) -> None:
        self.acknowledged += deliveries

    def refuse(self, delivery: Delivery, refusal: Refusal) -> None:
        self.refused.append((delivery, refusal))

    def pause(self) -> None:
        self.pauses += 1
        self.session += 1

    def resume(self) -> None:
        self.resumes += 1

    @property
    def more_can_come(self) -> bool:
        return self.can_send_more

    @property
    def consuming(self) -> bool:
        return self.pauses == self.resumes


class MemoryLedger:
    """A fake `RefusalStore`: records refused messages and floods; the first few are samples."""

    def __init__(self, samples: int = 20) -> None:
        self.samples = samples
        self.counted: list[RefusedMessage] = []
        self.flooding: list[Flood] = []
        self.error: Exception | None = None
        self.closed = False

    def record(self, messages: Sequence[RefusedMessage]) -> list[int]:
        if self.error is not None:
            raise self.error
        keep = [
            message.octets if number < self.samples else -1
            for number, message in enumerate(messages, len(self.counted))
        ]
        self.counted += messages
        return keep

    def note_floods(self, floods: Sequence[Flood]) -> None:
        if self.error is not None:
            raise self.error
        self.flooding = list(floods)

    def close(self) -> None:
        self.closed = True


def settings_of(dsn: str, *broker: str, **more: Any) -> AggregatorSettings:
    more.setdefault("ingest_wait_ms", 50)
    return AggregatorSettings(dsn=dsn, broker=broker, **more)


def settled_clock() -> DatabaseClock:
    """Create a clock that is trusted from its first reading, so that rows expire at once."""
    return DatabaseClock(ClockLimits(settle_s=0))


@contextmanager
def running(settings: AggregatorSettings) -> Iterator[Service]:
    """Run an aggregator in this process, on threads, as the command does."""
    service = Service(settings)
    service.start()
    try:
        yield service
    finally:
        failed = service.finish()
        assert not failed, "a part of the aggregator failed; see the log"


def until(condition: Callable[[], bool], what: str, limit_s: float = HANG_LIMIT_S) -> None:
    deadline = time.monotonic() + limit_s
    while not condition():
        assert time.monotonic() < deadline, f"after {limit_s:g} s it is not so that {what}"
        time.sleep(0.02)


class Table:
    """Short queries of the database."""

    def __init__(self, dsn: str) -> None:
        self.connection = psycopg.connect(dsn, autocommit=True)

    def __call__(self, sql: str, *values: Any) -> list[tuple[Any, ...]]:
        return self.connection.execute(sql.encode(), values or None).fetchall()

    def one(self, sql: str, *values: Any) -> Any:
        return self(sql, *values)[0][0]

    def run(self, sql: str, *values: Any) -> None:
        self.connection.execute(sql.encode(), values or None)

    def rows(self) -> dict[tuple[str, str], tuple[Any, ...]]:
        """Return (address, feed) → first seen, last seen, hits, flags, asn."""
        rows_in_table = self(
            "SELECT host(ip), feed, first_seen, last_seen, hits, flags, asn FROM observation"
        )
        return {(row[0], row[1]): row[2:] for row in rows_in_table}

    def hits(self) -> dict[tuple[str, str], int]:
        return {key: row[2] for key, row in self.rows().items()}


class Publisher:
    """Publishes as a sensor does: persistent, mandatory, confirmed, user_id set."""

    def __init__(self, url: str, account: str | None) -> None:
        self.connection = pika.BlockingConnection(pika.URLParameters(url))
        self.channel = self.connection.channel()
        self.channel.confirm_delivery()
        self.account = account

    def publish(self, body: Batch | bytes, *, key: str | None = None) -> None:
        raw = body if isinstance(body, bytes) else encode(body)
        properties = pika.BasicProperties(delivery_mode=2, user_id=self.account)
        where = key or routing_key(self.account or "nobody")
        self.channel.basic_publish(EXCHANGE, where, raw, properties, mandatory=True)

    def close(self) -> None:
        with suppress(AMQPError):  # the broker may have closed it
            self.connection.close()


def folder_of(path: Path, name: str) -> Path:
    folder = path / name
    folder.mkdir(parents=True, exist_ok=True)
    return folder
