"""What passes between the two threads of ingest: at most one collection waits.

``Collector`` puts, ``Writer`` takes. With the one in each thread's hands that is
three collections, which bounds the memory of ingest.
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
    """Batches that are written together, each key once, and their fold."""

    batches: tuple[CheckedBatch, ...]
    #: Further deliveries of the same batches: acknowledged with them.
    repeats: tuple[CheckedBatch, ...]
    folded: Folded
    origin: OriginLookup

    def repeats_of(self, batch: CheckedBatch) -> tuple[CheckedBatch, ...]:
        """The further deliveries of one of the batches."""
        return tuple(again for again in self.repeats if again.key == batch.key)


class Handover:
    """The place for one collection between the threads."""

    def __init__(self) -> None:
        self._ready: queue.Queue[Collection] = queue.Queue(maxsize=1)
        self._writing = Event()
        self._closed = Event()

    @property
    def is_busy(self) -> bool:
        """Whether a collection is being written or waits for that."""
        return self._writing.is_set() or self._ready.full()

    def put(self, collection: Collection) -> bool:
        """Hand a collection over; False where none was taken within a tick."""
        try:
            self._ready.put(collection, timeout=TICK_S)
        except queue.Full:
            return False
        return True

    def close(self) -> None:
        """Nothing more is put."""
        self._closed.set()

    @property
    def is_finished(self) -> bool:
        """Whether nothing waits and nothing more comes."""
        return self._closed.is_set() and self._ready.empty()

    def take(self) -> Collection | None:
        """The collection that waits, or None where none comes within a tick; then ``done``."""
        try:
            collection = self._ready.get(timeout=TICK_S)
        except queue.Empty:
            return None
        self._writing.set()
        return collection

    def done(self) -> None:
        """The collection that was taken is written, refused or given back."""
        self._writing.clear()
