"""How long to wait before the next attempt: waits that double, up to a longest one.

One rule for all of the product: connections to a broker or a database, and programs that are
started again. An attempt that is known to have worked resets it; for a program, which tells only
how long it ran, ``after`` does that.
"""

import random
from collections.abc import Callable
from typing import Final

FIRST_S: Final = 0.5
#: A program that ran this long works: its next wait is the first one again.
STEADY_S: Final = 60.0
#: 2 ** 16 times the first wait is past every longest one.
_MAX_DOUBLINGS: Final = 16


class Backoff:
    """The waits of one thing that is attempted again and again."""

    def __init__(
        self,
        longest_s: float,
        *,
        first_s: float = FIRST_S,
        rng: Callable[[], float] | None = random.random,
    ) -> None:
        """Begin with the first wait.

        Args:
            longest_s: no wait is longer.
            first_s: the wait after the first failure.
            rng: gives numbers from 0 to 1. A wait is then between half and all of the doubled one,
                so that many hosts do not come back at the same moment. None: exactly that one.
        """
        self._longest_s, self._first_s, self._rng = longest_s, first_s, rng
        self._failures = 0

    def next_s(self) -> float:
        """The wait after one more failure."""
        doublings = min(self._failures, _MAX_DOUBLINGS)
        self._failures += 1
        wait_s = min(self._longest_s, self._first_s * float(2**doublings))
        return wait_s if self._rng is None else wait_s * (0.5 + self._rng() / 2)

    def after(self, ran_s: float) -> float:
        """The wait after a program ended that ran for so long."""
        if ran_s >= STEADY_S:
            self.reset()
        return self.next_s()

    def reset(self) -> None:
        """An attempt worked: the next wait is the first one again."""
        self._failures = 0
