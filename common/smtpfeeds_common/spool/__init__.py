"""The spool: a sensor's events, folded, in one SQLite file until they are delivered.

Two sides use the file, each with its own connection:

* ``Spool`` is the sensor's side. It folds events in memory and commits once per reactor turn. The
  commit precedes the reply to the client, so a killed process loses nothing (WAL with
  ``synchronous=NORMAL``). At the start of a UTC day it seals the rows of the day before, so each
  row covers one day and its behaviours one week. While the file cannot be written or created, the
  sensor keeps folding in memory, within a bound.
* ``Sealer`` is the side of the deliverer: the sensor's delivery thread, or the aggregator on a
  single host. It dates rows that were heard while the clock was in doubt, moves rows into numbered
  batches that never change, marks batches when they are confirmed, and keeps the file within its
  bound. It uses ``synchronous=FULL``, so that a batch that was sent is never sealed again under
  another number.

Each opening by either side begins a new epoch: a new UUID for the batches sealed from then on. A
restored backup or a cloned image therefore never uses a number twice.

The modules, each above those that it uses:

    status  left_behind     from outside: state, replay; files that nobody delivers
    seal    write           the two sides
    batches                 moves rows into a numbered batch
    bounds  dating  place   dropping at the bound; times of undated rows; open, create, quarantine
    layout                  tables and notes of the file
    sound                   rows that a sensor can have written
    file    fold  admission SQLite and the kernel; folding in memory; new addresses of a prefix

``file`` is the only module that imports sqlite3.
"""

from .batches import SealedBatch
from .bounds import Dropped, keep_room
from .fold import Bounds, Event
from .layout import SUFFIX, Held
from .seal import Sealer
from .status import Status, find_spools, read_status, replay
from .write import Spool

__all__ = [
    "SUFFIX",
    "Bounds",
    "Dropped",
    "Event",
    "Held",
    "SealedBatch",
    "Sealer",
    "Spool",
    "Status",
    "find_spools",
    "keep_room",
    "read_status",
    "replay",
]
