"""Folding events in memory: one row for each feed and address, a count for each hour.

Pure, with every bound stated. Events whose time is known fold apart from those that were heard
while the wall clock was in doubt, which carry the time since the host booted.
"""

from dataclasses import dataclass, field
from typing import Final, NamedTuple

MINUTE_MS: Final = 60_000
HOUR_MS: Final = 3_600_000
DAY_MS: Final = 86_400_000


class Event(NamedTuple):
    """One greet or data event."""

    #: Index in ``FEEDS``.
    feed: int
    #: The client's packed address.
    ip: bytes
    #: UTC in milliseconds since 1970; where it is not ``dated``, milliseconds since the boot.
    at_ms: int
    #: What was notable.
    flags: int = 0
    #: Which of the sensor's own addresses: a bit number, 0 to 63.
    target: int = 0
    #: Whether the wall clock was believed when the event was heard.
    dated: bool = True


@dataclass(frozen=True, slots=True)
class Bounds:
    """What a spool may hold."""

    #: Octets of the file, the write-ahead log not counted.
    max_bytes: int = 512 * 1024 * 1024
    #: Distinct (feed, address) rows folded in memory while the file cannot be written.
    memory_rows: int = 100_000
    #: Rows unseen for longer are of no use to the aggregator.
    retention_ms: int = 30 * DAY_MS
    #: Confirmed batches are kept this long for a replay.
    replay_ms: int = DAY_MS
    #: Distinct addresses of an IPv6 /64 kept in a day; more are counted under the prefix.
    per_prefix64: int = 64
    #: Prefixes watched for that in a day; addresses of any further one are counted under it.
    prefixes64: int = 65_536


@dataclass(slots=True)
class Fold:
    """What was heard since the last commit, dated or not."""

    #: Events are counted by the hour where they are dated, by the minute since the boot else.
    bucket_ms: int
    #: First seen, last seen, hits, flags, targets.
    rows: dict[tuple[int, bytes], list[int]] = field(default_factory=dict)
    buckets: dict[tuple[int, int], int] = field(default_factory=dict)
    #: By feed and /64: first seen, last seen, hits.
    overflow: dict[tuple[int, bytes], list[int]] = field(default_factory=dict)
    events: int = 0

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing to write, neither events nor notes."""
        return not self.events and not self.rows

    def clear(self) -> None:
        """All of it is written."""
        self.rows, self.buckets, self.overflow, self.events = {}, {}, {}, 0
