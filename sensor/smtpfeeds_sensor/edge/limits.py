"""Who may connect, and how long they may stay: bounds per source, in all, and in time.

Pure but for the clock's reading that is handed in. At a bound the newcomer is
refused; nobody who is being served is cut off for another's sake. IPv6 sources
are counted by /64: one host commands all of it.
"""

from collections.abc import Iterable
from typing import Final, Protocol

from smtpfeeds_common.addresses import IPv4_BYTES, parse_network


def source_of(ip: bytes) -> bytes:
    """What a packed address is counted under: itself, or its /64."""
    return ip if len(ip) == IPv4_BYTES else ip[:8]


class SourceLimits:
    """Open connections by source, and how many are taken in a second.

    The table holds sources with open connections only, so the bound on those bounds it.
    """

    def __init__(self, *, per_source: int, per_second: int) -> None:
        self._per_source, self._per_second = per_source, per_second
        self._open: dict[bytes, int] = {}
        self._second = 0
        self._taken = 0

    def may_accept(self, now_s: float) -> bool:
        """Whether one more is taken in this second; counts it."""
        second = int(now_s)
        if second != self._second:
            self._second, self._taken = second, 0
        self._taken += 1
        return self._taken <= self._per_second

    def enter(self, ip: bytes) -> bool:
        """Take a connection in; False where its source has too many: then do not ``leave``."""
        source = source_of(ip)
        held = self._open.get(source, 0)
        if held >= self._per_source:
            return False
        self._open[source] = held + 1
        return True

    def leave(self, ip: bytes) -> None:
        """A connection that was taken in has ended."""
        source = source_of(ip)
        held = self._open[source] - 1
        if held:
            self._open[source] = held
        else:
            del self._open[source]

    @property
    def sources(self) -> int:
        """Sources with open connections."""
        return len(self._open)


class Networks:
    """A few networks, asked for every connection."""

    def __init__(self, texts: Iterable[str]) -> None:
        """Read them.

        Raises:
            AddressError: one is not a prefix.
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
    """What has a deadline."""

    #: The tick under which it is kept; written by ``Deadlines`` alone.
    due: int

    def check_time(self, now: int) -> int:
        """Called at ``due``: the next tick at which to be called, or 0 for never again."""
        ...


class Deadlines:
    """One timer for all connections: a wheel of one-second ticks.

    A connection is in one bucket, and is asked when that tick comes; a line that
    arrives costs it no more than remembering ``now``.
    """

    #: Ticks begin here, so that 0 stays free for "never".
    _FIRST: Final = 1
    #: Ticks that pass at a time. A process that stood still for a minute (a slow disk, a paused
    #: virtual machine) has not heard its clients meanwhile: they have not been idle.
    MOST_TICKS: Final = 5

    def __init__(self) -> None:
        self.now = self._FIRST
        self._buckets: dict[int, set[Timed]] = {}

    def add(self, timed: Timed, due: int) -> None:
        """Ask ``timed`` at that tick, at the next one at the earliest."""
        timed.due = max(due, self.now + 1)
        bucket = self._buckets.get(timed.due)
        if bucket is None:
            self._buckets[timed.due] = {timed}
        else:
            bucket.add(timed)

    def discard(self, timed: Timed) -> None:
        """Ask no more."""
        bucket = self._buckets.get(timed.due)
        if bucket is not None:
            bucket.discard(timed)
            if not bucket:
                del self._buckets[timed.due]
        timed.due = 0

    def advance(self, ticks: int = 1) -> None:
        """Time has passed, ``MOST_TICKS`` at most; ask those that are due."""
        for _ in range(min(ticks, self.MOST_TICKS)):
            self.now += 1
            for timed in self._buckets.pop(self.now, ()):
                timed.due = 0
                due = timed.check_time(self.now)
                if due:
                    self.add(timed, due)
