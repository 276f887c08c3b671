"""The part of a reactor that the recorder uses, as a type.

It is passed in, so its users need no Twisted. Twisted's reactors and its test clock implement it;
Twisted's own interfaces are from zope, which type checkers do not understand. The time is
monotonic: no step of the host's clock changes it.
"""

from collections.abc import Callable
from typing import Any, Protocol


class Timer(Protocol):
    """A monotonic time in seconds, and calls at a later one."""

    def callLater(self, delay: float, call: Callable[..., Any], /, *args: object) -> Any:
        """Call a function after this many seconds."""

    def seconds(self) -> float:
        """Return the time now."""
        ...
