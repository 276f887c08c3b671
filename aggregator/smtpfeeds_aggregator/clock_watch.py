"""The clock thread: checks the database's clock, alerts operators, records the newest time.

Each ingest transaction checks the clock too; this thread notices a step while no batches
arrive, and reports it in the log, the metrics and the health.
"""

import logging
import uuid
from threading import Event
from typing import Final

from smtpfeeds_common.errors import DatabaseError
from smtpfeeds_common.logs import fields

from .clock.database import REASONS, ClockState, DatabaseClock, Reading, message
from .health import Health
from .metrics import Metrics
from .settings import AggregatorSettings
from .store.clock import ClockStore
from .store.connection import Connection, connect, discard

logger = logging.getLogger(__name__)

_LOOK_S: Final = 2.0
#: Much shorter than any retention or window, and rare enough to cost nothing.
NOTE_EVERY_S: Final = 60.0
_SILENCE_S: Final = 600.0


class ClockWatch:
    """Watches the database's clock until it is stopped."""

    def __init__(
        self, settings: AggregatorSettings, clock: DatabaseClock, metrics: Metrics, health: Health
    ) -> None:
        self._settings, self._clock = settings, clock
        self._metrics, self._health = metrics, health
        self._connection: Connection | None = None
        self._id = uuid.uuid4()
        self._reasons: tuple[str, ...] = ()
        self._has_looked = False

    def run(self, stop: Event) -> None:
        """Check the clock every two seconds until `stop` is set."""
        while not stop.is_set():
            self._health.beat("clock", within_s=_SILENCE_S)
            try:
                self._look()
            except DatabaseError as exc:
                logger.debug("the clock cannot be read", extra=fields(reason=exc.message[:300]))
                discard(self._connection)
                self._connection = None
            stop.wait(_LOOK_S)
        discard(self._connection)

    def _look(self) -> None:
        if self._connection is None:
            limit_s = self._settings.database_timeout_s
            self._connection = connect(self._settings, "clock", autocommit=True, limit_s=limit_s)
        store = ClockStore(self._connection)
        reading = store.read(self._clock.monotonic)
        state = self._clock.take(reading)
        self._alarm(state)
        self._record(store, state, reading)

    def _alarm(self, state: ClockState) -> None:
        reasons: tuple[str, ...] = tuple(doubt.reason for doubt in state.doubts)
        for reason in REASONS:
            self._metrics.clock_in_doubt.labels(reason).set(reason in reasons)
        text = _text(state)
        if text:
            self._health.trouble("clock", text)
        else:
            self._health.well("clock")
        reasons += ("unconfirmed",) if state.unconfirmed else ()
        if reasons == self._reasons:
            return
        self._reasons = reasons
        if text:
            logger.error("clock in doubt", extra=fields(reasons=",".join(reasons), detail=text))
        else:
            logger.warning("clock no longer in doubt", extra=fields())

    def _record(self, store: ClockStore, state: ClockState, reading: Reading) -> None:
        """Record the state for the next start and for `smtpfeeds aggregator clock`."""
        reasons = {doubt.reason for doubt in state.doubts}
        if state.doubts:
            # The doubt that sensors have yet to confirm must survive this process too.
            reasons |= {"sensors"} if state.unconfirmed else set()
            store.record_doubt(self._id, sorted(reasons), _text(state), state.sensors_ahead_s)
        elif reading.record.doubts and not state.unconfirmed:
            store.withdraw_doubt(self._id, others=state.settled or not self._has_looked)
        self._has_looked = True
        if state.settled:
            store.note(reading, every_s=NOTE_EVERY_S)


def _text(state: ClockState) -> str:
    return message(state.doubts) if state.doubts else state.unconfirmed
