"""The thread on which a delivery runs, beside the reactor; it does not end until it is asked to."""

import logging
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Final, Protocol

from smtpfeeds_common.logs import fields

logger = logging.getLogger(__name__)

#: After an error that nobody has thought of.
_UNEXPECTED_WAIT_S: Final = 5.0


class Work(Protocol):
    """What runs on the thread: looks, and waits between them."""

    def step(self) -> float:
        """Look once; gives the seconds until the next look."""
        ...

    def idle(self, wait_s: float, stopping: threading.Event) -> None:
        """Wait that long, or until a stop is asked for."""

    def gauges(self) -> Mapping[str, float]:
        """What the metrics endpoint shows; from any thread."""
        ...

    def interrupt(self) -> None:
        """Break off what waits; from any thread."""

    def close(self) -> None:
        """Leave everything to the next; ``step`` may be called again."""


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
        """Begin again where the thread has ended without being asked to; call it now and then."""
        if self._thread.is_alive() or self._stopping.is_set():
            return
        logger.critical(
            "delivery thread ended; it is started again", extra=fields(spool=self._path.name)
        )
        self._thread = self._make()
        self._thread.start()

    def ask_to_stop(self) -> None:
        """End soon; returns at once."""
        self._stopping.set()

    def join(self, limit_s: float) -> None:
        """Wait for the end; past half the limit what waits for the broker is broken off."""
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
        """One look and the wait after it, whatever they raise: events go on into the spool."""
        try:
            self._work.idle(self._work.step(), self._stopping)
        except Exception:
            logger.exception("delivery failed; trying again", extra=fields(spool=self._path.name))
            # What is open may be in any condition: the next look opens it again.
            self._work.close()
            self._stopping.wait(_UNEXPECTED_WAIT_S)
