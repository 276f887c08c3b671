"""The ingest worker: two threads, so that one collection is folded while another is written.

``collect`` gathers, checks and folds deliveries; ``store`` writes a folded
collection in one transaction, and acknowledges it after the commit.

Each failure has one response:

* A message is not a batch, is not from the sensor that it names, or raises an
  unexpected error: it is refused; the others continue.
* The database refuses the data: the batches are written one by one, and the bad batch
  is refused if the database accepts a batch that is known to be good.
* The database is unavailable, or refuses that batch too: ingest holds. After a minute it
  gives all batches back to the source until the database accepts one.
* A transaction takes too long: it is cancelled with its connection, and the batches are
  written one by one, so that a slow database makes progress.
* The process is killed: the source delivers unacknowledged batches again, and the database
  recognises those that were committed.
"""

import time
from collections.abc import Callable
from threading import Event

from ..clock.database import DatabaseClock
from ..health import Health
from ..metrics import Metrics
from ..origin.lookup import OriginLookup
from ..settings import AggregatorSettings
from ..sources import Source
from .collect import Collector
from .handover import Collection, Handover
from .write import HOLD_S, PROBE_S, Store, Writer


class IngestWorker:
    """Takes deliveries from a source into the store."""

    def __init__(
        self,
        source: Source,
        store: Store,
        origin: Callable[[], OriginLookup],
        settings: AggregatorSettings,
        metrics: Metrics,
        health: Health,
        *,
        clock: DatabaseClock,
        hold_s: float = HOLD_S,
        probe_s: float = PROBE_S,
        handover: Handover | None = None,
        monotonic: Callable[[], float] = time.monotonic,
        note: Callable[[Collection], None] | None = None,
    ) -> None:
        """Build what the two threads run.

        Args:
            hold_s: after this long without a database, batches are given back.
            probe_s: seconds between two probes after that.
            handover: the queue between the threads.
            monotonic: the clock for all waits.
            note: called with each committed collection.
        """
        self.handover = handover or Handover()
        self.collector = Collector(
            source, origin, self.handover, clock, settings, metrics, health, monotonic=monotonic
        )
        self.writer = Writer(
            source,
            store,
            self.handover,
            metrics,
            health,
            hold_s=hold_s,
            probe_s=probe_s,
            note=note,
            monotonic=monotonic,
        )

    def collect(self, stop: Event) -> None:
        """Run the first thread: gather, check, fold and hand over until stopped."""
        self.collector.run(stop)

    def store(self, stop: Event) -> None:
        """Run the second thread: write and acknowledge until `collect` ends and all is written."""
        self.writer.run(stop)
