"""Folding events in memory: one row for each feed and address, a count for each hour.

Pure, with every bound stated: rows, prefixes, and the addresses of one /64.
"""

from dataclasses import dataclass, field
from typing import Final, NamedTuple

HOUR_MS: Final = 3_600_000
DAY_MS: Final = 86_400_000


class Event(NamedTuple):
    """One greet or data event: feed index in ``FEEDS``, packed address, time, what was notable."""

    feed: int
    ip: bytes
    at_ms: int
    flags: int = 0
    #: Which of the sensor's own addresses: a bit number, 0 to 63.
    target: int = 0


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
    #: Distinct addresses of an IPv6 /64 kept in a UTC day; more are counted under the prefix.
    per_prefix64: int = 64
    #: Prefixes watched for that; past it the count begins anew.
    prefixes64: int = 65_536


@dataclass
class Fold:
    """What was heard since the last commit."""

    #: First seen, last seen, hits, flags, targets.
    rows: dict[tuple[int, bytes], list[int]] = field(default_factory=dict)
    hours: dict[tuple[int, int], int] = field(default_factory=dict)
    overflow: dict[tuple[int, bytes], list[int]] = field(default_factory=dict)
    dropped: int = 0
    events: int = 0


class PrefixAdmission:
    """At most N distinct addresses of an IPv6 /64 in a UTC day."""

    def __init__(self, per_prefix: int, prefixes: int) -> None:
        self._per_prefix, self._prefixes = per_prefix, prefixes
        self._day = 0
        self._seen: dict[bytes, set[bytes]] = {}

    def admits(self, ip: bytes, at_ms: int) -> bool:
        """Whether an IPv6 address gets a row of its own on this day."""
        day = at_ms // DAY_MS
        if day != self._day or len(self._seen) >= self._prefixes:
            self._day, self._seen = day, {}
        seen = self._seen.setdefault(ip[:8], set())
        if ip in seen:
            return True
        if len(seen) >= self._per_prefix:
            return False
        seen.add(ip)
        return True
