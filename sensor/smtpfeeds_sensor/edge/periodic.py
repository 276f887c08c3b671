"""Call functions at an interval, by the reactor's monotonic clock; an error does not end that."""

import logging
from collections.abc import Callable

from twisted.internet.task import LoopingCall

from smtpfeeds_common.logs import fields

from .reactor import Reactor

logger = logging.getLogger(__name__)


class Periodic:
    """The periodic calls of a process."""

    def __init__(self, reactor: Reactor) -> None:
        self._reactor = reactor
        self._loops: list[LoopingCall] = []

    def every(self, interval_s: float, call: Callable[[], None], *, name: str) -> None:
        """Call a function at an interval, the first time after one interval."""
        self.every_counted(interval_s, lambda _: call(), name=name)

    def every_counted(self, interval_s: float, call: Callable[[int], None], *, name: str) -> None:
        """Do the same, and pass how many intervals have passed since the last call."""

        def guarded(intervals: int) -> None:
            try:
                call(intervals)
            except Exception:
                logger.exception("periodic call failed; it continues", extra=fields(call=name))

        loop = LoopingCall.withCount(guarded)
        loop.clock = self._reactor  # type: ignore[assignment] # zope's interface
        loop.start(interval_s, now=False)
        self._loops.append(loop)

    def stop(self) -> None:
        """End all calls."""
        for loop in self._loops:
            if loop.running:
                loop.stop()
