"""The state of a delivery, and the state after each outcome.

A step of the delivery opens the spool, connects, publishes and seals. It has one outcome, which
alone gives the next state. The previous state only decides the log line and the wait for the
broker:

    outcome          next state   log                          next look
    WORKED           DELIVERING   info, after any other        the usual interval
    CLOCK_IN_DOUBT   HELD         error, and every 5 minutes   the usual interval
    SPOOL_FAILED     NO_SPOOL     error, and every 5 minutes   a second later
    UNAVAILABLE      NO_BROKER    warning, for each reason     after a wait that doubles
    REFUSED          REFUSED      error, and every 5 minutes   after a wait that doubles

During the wait for the broker the upkeep of the spool continues, so NO_SPOOL can occur in between;
the wait for the broker continues.
"""

import logging
from collections.abc import Callable
from enum import Enum
from typing import Final

from smtpfeeds_common.backoff import Backoff
from smtpfeeds_common.logs import fields

logger = logging.getLogger(__name__)

#: How often a lasting problem that needs the operator is logged again.
ALARM_S: Final = 300.0
#: Interval of tries for a spool that cannot be used.
SPOOL_RETRY_S: Final = 1.0


class State(Enum):
    """The state of a delivery, as an operator reads it."""

    STARTING = "starting"
    DELIVERING = "delivering"
    HELD = "delivering what is sealed; nothing is sealed while the clock is in doubt"
    NO_SPOOL = "the spool cannot be used"
    NO_BROKER = "no broker; batches are held in the spool"
    REFUSED = "the broker refuses what is published; batches are held in the spool"


class Outcome(Enum):
    """How a step ended; its value is the next state."""

    WORKED = State.DELIVERING
    CLOCK_IN_DOUBT = State.HELD
    SPOOL_FAILED = State.NO_SPOOL
    UNAVAILABLE = State.NO_BROKER
    REFUSED = State.REFUSED


#: States that are logged repeatedly, because they do not end by themselves.
_ALARMS: Final = {State.HELD, State.NO_SPOOL, State.REFUSED}


class Progress:
    """The state of one delivery; change it from its thread, read it from any."""

    def __init__(
        self, *, interval_s: float, backoff: Backoff, monotonic: Callable[[], float]
    ) -> None:
        """Begin.

        Args:
            interval_s: interval of successful steps.
            backoff: the waits for a broker.
            monotonic: the time, in seconds.
        """
        self.state = State.STARTING
        #: The reason for the state; empty while it delivers.
        self.reason = ""
        self._interval_s, self._backoff, self._monotonic = interval_s, backoff, monotonic
        self._logged_s = 0.0
        self._broker_again_s: float | None = None

    def broker_wait_s(self) -> float:
        """Return the seconds until the broker may be tried again; 0 means now."""
        if self._broker_again_s is None:
            return 0.0
        return max(0.0, self._broker_again_s - self._monotonic())

    def note(self, outcome: Outcome, reason: str = "") -> float:
        """Record the outcome of a step.

        Returns:
            Seconds until the next step.
        """
        before, self.state = self.state, outcome.value
        self._log(before, reason)
        self.reason = reason
        if self.state is State.NO_SPOOL:
            return SPOOL_RETRY_S
        if self.state in {State.NO_BROKER, State.REFUSED}:
            wait_s = self._backoff.next_s()
            self._broker_again_s = self._monotonic() + wait_s
            return min(wait_s, self._interval_s)
        self._backoff.reset()
        self._broker_again_s = None
        return self._interval_s

    def _log(self, before: State, reason: str) -> None:
        if self.state is State.DELIVERING:
            if before not in {State.STARTING, State.DELIVERING}:
                logger.info("delivering again")
            return
        now_s = self._monotonic()
        is_due = self.state in _ALARMS and now_s - self._logged_s >= ALARM_S
        is_new = before is not self.state or (
            reason != self.reason and self.state not in {State.HELD, State.REFUSED}
        )
        if is_due or is_new:
            self._logged_s = now_s
            level = logging.ERROR if self.state in _ALARMS else logging.WARNING
            logger.log(level, self.state.value, extra=fields(reason=reason))
