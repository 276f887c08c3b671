"""An ingest worker on its two threads, between a source in memory and a store."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Generic, TypeVar

from ingest_support import MemorySource, settings_of
from smtpfeeds_aggregator.clock.database import DatabaseClock
from smtpfeeds_aggregator.health import Health
from smtpfeeds_aggregator.ingest.worker import IngestWorker
from smtpfeeds_aggregator.ingest.write import Store
from smtpfeeds_aggregator.metrics import Metrics
from smtpfeeds_aggregator.origin import EMPTY
from smtpfeeds_aggregator.origin.lookup import OriginLookup
from smtpfeeds_aggregator.store.rows import BatchKey, Folded, Outcome, Refold
from smtpfeeds_common.errors import BadRows, DatabaseUnavailable
from smtpfeeds_common.history import day_of


class MemoryStore:
    """A fake IngestStore: records what is applied, and fails as a test sets it."""

    def __init__(self) -> None:
        self.known: set[BatchKey] = set()
        self.transactions: list[tuple[BatchKey, ...]] = []
        self.away = False
        self.bad: set[int] = set()
        self.refuses_all = False
        #: Errors to raise, by number of the batch, as a bug would.
        self.faults: dict[int, Exception] = {}
        self.conflicts = 0
        self.closed = False

    def apply(self, folded: Folded, refold: Refold) -> Outcome:
        if self.away:
            raise DatabaseUnavailable("away")
        if self.refuses_all or self.bad & {key.seq for key in folded.keys}:
            raise BadRows("bad")
        for seq in {key.seq for key in folded.keys} & self.faults.keys():
            raise self.faults[seq]
        fresh = frozenset(folded.keys) - self.known
        now = datetime.now(UTC)
        today = day_of(now)
        if len(fresh) < len(folded.keys) or folded.today != today:
            folded = refold(fresh, today)
        self.known |= fresh
        self.transactions.append(folded.keys)
        return Outcome(fresh, folded.rows, folded.rows_read, 0, 0, {}, now, folded.sealed_at, ())

    def probe(self, good: Folded) -> None:
        if self.away:
            raise DatabaseUnavailable("away")
        if self.refuses_all:
            raise BadRows("every batch")

    def close(self) -> None:
        self.closed = True


S = TypeVar("S", bound=Store)


class Work(Generic[S]):
    """A worker on its two threads."""

    def __init__(
        self, store: S, origin: Callable[[], OriginLookup] = lambda: EMPTY, **settings: object
    ) -> None:
        self.source, self.store = MemorySource(), store
        self.metrics, self.health = Metrics(), Health()
        self.worker = IngestWorker(
            self.source,
            self.store,
            origin,
            settings_of("", **settings),
            self.metrics,
            self.health,
            clock=DatabaseClock(),
            hold_s=0.3,
            probe_s=0.2,
        )
        self.stop = threading.Event()
        self.threads = [
            threading.Thread(target=part, args=(self.stop,))
            for part in (self.worker.collect, self.worker.store)
        ]

    @contextmanager
    def running(self) -> Iterator[None]:
        for thread in self.threads:
            thread.start()
        try:
            yield
        finally:
            self.finish()

    def finish(self) -> None:
        self.stop.set()
        for thread in self.threads:
            thread.join(60)
            assert not thread.is_alive()

    def gauge(self, name: str) -> float | None:
        return self.metrics.registry.get_sample_value(f"smtpfeeds_ingest_{name}")

    def counted(self, name: str, **labels: str) -> float:
        value = self.metrics.registry.get_sample_value(f"smtpfeeds_ingest_{name}_total", labels)
        return value or 0.0
