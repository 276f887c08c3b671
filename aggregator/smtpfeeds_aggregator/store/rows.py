"""The row types that ingest passes to the store, and the outcome that it returns. Pure.

They stand in this package because ``ingest`` imports ``store``, never the reverse.
"""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Final, NamedTuple
from uuid import UUID

#: Sums are capped here: the sum of two still fits into PostgreSQL's bigint, so no sensor
#: can make a counter overflow and so stop the batches of others. ``ingest.sql`` has the
#: same number.
MAX_COUNT: Final = 2**62 - 1
#: The largest value of the column `addresses` of `sensor`.
ADDRESSES_MAX: Final = 2**31 - 1


def enrolment_of(sensor: str, epoch: int) -> str:
    """Return the name that a sensor's rows of an epoch are stored under.

    In the first epoch it is the sensor's name, as in 0.1.0; no sensor's name contains `@`.
    """
    return sensor if epoch == 1 else f"{sensor}@{epoch}"


class BatchKey(NamedTuple):
    """Identifies a batch: the account that sent it, its spool, its number."""

    sensor: str
    spool: UUID
    seq: int


#: Folds only these batches again, relative to a day.
Refold = Callable[[frozenset[BatchKey], int], "Folded"]


class SensorReport(NamedTuple):
    """The state of a sensor in its newest batch."""

    name: str
    sealed_at: datetime
    version: str
    counters: dict[str, int]
    spool_depth: int
    drops: int
    #: Number of addresses that it listens on; 0 if not known.
    addresses: int


class HourRow(NamedTuple):
    """Events of a feed at a sensor in an hour."""

    hour: datetime
    feed: str
    sensor: str
    events: int


class OverflowRow(NamedTuple):
    """Events that a sensor counted under an IPv6 /64, because it was past its bound for the day."""

    prefix: bytes
    feed: str
    sensor: str
    first_seen: datetime
    last_seen: datetime
    hits: int


@dataclass(frozen=True, slots=True)
class Folded:
    """Everything that one transaction writes."""

    #: The distinct batches in it, sorted.
    keys: tuple[BatchKey, ...]
    #: Rows for binary COPY, sorted by (ip, feed, sensor).
    copy: bytes
    rows: int
    #: Number of rows before the fold.
    rows_read: int
    #: No (ip, feed) has rows of two sensors, so there is nothing to group.
    one_sensor_each: bool
    #: Whether there are notes: behaviours without an event, which have no days.
    has_notes: bool
    has_ipv6: bool
    #: The oldest last_seen; None without rows.
    oldest: datetime | None
    #: The day that days, flags and targets are relative to, since 1970-01-01.
    today: int
    #: Whether ``asn`` is valid; false without an origin table.
    annotated: bool
    #: Names of the ASNs in the rows.
    names: dict[int, str]
    hours: tuple[HourRow, ...]
    overflows: tuple[OverflowRow, ...]
    sensors: tuple[SensorReport, ...]
    #: Times of sealing, to measure the lag until the commit.
    sealed_at: tuple[datetime, ...]


class Outcome(NamedTuple):
    """The result of one transaction."""

    #: Batches that this transaction counted; the others were counted before.
    fresh: frozenset[BatchKey]
    #: Rows written to ``sighting``.
    rows: int
    rows_read: int
    #: Rows older than the retention.
    expired: int
    #: Rows counted under a prefix or an account in place of their address.
    overflowed: int
    #: By sensor: rows counted under its account, because they exceed its bucket.
    past_bucket: dict[str, int]
    #: The database's clock.
    now: datetime
    #: Times of sealing of the fresh batches.
    sealed_at: tuple[datetime, ...]
    #: Sensors whose first batch this is.
    new_sensors: tuple[str, ...]
