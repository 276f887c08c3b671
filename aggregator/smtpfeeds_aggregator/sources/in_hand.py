"""What the broker has sent and has no answer for: bounded in number and in octets. Pure.

AMQP bounds deliveries by their number alone. That number is for batches as
sensors send them; of messages of 8 MiB, which the schema still allows, it would be
most of a gigabyte. So where the octets pass a bound the consumer begins again with
a number that keeps them within it whatever comes, and goes back to the large one
when none has been needed for a while.
"""

from collections.abc import Callable
from typing import Final

from smtpfeeds_common.wire import MAX_BODY_BYTES

#: Octets of bodies in hand at which the consumer begins again with a few deliveries.
MAX_BYTES: Final = 64 * 1024 * 1024
#: Deliveries that stay within it, however large each is.
NARROW: Final = MAX_BYTES // MAX_BODY_BYTES
#: The large number comes back when all would have been within the bound for so long.
CALM_S: Final = 30.0


class InHand:
    """Counts deliveries and their octets, and chooses how many the broker may send."""

    def __init__(self, prefetch: int, clock: Callable[[], float]) -> None:
        self._wide, self._clock = prefetch, clock
        self._count = self._bytes = 0
        self._large_at_s = 0.0
        #: How many deliveries the broker may have in our hands.
        self.prefetch = prefetch

    def add(self, octets: int) -> None:
        """A delivery came."""
        self._count += 1
        self._bytes += octets
        if octets * self._wide > MAX_BYTES:
            self._large_at_s = self._clock()

    def remove(self, octets: int) -> None:
        """It is acknowledged."""
        self._count -= 1
        self._bytes -= octets

    def clear(self) -> None:
        """The session is over: the broker delivers all of it again."""
        self._count = self._bytes = 0

    @property
    def is_full(self) -> bool:
        """Whether the broker sends nothing more before one is acknowledged."""
        return self._count >= self.prefetch

    def adapt(self) -> bool:
        """Choose the number; whether it changed, so that the consumer must begin again."""
        chosen = self.prefetch
        if self._bytes > MAX_BYTES:
            chosen = min(self._wide, NARROW)
        elif self._clock() - self._large_at_s >= CALM_S:
            chosen = self._wide
        changed, self.prefetch = chosen != self.prefetch, chosen
        return changed
