"""A sense of time that can be waited on: the reactor's, or Twisted's test clock.

Passed in, never imported: what uses it needs no Twisted. Twisted's own interfaces
are zope's, which type checkers cannot follow.
"""

from collections.abc import Callable
from typing import Any, Protocol


class Timer(Protocol):
    """A reactor's sense of time; Twisted's test clock is one too."""

    def callLater(self, delay: float, call: Callable[..., Any], /, *args: object) -> Any:
        """Call something later."""

    def seconds(self) -> float:
        """The time on the reactor's clock, which is monotonic."""
        ...
