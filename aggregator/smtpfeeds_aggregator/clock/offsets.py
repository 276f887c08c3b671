"""Measures whether the database's clock has moved against a monotonic one.

The monotonic clock is read before the query and after its answer, so each reading of the
database's clock gives a lower and an upper bound of the offset. A slow answer widens the bounds,
but they stay right.
"""

from collections import deque
from dataclasses import dataclass
from typing import Final

#: A window is divided into this many spans; readings within one span are combined.
_SPANS: Final = 60


@dataclass(slots=True)
class _Span:
    """Bounds of the offset over a short time."""

    began_s: float
    #: The bounds hold until this monotonic time.
    held_s: float
    low_s: float
    high_s: float


class Offsets:
    """The offsets within the window."""

    def __init__(self, *, window_s: float, step_s: float) -> None:
        """Start without a reading.

        Args:
            window_s: the clock is steady when it has not moved for this long.
            step_s: the clock has moved when its offset changes by more than this.
        """
        self._window_s, self._step_s = window_s, step_s
        self._span_s = window_s / _SPANS
        self._spans: deque[_Span] = deque()

    def take(self, before_s: float, after_s: float, clock_s: float) -> None:
        """Take a reading: the clock showed ``clock_s`` between the two monotonic times."""
        low_s, high_s = clock_s - after_s, clock_s - before_s
        if self._spans:
            self._spans[-1].held_s = after_s
        while self._spans and self._spans[0].held_s < after_s - self._window_s:
            self._spans.popleft()
        last = self._spans[-1] if self._spans else None
        if last is not None and after_s - last.began_s < self._span_s:
            last.low_s, last.high_s = max(last.low_s, low_s), min(last.high_s, high_s)
        else:
            self._spans.append(_Span(after_s, after_s, low_s, high_s))

    def moved_s(self) -> float:
        """Return how far the clock has moved within the window; 0 for less than a step."""
        if not self._spans:
            return 0.0
        moved_s = max(span.low_s for span in self._spans) - min(span.high_s for span in self._spans)
        return moved_s if moved_s > self._step_s else 0.0

    def clear(self) -> None:
        """Forget all readings, because an operator accepted the clock."""
        self._spans.clear()
