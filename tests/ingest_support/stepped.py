"""An ingest worker without threads, whose time passes only while something waits.

Both parts of the worker run in turn, so that nothing depends on the speed of the machine. A test
schedules other events beforehand, such as the return of a database.
"""

from __future__ import annotations

import heapq
import itertools
import threading
from collections.abc import Callable
from typing import Generic, TypeVar

from ingest_support import MemorySource, settings_of
from smtpfeeds_aggregator.clock.database import DatabaseClock
from smtpfeeds_aggregator.health import Health
from smtpfeeds_aggregator.ingest.handover import Collection, Handover
from smtpfeeds_aggregator.ingest.worker import IngestWorker
from smtpfeeds_aggregator.ingest.write import Store
from smtpfeeds_aggregator.metrics import Metrics
from smtpfeeds_aggregator.origin import EMPTY
from smtpfeeds_aggregator.origin.lookup import OriginLookup
from smtpfeeds_aggregator.sources import Delivery


class SteppedTime:
    """A monotonic clock that advances only while something waits."""

    def __init__(self) -> None:
        self.now_s = 1_000.0
        self._due: list[tuple[float, int, Callable[[], object]]] = []
        self._order = itertools.count()

    def monotonic(self) -> float:
        return self.now_s

    def after(self, seconds: float, action: Callable[[], object]) -> None:
        """Schedule an action for when this time has passed."""
        heapq.heappush(self._due, (self.now_s + seconds, next(self._order), action))

    def wait(self, seconds: float) -> None:
        """Advance the time, and run the actions that become due."""
        until_s = self.now_s + seconds
        while self._due and self._due[0][0] <= until_s:
            self.now_s, _, action = heapq.heappop(self._due)
            action()
        self.now_s = until_s

    def wait_for_action(self, seconds: float) -> None:
        """Advance the time, at most until the next action."""
        if self._due:
            seconds = min(seconds, max(0.0, self._due[0][0] - self.now_s))
        self.wait(seconds)


class SteppedStop(threading.Event):
    """A stop event that waits on the stepped clock."""

    def __init__(self, time: SteppedTime) -> None:
        super().__init__()
        self._time = time

    def wait(self, timeout: float | None = None) -> bool:
        assert timeout is not None, "it would wait for ever"
        if not self.is_set():
            self._time.wait(timeout)
        return self.is_set()


class SteppedSource(MemorySource):
    """A source that waits for a delivery on the stepped clock."""

    def __init__(self, time: SteppedTime) -> None:
        super().__init__()
        self._time = time

    def get(self, timeout_s: float) -> Delivery | None:
        if not self.waiting():
            self._time.wait_for_action(timeout_s)
        return super().get(0) if self.waiting() else None


class SteppedHandover(Handover):
    """Writes each collection at once; while it is held, it only reports that it is busy."""

    def __init__(self) -> None:
        super().__init__()
        self.write: Callable[[], None] = lambda: None
        self.held = False

    @property
    def is_busy(self) -> bool:
        return self.held

    def put(self, collection: Collection) -> bool:
        put = super().put(collection)
        if not self.held:
            self.write()
        return put


S = TypeVar("S", bound=Store)


class SteppedWork(Generic[S]):
    """A worker whose parts run in turn."""

    def __init__(
        self, store: S, origin: Callable[[], OriginLookup] = lambda: EMPTY, **settings: object
    ) -> None:
        self.time = SteppedTime()
        self.stop = SteppedStop(self.time)
        self.source, self.store = SteppedSource(self.time), store
        self.metrics, self.health = Metrics(), Health(self.time.monotonic)
        self.handover = SteppedHandover()
        self.clock = DatabaseClock(monotonic=self.time.monotonic)
        self.worker = IngestWorker(
            self.source,
            store,
            origin,
            settings_of("", **settings),
            self.metrics,
            self.health,
            clock=self.clock,
            handover=self.handover,
            monotonic=self.time.monotonic,
        )
        self.handover.write = lambda: self.worker.writer.turn(self.stop)

    def run_for(self, seconds: float) -> None:
        """Run the parts in turn until this time has passed, or they are stopped."""
        until_s = self.time.now_s + seconds
        while self.time.now_s < until_s and not self.stop.is_set():
            self.worker.collector.turn(self.stop)

    def finish(self) -> None:
        """Stop both parts, as the service does."""
        self.stop.set()
        self.worker.collect(self.stop)
        self.worker.store(self.stop)

    def gauge(self, name: str) -> float | None:
        return self.metrics.registry.get_sample_value(f"smtpfeeds_ingest_{name}")

    def counted(self, name: str, **labels: str) -> float:
        value = self.metrics.registry.get_sample_value(f"smtpfeeds_ingest_{name}_total", labels)
        return value or 0.0
