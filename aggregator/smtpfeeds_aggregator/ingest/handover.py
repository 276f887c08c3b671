"""A queue for one collection between the two threads of ingest.

``Collector`` puts, ``Writer`` takes. Each thread works on one more collection, so
ingest has at most three in memory.
"""

import queue
from dataclasses import dataclass
from threading import Event
from typing import Final

from ..origin.lookup import OriginLookup
from ..store.rows import Folded
from .check import CheckedBatch

#: How often each thread reports to health, and how long it may stay silent.
TICK_S: Final = 0.5
SILENCE_S: Final = 300.0


@dataclass(frozen=True, slots=True)
class Collection:
    """Batches with distinct keys that are written together, and their fold."""

    batches: tuple[CheckedBatch, ...]
    #: Further deliveries of the same batches, which are acknowledged with them.
    repeats: tuple[CheckedBatch, ...]
    folded: Folded
    origin: OriginLookup

    def repeats_of(self, batch: CheckedBatch) -> tuple[CheckedBatch, ...]:
        """Return the further deliveries of one of the batches."""
        return tuple(again for again in self.repeats if again.key == batch.key)


class Handover:
    """Passes collections from one thread to the other; at most one waits."""

    def __init__(self) -> None:
        self._ready: queue.Queue[Collection] = queue.Queue(maxsize=1)
        self._writing = Event()
        self._closed = Event()

    @property
    def is_busy(self) -> bool:
        """Whether a collection is being written or waits for the writer."""
        return self._writing.is_set() or self._ready.full()

    def put(self, collection: Collection) -> bool:
        """Hand a collection over; False if another one still waits after a tick."""
        try:
            self._ready.put(collection, timeout=TICK_S)
        except queue.Full:
            return False
        return True

    def close(self) -> None:
        """Declare that no more collections follow."""
        self._closed.set()

    @property
    def is_finished(self) -> bool:
        """Whether no collection waits and none follows."""
        return self._closed.is_set() and self._ready.empty()

    def take(self) -> Collection | None:
        """Take the next collection, or None if there is none within a tick; then call `done`."""
        try:
            collection = self._ready.get(timeout=TICK_S)
        except queue.Empty:
            return None
        self._writing.set()
        return collection

    def done(self) -> None:
        """Declare that the taken collection is written, refused or given back."""
        self._writing.clear()
