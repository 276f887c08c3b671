"""Bounds of connections: per source, in total, and in time.

Pure: the time is passed in. At a bound the new client is refused; no existing connection is closed
for it. IPv6 sources are counted by /64, because one host can use all of it.
"""

from collections.abc import Iterable
from typing import Final, Protocol

from smtpfeeds_common.addresses import IPv4_BYTES, parse_network


def source_of(ip: bytes) -> bytes:
    """Return the source of a packed address: itself, or its /64."""
    return ip if len(ip) == IPv4_BYTES else ip[:8]


class SourceLimits:
    """Counts open connections by source, and new connections in a second.

    The table has only sources with open connections, so their bound limits it.
    """

    def __init__(self, *, per_source: int, per_second: int) -> None:
        self._per_source, self._per_second = per_source, per_second
        self._open: dict[bytes, int] = {}
        self._second = 0
        self._taken = 0

    def may_accept(self, now_s: float) -> bool:
        """Return whether one more connection is accepted in this second, and count it."""
        second = int(now_s)
        if second != self._second:
            self._second, self._taken = second, 0
        self._taken += 1
        return self._taken <= self._per_second

    def enter(self, ip: bytes) -> bool:
        """Count a connection; return False, without counting it, if its source has too many."""
        source = source_of(ip)
        held = self._open.get(source, 0)
        if held >= self._per_source:
            return False
        self._open[source] = held + 1
        return True

    def leave(self, ip: bytes) -> None:
        """Remove a connection that was counted."""
        source = source_of(ip)
        held = self._open[source] - 1
        if held:
            self._open[source] = held
        else:
            del self._open[source]

    @property
    def sources(self) -> int:
        """Return the number of sources with open connections."""
        return len(self._open)


class Networks:
    """A few networks, checked for every connection."""

    def __init__(self, texts: Iterable[str]) -> None:
        """Parse the networks.

        Raises:
            AddressError: a text is not a prefix.
        """
        self._by_width: dict[int, list[tuple[int, int]]] = {}
        for text in texts:
            network = parse_network(text)
            width = network.max_prefixlen // 8
            self._by_width.setdefault(width, []).append(
                (int(network.netmask), int(network.network_address))
            )

    def __bool__(self) -> bool:
        return bool(self._by_width)

    def __contains__(self, ip: bytes) -> bool:
        known = self._by_width.get(len(ip))
        if not known:
            return False
        number = int.from_bytes(ip)
        return any(number & mask == network for mask, network in known)


class Timed(Protocol):
    """An object with a deadline."""

    #: The tick of its bucket; only ``Deadlines`` writes this.
    due: int

    def check_time(self, now: int) -> int:
        """Check at ``due``; return the next tick at which to check, or 0 for never."""
        ...


class Deadlines:
    """One timer for all connections: a timer wheel of one-second ticks.

    A connection is in one bucket and is checked at that tick; for a line that arrives it only
    stores ``now``.
    """

    #: The first tick; 0 means "never".
    _FIRST: Final = 1
    #: Ticks that can pass at once. A process that was stopped for a minute (a slow disk, a paused
    #: virtual machine) could not read from its clients: they were not idle.
    MOST_TICKS: Final = 5

    def __init__(self) -> None:
        self.now = self._FIRST
        self._buckets: dict[int, set[Timed]] = {}

    def add(self, timed: Timed, due: int) -> None:
        """Check ``timed`` at that tick, but not before the next one."""
        timed.due = max(due, self.now + 1)
        bucket = self._buckets.get(timed.due)
        if bucket is None:
            self._buckets[timed.due] = {timed}
        else:
            bucket.add(timed)

    def discard(self, timed: Timed) -> None:
        """Stop checking it."""
        bucket = self._buckets.get(timed.due)
        if bucket is not None:
            bucket.discard(timed)
            if not bucket:
                del self._buckets[timed.due]
        timed.due = 0

    def advance(self, ticks: int = 1) -> None:
        """Advance by at most ``MOST_TICKS``, and check the objects that are due."""
        for _ in range(min(ticks, self.MOST_TICKS)):
            self.now += 1
            for timed in self._buckets.pop(self.now, ()):
                timed.due = 0
                due = timed.check_time(self.now)
                if due:
                    self.add(timed, due)
