"""What the sensor uses of Twisted's reactor, as types.

The reactor is passed in, never imported where it is used, and Twisted's test
clock can stand in for it. Twisted's own interfaces are zope's, which type
checkers cannot follow.
"""

from collections.abc import Callable
from typing import Any, Protocol

from ..delivery.timer import Timer


class Reactor(Timer, Protocol):
    """A whole reactor."""

    def adoptStreamPort(self, descriptor: int, family: int, factory: Any, /) -> Any:
        """Accept on a listening socket."""

    def addSystemEventTrigger(self, phase: str, event: str, call: Any, /) -> Any:
        """Call something at the start or end."""

    def callFromThread(self, call: Callable[..., Any], /, *args: object) -> Any:
        """Call something soon; from another thread or a signal's handler."""

    def callWhenRunning(self, call: Callable[..., Any], /, *args: object) -> Any:
        """Call something once it runs."""

    def run(self) -> None:
        """Run until stopped."""

    def stop(self) -> None:
        """End ``run``, by way of the triggers."""
