"""The aggregator's threads: each is watched, and none ends unnoticed.

A part that moves batches shares its state with the others: when it fails the program ends, the
service manager starts it again, and what was not acknowledged comes again. A part that does
something every so often (publishing, maintenance, origin tables, the metrics' server) is run
again after a wait that doubles, and reported to the health meanwhile: a fault in one of these must
not end ingest.
"""

import logging
import time
from collections.abc import Callable
from threading import Event, Thread
from typing import Final

from smtpfeeds_common.backoff import STEADY_S, Backoff
from smtpfeeds_common.logs import fields

from .health import Health

logger = logging.getLogger(__name__)

_LONGEST_WAIT_S: Final = 60.0


class Part:
    """A thread that runs until it is asked to stop."""

    def __init__(
        self,
        name: str,
        run: Callable[[Event], None],
        health: Health,
        *,
        runs_again: bool = False,
        backoff: Backoff | None = None,
    ) -> None:
        """Nothing runs yet.

        Args:
            name: names the thread, in the log and in the health.
            run: runs until the event is set.
            health: where a part that failed and runs again is reported.
            runs_again: it is run again when it fails; else ``failed`` is set.
            backoff: the waits before it runs again.
        """
        self.name = name
        self.stop = Event()
        #: The program stops: this part may end when one before it has.
        self.may_end = False
        #: It ended without being asked to, for good.
        self.failed = False
        self._run, self._health, self._runs_again = run, health, runs_again
        self._backoff = backoff or Backoff(_LONGEST_WAIT_S)
        self._thread = Thread(target=self._target, name=name, daemon=True)
        self._troubled_s: float | None = None

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    @property
    def alive(self) -> bool:
        """Whether its thread runs."""
        return self._thread.is_alive()

    def look(self) -> None:
        """Report it well again once it has run for a while; called by the watch."""
        if self._troubled_s is not None and time.monotonic() - self._troubled_s > STEADY_S:
            self._troubled_s = None
            self._health.well(self._in_health)

    def end(self, limit_s: float) -> None:
        """Ask it to stop, and wait for so long."""
        self.stop.set()
        self._thread.join(limit_s)
        if self._thread.is_alive():
            logger.warning("part did not stop", extra=fields(part=self.name))

    @property
    def _in_health(self) -> str:
        return f"{self.name} thread"

    def _target(self) -> None:
        while not self.stop.is_set():
            began_s = time.monotonic()
            try:
                self._run(self.stop)
                if self.stop.is_set() or self.may_end:
                    return
                logger.error("part ended unasked", extra=fields(part=self.name))
            except BaseException:
                logger.exception("part failed", extra=fields(part=self.name))
            if not self._runs_again:
                self.failed = True
                return
            self._troubled_s = time.monotonic()
            self._health.trouble(self._in_health, "it failed and is run again; see the log")
            self.stop.wait(self._backoff.after(self._troubled_s - began_s))
