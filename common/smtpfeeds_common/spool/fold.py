"""Folds events in memory: one row per feed and address, one count per feed and hour. Pure.

Events with a UTC time are folded apart from those that were heard while the wall clock was in
doubt, which carry the time since the host booted.
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
    #: Milliseconds since 1970-01-01 UTC; since the boot if the event is not ``dated``.
    at_ms: int
    #: Behaviours of the client.
    flags: int = 0
    #: The bit number, 0 to 63, of the sensor's own address that was hit.
    target: int = 0
    #: Whether the wall clock was trusted when the event was heard.
    dated: bool = True


@dataclass(frozen=True, slots=True)
class Bounds:
    """The bounds of a spool."""

    #: Octets of the file, without the write-ahead log.
    max_bytes: int = 512 * 1024 * 1024
    #: Distinct (feed, address) rows folded in memory while the file cannot be written.
    memory_rows: int = 100_000
    #: The aggregator does not keep rows that are unseen for longer.
    retention_ms: int = 30 * DAY_MS
    #: How long confirmed batches are kept for a replay.
    replay_ms: int = DAY_MS
    #: Distinct addresses of an IPv6 /64 kept in a day; further ones count for the prefix.
    per_prefix64: int = 64
    #: Prefixes with addresses of their own in a day; a further prefix only has a count.
    prefixes64: int = 65_536


@dataclass(slots=True)
class Fold:
    """The events since the last commit, either dated or undated."""

    #: Events are counted by the hour if they are dated, else by the minute since the boot.
    bucket_ms: int
    #: First seen, last seen, hits, flags, targets.
    rows: dict[tuple[int, bytes], list[int]] = field(default_factory=dict)
    buckets: dict[tuple[int, int], int] = field(default_factory=dict)
    #: By feed and /64: first seen, last seen, hits.
    overflow: dict[tuple[int, bytes], list[int]] = field(default_factory=dict)
    events: int = 0

    @property
    def is_empty(self) -> bool:
        """Whether there are neither events nor notes to write."""
        return not self.events and not self.rows

    def clear(self) -> None:
        """Empty the fold, after all of it is written."""
        self.rows, self.buckets, self.overflow, self.events = {}, {}, {}, 0
