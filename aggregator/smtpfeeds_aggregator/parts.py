"""The aggregator's threads, each watched so that none ends unnoticed.

Parts that move batches share their state: when one fails the program ends, the service
manager restarts it, and the source delivers what was not acknowledged again. A part that works
beside them (publishing, maintenance, origin tables, the metrics' server) runs again after a wait
that doubles, and `Health` shows the trouble meanwhile: a fault in one of these must not end ingest.
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
    """A thread that runs until it is stopped."""

    def __init__(
        self,
        name: str,
        run: Callable[[Event], None],
        health: Health,
        *,
        runs_again: bool = False,
        backoff: Backoff | None = None,
    ) -> None:
        """Prepare the thread; `start` runs it.

        Args:
            name: the thread's name in the log and in the health.
            run: returns once the event is set.
            health: shows the trouble of a part that failed and runs again.
            runs_again: run the part again when it fails; otherwise set ``failed``.
            backoff: the waits before it runs again.
        """
        self.name = name
        self.stop = Event()
        #: The program is stopping, so this part may end when an earlier one has ended.
        self.may_end = False
        #: It ended before it was stopped, and does not run again.
        self.failed = False
        self._run, self._health, self._runs_again = run, health, runs_again
        self._backoff = backoff or Backoff(_LONGEST_WAIT_S)
        self._thread = Thread(target=self._target, name=name, daemon=True)
        self._troubled_s: float | None = None

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    @property
    def alive(self) -> bool:
        """Whether the thread runs."""
        return self._thread.is_alive()

    def look(self) -> None:
        """Clear its trouble once it has run for a while; `Service` calls this often."""
        if self._troubled_s is not None and time.monotonic() - self._troubled_s > STEADY_S:
            self._troubled_s = None
            self._health.well(self._in_health)

    def end(self, limit_s: float) -> None:
        """Stop the thread and wait for it, at most `limit_s`."""
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
                logger.error("part ended unexpectedly", extra=fields(part=self.name))
            except BaseException:
                logger.exception("part failed", extra=fields(part=self.name))
            if not self._runs_again:
                self.failed = True
                return
            self._troubled_s = time.monotonic()
            self._health.trouble(self._in_health, "it failed and runs again; see the log")
            self.stop.wait(self._backoff.after(self._troubled_s - began_s))
