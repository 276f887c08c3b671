"""Count clients that were closed because the process could open no more files.

Twisted keeps one descriptor in reserve: at EMFILE it frees that, accepts and closes the waiting
clients, and opens it again. It only logs this, so this module observes Twisted's log.
"""

import logging
import time
from collections.abc import Callable, MutableMapping
from typing import Any, Final

from smtpfeeds_common.logs import fields

logger = logging.getLogger(__name__)

COUNTER: Final = "refused_files"
#: The beginnings of Twisted's lines: for each closed client, and if it had no reserve.
_CLOSED: Final = "EMFILE recovery: Closed socket"
_NOT_ACCEPTED: Final = "Could not accept new connection"
_AGAIN_S: Final = 60.0


class RefusedByKernel:
    """An observer of Twisted's log."""

    def __init__(
        self, count: MutableMapping[str, int], clock: Callable[[], float] = time.monotonic
    ) -> None:
        """Create the observer; it adds to ``count``."""
        self._count, self._clock = count, clock
        self._logged_s: float | None = None

    def __call__(self, event: Any) -> None:
        """Handle one event of the log."""
        text = event.get("log_format") or ""
        if not text.startswith((_CLOSED, _NOT_ACCEPTED)):
            return
        self._count[COUNTER] += 1
        now_s = self._clock()
        if self._logged_s is None or now_s - self._logged_s >= _AGAIN_S:
            self._logged_s = now_s
            logger.error(
                "no more files can be opened; clients are disconnected at once",
                extra=fields(refused_files=self._count[COUNTER]),
            )
