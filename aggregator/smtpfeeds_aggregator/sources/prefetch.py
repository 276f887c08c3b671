"""Bounds the unacknowledged deliveries in number and in octets. Pure.

AMQP bounds deliveries only by their number, the prefetch. With a prefetch that suits
ordinary batches, messages of 8 MiB, which the schema still allows, would take most of a
gigabyte. So when their octets pass a bound, the consumer starts again with a prefetch
that keeps messages of any size within it, and returns to the large prefetch after a
while without large messages.
"""

from collections.abc import Callable
from typing import Final

from smtpfeeds_common.wire import MAX_BODY_BYTES

#: With more octets of unacknowledged bodies, the consumer starts again with a small prefetch.
MAX_BYTES: Final = 64 * 1024 * 1024
#: The small prefetch: deliveries of any size stay within the bound.
NARROW: Final = MAX_BYTES // MAX_BODY_BYTES
#: The large prefetch returns after this long without a message that is too large for it.
CALM_S: Final = 30.0


class Prefetch:
    """Counts unacknowledged deliveries and their octets, and chooses the prefetch."""

    def __init__(self, prefetch: int, clock: Callable[[], float]) -> None:
        self._wide, self._clock = prefetch, clock
        self._count = self._bytes = 0
        self._large_at_s = 0.0
        #: How many deliveries the broker may send before one is acknowledged.
        self.prefetch = prefetch

    def add(self, octets: int) -> None:
        """Count a delivery."""
        self._count += 1
        self._bytes += octets
        if octets * self._wide > MAX_BYTES:
            self._large_at_s = self._clock()

    def remove(self, octets: int) -> None:
        """Remove a delivery that was acknowledged."""
        self._count -= 1
        self._bytes -= octets

    def clear(self) -> None:
        """Forget all deliveries: the session has ended, and the broker delivers them again."""
        self._count = self._bytes = 0

    @property
    def is_full(self) -> bool:
        """Whether the broker sends no more before one is acknowledged."""
        return self._count >= self.prefetch

    def adapt(self) -> bool:
        """Choose the prefetch; return whether it changed, so that the consumer must start again."""
        chosen = self.prefetch
        if self._bytes > MAX_BYTES:
            chosen = min(self._wide, NARROW)
        elif self._clock() - self._large_at_s >= CALM_S:
            chosen = self._wide
        changed, self.prefetch = chosen != self.prefetch, chosen
        return changed
