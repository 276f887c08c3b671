"""What the sensor uses of Twisted's reactor, as types: passed in, never imported where it is used."""

from collections.abc import Callable
from typing import Any, Protocol


class Timer(Protocol):
    """A reactor's sense of time; Twisted's test clock is one too."""

    def callLater(self, delay: float, callable: Callable[..., Any], *args: object) -> Any:  # noqa: A002
        """Call something later."""

    def seconds(self) -> float:
        """The time on the reactor's clock."""


class Reactor(Timer, Protocol):
    """A whole reactor."""

    def adoptStreamPort(self, fileDescriptor: int, addressFamily: int, factory: Any) -> Any:
        """Accept on a listening socket."""

    def addSystemEventTrigger(self, phase: str, eventType: str, callable: Any) -> Any:  # noqa: A002
        """Call something at the start or end."""

    def run(self) -> None:
        """Run until stopped."""

    def stop(self) -> None:
        """End ``run``, by way of the triggers."""
