"""The spool: what a sensor heard, folded, in one SQLite file until it is delivered.

Two sides use one file, each with a connection of its own:

* ``Spool`` is the sensor's. Events are folded in memory and committed once for
  each turn of the reactor; an event is in the file before the client is
  answered (WAL with ``synchronous=NORMAL``: a killed process loses nothing).
  While the file cannot be written the fold goes on in memory, within a bound.
* ``Sealer`` is the deliverer's: the sensor's publisher thread, or the
  aggregator on a single host. It moves rows into numbered batches that never
  change again (``synchronous=FULL``: a batch that was sent is never sealed
  anew under another number), forgets them when they are confirmed, and keeps
  the file within its bound.

Every opening by either side begins a new epoch, a fresh UUID for what is sealed
from then on: a restored backup or a cloned image can never reuse a number.

The bound (``max_bytes``), and what goes at it, in this order: confirmed
batches, rows older than ``retention``, then the rows longest unseen. Events
that go are counted in ``drops`` and reported in every batch. Sealed batches
that are not yet confirmed never go.

``file`` is the only module that imports sqlite3.
"""

import time
from collections.abc import Callable

from .bounds import keep_room
from .file import SUFFIX
from .fold import Bounds, Event
from .seal import SealedBatch, Sealer
from .status import Status, find_spools, read_status, replay
from .write import Spool

__all__ = [
    "SUFFIX",
    "Bounds",
    "Clock",
    "Event",
    "SealedBatch",
    "Sealer",
    "Spool",
    "Status",
    "find_spools",
    "keep_room",
    "now_ms",
    "read_status",
    "replay",
]

Clock = Callable[[], int]


def now_ms() -> int:
    """The host's clock, in milliseconds since 1970-01-01 UTC."""
    return time.time_ns() // 1_000_000
