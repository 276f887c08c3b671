"""Exponential backoff: each wait is twice the last, up to a maximum.

All programs use it, for connections to a broker or a database and for child processes that are
started again. A successful attempt resets it. A child process only shows how long it ran, so
``after`` resets it after a long run.
"""

import random
from collections.abc import Callable
from typing import Final

FIRST_S: Final = 0.5
#: A program that ran this long is healthy; its next wait is the first one again.
STEADY_S: Final = 60.0
#: 2 ** 16 times the first wait is longer than any maximum in use.
_MAX_DOUBLINGS: Final = 16


class Backoff:
    """The waits between the attempts of one operation."""

    def __init__(
        self,
        longest_s: float,
        *,
        first_s: float = FIRST_S,
        rng: Callable[[], float] | None = random.random,
    ) -> None:
        """Begin with the first wait.

        Args:
            longest_s: the longest wait.
            first_s: the wait after the first failure.
            rng: returns numbers from 0 to 1. Each wait is then between half and all of its full
                length, so that many hosts do not retry at the same moment. None: full length.
        """
        self._longest_s, self._first_s, self._rng = longest_s, first_s, rng
        self._failures = 0

    def next_s(self) -> float:
        """Count one more failure and return the wait after it."""
        doublings = min(self._failures, _MAX_DOUBLINGS)
        self._failures += 1
        wait_s = min(self._longest_s, self._first_s * float(2**doublings))
        return wait_s if self._rng is None else wait_s * (0.5 + self._rng() / 2)

    def after(self, ran_s: float) -> float:
        """Return the wait after a program has ended that ran for ``ran_s``."""
        if ran_s >= STEADY_S:
            self.reset()
        return self.next_s()

    def reset(self) -> None:
        """Start again with the first wait, because an attempt succeeded."""
        self._failures = 0
