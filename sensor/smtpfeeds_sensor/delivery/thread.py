"""The thread of a delivery, beside the reactor; it runs until a stop is requested."""

import logging
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Final, Protocol

from smtpfeeds_common.logs import fields

logger = logging.getLogger(__name__)

#: Pause after an unexpected error.
_UNEXPECTED_WAIT_S: Final = 5.0


class Work(Protocol):
    """The work of the thread: steps, and waits between them."""

    #: Whether the spool's file was malformed at the last step.
    reports_damage: bool

    def step(self) -> float:
        """Do one step; return the seconds until the next one."""
        ...

    def idle(self, wait_s: float, stopping: threading.Event) -> None:
        """Wait that long, or until a stop is requested."""

    def gauges(self) -> Mapping[str, float]:
        """Return the values for the metrics endpoint; callable from any thread."""
        ...

    def interrupt(self) -> None:
        """Interrupt a wait; callable from any thread."""

    def close(self) -> None:
        """Close everything; ``step`` may be called again."""


class DeliveryThread:
    """Runs one delivery, or the housekeeping of one spool."""

    def __init__(self, work: Work, path: Path) -> None:
        self._work, self._path = work, path
        self._stopping = threading.Event()
        self._thread = self._make()
        self.gauges = work.gauges

    def _make(self) -> threading.Thread:
        return threading.Thread(target=self._run, name=f"deliver {self._path.name}", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def look_after(self) -> None:
        """Start the thread again if it ended by itself; call this periodically."""
        if self._thread.is_alive() or self._stopping.is_set():
            return
        logger.critical(
            "delivery thread ended; it is started again", extra=fields(spool=self._path.name)
        )
        self._thread = self._make()
        self._thread.start()

    @property
    def reports_damage(self) -> bool:
        """Whether the spool's file was malformed at the last step."""
        return self._work.reports_damage

    def ask_to_stop(self) -> None:
        """Request the end; return at once."""
        self._stopping.set()

    def join(self, limit_s: float) -> None:
        """Wait for the end; after half the limit, interrupt a wait for the broker."""
        self._thread.join(limit_s / 2)
        if self._thread.is_alive():
            self._work.interrupt()
            self._thread.join(limit_s / 2)

    def _run(self) -> None:
        try:
            while not self._stopping.is_set():
                self._turn()
        finally:
            self._work.close()

    def _turn(self) -> None:
        """Do one step and wait, whatever they raise: events are still recorded in the spool."""
        try:
            self._work.idle(self._work.step(), self._stopping)
        except Exception:
            logger.exception("delivery failed; trying again", extra=fields(spool=self._path.name))
            # The state of open files is unknown: the next step opens them again.
            self._work.close()
            self._stopping.wait(_UNEXPECTED_WAIT_S)
