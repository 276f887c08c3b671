"""The hold: while the database accepts nothing, batches wait and none is refused.

`Hold` keeps since when it lasts, why, and when to try again, and reports it to the log,
the metrics and ``/health``. There are two kinds: the database is unavailable or its clock
is in doubt; or it answers and refuses every batch, even one that is known to be good.
"""

import logging
import random
import time
from collections.abc import Callable
from typing import Final

from smtpfeeds_common.errors import BadRows, DatabaseError
from smtpfeeds_common.logs import fields

from ..clock.database import ClockInDoubt
from ..health import Health
from ..metrics import Metrics

logger = logging.getLogger(__name__)

_RETRY_FIRST_S: Final = 0.25
_RETRY_LAST_S: Final = 5.0
#: Characters of a reason in the log and in ``/health``.
_REASON_MAX: Final = 300


class Hold:
    """Is on from the first database error until the database accepts a batch."""

    def __init__(
        self, metrics: Metrics, health: Health, monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        self._metrics, self._health, self._monotonic = metrics, health, monotonic
        self._since_s: float | None = None
        self._refuses_all = False
        self._retry_s = _RETRY_FIRST_S

    @property
    def is_on(self) -> bool:
        """Whether batches wait."""
        return self._since_s is not None

    @property
    def lasted_s(self) -> float:
        """Seconds since the hold began; 0 when it is off."""
        return 0.0 if self._since_s is None else self._monotonic() - self._since_s

    def note(self, trouble: DatabaseError) -> None:
        """Begin or continue the hold; log its beginning and each change of kind."""
        refuses_all = isinstance(trouble, BadRows)
        if not self.is_on:
            self._since_s = self._monotonic()
            self._metrics.holds.inc()
        elif refuses_all == self._refuses_all:
            return
        self._refuses_all = refuses_all
        reason = trouble.message[:_REASON_MAX]
        if refuses_all:
            self._health.trouble("database", f"it refuses every batch, so all wait: {reason}")
            logger.error("database refuses every batch; all wait", extra=fields(reason=reason))
        else:
            self._health.trouble("database", reason)
            event = "batches wait" if isinstance(trouble, ClockInDoubt) else "database unavailable"
            logger.warning(event, extra=fields(reason=reason))
        self._metrics.holding.set(1)
        self._metrics.refusing_all.set(refuses_all)

    def next_wait_s(self) -> float:
        """Return the seconds until the next attempt; they grow each time."""
        wait_s, self._retry_s = self._retry_s, min(self._retry_s * 2, _RETRY_LAST_S)
        return wait_s * random.uniform(0.7, 1.3)  # noqa: S311 - jitter

    def end(self) -> None:
        """End the hold, because the database accepts batches."""
        if not self.is_on:
            return
        logger.info("database accepts batches again", extra=fields(after_s=round(self.lasted_s, 1)))
        self._since_s, self._retry_s = None, _RETRY_FIRST_S
        self._metrics.holding.set(0)
        self._metrics.refusing_all.set(0)
        self._health.well("database")
