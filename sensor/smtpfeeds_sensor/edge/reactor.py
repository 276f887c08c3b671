"""The part of Twisted's reactor that the sensor uses, as types.

The reactor is passed in, never imported where it is used, so tests can pass Twisted's test clock.
Twisted's own interfaces are from zope, which type checkers do not understand.
"""

from collections.abc import Callable
from typing import Any, Protocol

from ..delivery.timer import Timer


class Reactor(Timer, Protocol):
    """A complete reactor."""

    def adoptStreamPort(self, descriptor: int, family: int, factory: Any, /) -> Any:
        """Accept on a listening socket."""

    def addSystemEventTrigger(self, phase: str, event: str, call: Any, /) -> Any:
        """Call a function at the start or end."""

    def callFromThread(self, call: Callable[..., Any], /, *args: object) -> Any:
        """Call a function soon; callable from another thread or a signal handler."""

    def callWhenRunning(self, call: Callable[..., Any], /, *args: object) -> Any:
        """Call a function once the reactor runs."""

    def run(self) -> None:
        """Run until stopped."""

    def stop(self) -> None:
        """End ``run``, after the triggers."""
