"""The spool: what a sensor heard, folded, in one SQLite file until it is delivered.

Two sides use one file, each with a connection of its own:

* ``Spool`` is the sensor's. Events are folded in memory and committed once for each turn of the
  reactor; an event is in the file before the client is answered (WAL with ``synchronous=NORMAL``: a
  killed process loses nothing). When a UTC day begins it seals what is left of the day before, so
  that a row lies in one day, and its behaviours in one week. While the file cannot be written, or
  cannot even be made, the fold goes on in memory, within a bound.
* ``Sealer`` is the deliverer's: the sensor's delivery thread, or the aggregator on a single host.
  It dates rows that were heard while the clock was in doubt, moves rows into numbered batches that
  never change again (``synchronous=FULL``: a sent batch is never sealed again under another
  number), marks them when they are confirmed, and keeps the file within its bound.

Every opening by either side begins a new epoch, a fresh UUID for what is sealed from then on: a
restored backup or a cloned image can never use a number twice.

The modules, each above those it uses:

    status  left_behind     from outside: state, replay, what was left and what to do with it
    seal    write           the two sides
    batches                 rows become a numbered batch
    bounds  dating  place   what goes at the bound; times for undated rows; open, make, quarantine
    layout                  tables and notes of the file
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
