"""The row types that ingest gives to the store, and what it gets back. Pure.

They are defined here, in the room that writes them: ``ingest`` imports ``store``,
never the other way round.
"""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Final, NamedTuple
from uuid import UUID

#: Sums stop here: two of them still fit into PostgreSQL's bigint, so that no
#: sensor can make an address's counter overflow and spoil everybody's batches.
#: ``ingest.sql`` has the same number.
MAX_COUNT: Final = 2**62 - 1
#: What the column `addresses` of `sensor` holds at most.
ADDRESSES_MAX: Final = 2**31 - 1


def enrolment_of(sensor: str, epoch: int) -> str:
    """Under which name rows are stored that a sensor reports in an epoch of its account.

    In the first it is the sensor's, as with programs of 0.1.0; `@` is in no sensor's name.
    """
    return sensor if epoch == 1 else f"{sensor}@{epoch}"


class BatchKey(NamedTuple):
    """What makes a batch the same batch: the account that sent it, its spool, its number."""

    sensor: str
    spool: UUID
    seq: int


#: Folds again: only these batches, relative to a day.
Refold = Callable[[frozenset[BatchKey], int], "Folded"]


class SensorReport(NamedTuple):
    """The state of a sensor in its newest batch."""

    name: str
    sealed_at: datetime
    version: str
    counters: dict[str, int]
    spool_depth: int
    drops: int
    #: Addresses that it listens on; 0: not known.
    addresses: int


class HourRow(NamedTuple):
    """Events of a feed at a sensor in an hour."""

    hour: datetime
    feed: str
    sensor: str
    events: int


class OverflowRow(NamedTuple):
    """Events under an IPv6 /64, beyond its addresses of the day, as a sensor counted them."""

    prefix: bytes
    feed: str
    sensor: str
    first_seen: datetime
    last_seen: datetime
    hits: int


@dataclass(frozen=True, slots=True)
class Folded:
    """Everything that one transaction writes."""

    #: The batches in it, each once, sorted.
    keys: tuple[BatchKey, ...]
    #: Rows for COPY, in binary, sorted by (ip, feed, sensor).
    copy: bytes
    rows: int
    #: Rows as they came, before the fold.
    rows_read: int
    #: No (ip, feed) has rows of two sensors: there is nothing to group.
    one_sensor_each: bool
    #: Whether there are rows of behaviours without an event, which have no days.
    has_notes: bool
    has_ipv6: bool
    #: The oldest last_seen, or None where there are no rows.
    oldest: datetime | None
    #: The day that days, flags and targets are relative to, since 1970-01-01.
    today: int
    #: Whether ``asn`` means anything: false where no origin table is loaded.
    annotated: bool
    #: Names of the ASNs in the rows.
    names: dict[int, str]
    hours: tuple[HourRow, ...]
    overflows: tuple[OverflowRow, ...]
    sensors: tuple[SensorReport, ...]
    #: Times of sealing, for the lag from there to the commit.
    sealed_at: tuple[datetime, ...]


class Outcome(NamedTuple):
    """What became of the batches of one transaction."""

    #: Batches that were counted now; the others had been before.
    fresh: frozenset[BatchKey]
    #: Rows written to ``sighting``.
    rows: int
    rows_read: int
    #: Rows older than the retention.
    expired: int
    #: Rows counted under their IPv6 prefix in place of their address.
    overflowed: int
    #: Rows of a sensor counted under its account: more new addresses than its bucket has.
    past_bucket: dict[str, int]
    #: The database's clock.
    now: datetime
    #: Times of sealing of the fresh batches.
    sealed_at: tuple[datetime, ...]
    #: Sensors of which no batch was stored before.
    new_sensors: tuple[str, ...]
