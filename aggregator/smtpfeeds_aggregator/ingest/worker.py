"""The ingest worker: two threads, so that one collection is folded while another is written.

``collect`` gathers, checks and folds deliveries; ``store`` writes a folded
collection in one transaction, and acknowledges after the commit.

What can go wrong has one answer each:

* not a batch, or not its sender's, or our own code raises over it: refused; the
  others go on
* the database refuses the data: batch by batch; the culprit alone is refused, where
  the database accepts a batch that is known to be good
* the database is away, or refuses that one too: hold; beyond a minute everything in
  hand is given back to the source, until the database accepts a batch
* it takes too long over a transaction: given up with its connection, then batch by
  batch, so that a slow one gets on
* killed at any point: what was not acknowledged is delivered again, and what of it
  was committed is recognised
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
        """Build both threads' parts.

        Args:
            hold_s: what is in hand is given back when the database is away for longer.
            probe_s: seconds between two probes after that.
            handover: what passes between the threads.
            monotonic: the clock of all waiting.
            note: called with each collection that was committed.
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
        """The first thread: gather, check, fold, hand over until stopped."""
        self.collector.run(stop)

    def store(self, stop: Event) -> None:
        """The second thread: write and acknowledge until stopped and the last one is in."""
        self.writer.run(stop)
