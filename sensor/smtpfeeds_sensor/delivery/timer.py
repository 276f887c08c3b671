"""The part of a reactor that the recorder uses, as a type.

Passed in, never imported: what uses it needs no Twisted. Twisted's reactors and its test clock are
both one; Twisted's own interfaces are zope's, which type checkers cannot follow. The time is
monotonic: no step of the host's clock changes it.
"""

from collections.abc import Callable
from typing import Any, Protocol


class Timer(Protocol):
    """A monotonic time in seconds, and calls at a later one."""

    def callLater(self, delay: float, call: Callable[..., Any], /, *args: object) -> Any:
        """Call something in so many seconds."""

    def seconds(self) -> float:
        """The time now."""
        ...
