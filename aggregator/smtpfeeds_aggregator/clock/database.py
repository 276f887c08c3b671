"""Decides whether the database's clock is in doubt, and what transactions may do by it.

It is in doubt for one of three reasons:

* ``step``: it has moved by more than a minute against a monotonic clock within the last ten
  minutes;
* ``earlier``: it is more than a minute earlier than the newest time recorded in the database;
* ``sensors``: it differs by more than an hour from the median sealing time of recent batches
  of at least three sensors.

While it is in doubt the aggregator acknowledges, deletes, expires and publishes nothing. For an
hour after a start, and after a doubt, it deletes nothing and counts the retention from the newest
recorded time. That gives time synchronisation an hour to correct a clock that was wrong from the
start, while all other work continues.
"""

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final, Literal, NamedTuple

from smtpfeeds_common.errors import DatabaseUnavailable

from .offsets import Offsets
from .sensors import SensorClocks

Reason = Literal["step", "earlier", "sensors"]
REASONS: Final[tuple[Reason, ...]] = ("step", "earlier", "sensors")


@dataclass(frozen=True, slots=True, kw_only=True)
class ClockLimits:
    """How far clocks may differ, and for how long they are watched; all in seconds."""

    #: Synchronised servers, and a failover between them, differ by much less.
    step_s: float = 60.0
    steady_s: float = 600.0
    #: Nothing is deleted for this long after a start and after a doubt.
    settle_s: float = 3600.0
    sensors_differ_s: float = 3600.0
    sensors_min: int = 3
    #: A broker that was unavailable delivers its backlog within this time.
    sensors_steady_s: float = 180.0
    #: No deletion relies on an older reading of the database's clock.
    reading_good_s: float = 60.0


class ClockInDoubt(DatabaseUnavailable):
    """The database's clock is in doubt."""


class Doubt(NamedTuple):
    """A reason to doubt the clock, as a word and as a sentence."""

    reason: Reason
    detail: str


class Record(NamedTuple):
    """The database's row about its clock."""

    #: The newest time at which the clock was settled (without a doubt for an hour).
    noted: datetime
    #: How often an operator has accepted the clock.
    acceptances: int
    #: How far the sensors' clocks were ahead when an operator accepted it; None: they agreed.
    accepted_ahead_s: float | None
    #: Doubts that aggregators have recorded and not withdrawn.
    doubts: tuple[str, ...] = ()


class Reading(NamedTuple):
    """A reading of the database's clock, between two of the monotonic one."""

    before_s: float
    after_s: float
    now: datetime
    record: Record


class Times(NamedTuple):
    """The times that a transaction may use."""

    #: The database's clock in this transaction.
    now: datetime
    #: The retention counts back from this time, which is not later than `now`.
    expires_from: datetime


class ClockState(NamedTuple):
    """The state of the clock, for alerts and for the record in the database."""

    doubts: tuple[Doubt, ...]
    #: Why nothing is published although batches are counted; empty if it is published.
    unconfirmed: str
    #: No doubt for an hour.
    settled: bool
    #: How far the sensors' clocks are ahead; 0 when they agree or are too few.
    sensors_ahead_s: float


def monotonic_s() -> float:
    """Read a clock that nobody sets and that counts while the host is suspended."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


class DatabaseClock:
    """The database's clock as one aggregator sees it; thread-safe."""

    def __init__(
        self,
        limits: ClockLimits | None = None,
        monotonic: Callable[[], float] = monotonic_s,
    ) -> None:
        """Start without a reading."""
        self._limits = limits = limits or ClockLimits()
        self.monotonic = monotonic
        self._lock = threading.Lock()
        self._offsets = Offsets(window_s=limits.steady_s, step_s=limits.step_s)
        self._sensors = SensorClocks(
            limit_s=limits.sensors_differ_s,
            sensors_min=limits.sensors_min,
            steady_s=limits.sensors_steady_s,
        )
        self._reading: Reading | None = None
        #: An earlier run's doubt ends once the clock has been steady for `steady_s` since then.
        self._step_seen_s: float | None = None
        self._unconfirmed = False
        self._doubts: tuple[Doubt, ...] = ()
        self._sensors_ahead_s = 0.0
        self._acceptances = 0
        self._no_doubt_since_s = 0.0

    # What threads report.

    def sealed(self, sensor: str, sealed_ms: int) -> None:
        """Note when a sensor sealed a batch that has arrived now."""
        with self._lock:
            self._sensors.sealed(sensor, sealed_ms / 1000, self.monotonic())

    def idle(self) -> None:
        """Note that the source has nothing to deliver."""
        with self._lock:
            self._sensors.idle(self.monotonic())

    def take(self, reading: Reading) -> ClockState:
        """Take a reading and return the state that follows from it."""
        with self._lock:
            self._take(reading)
            return self._state()

    # What threads ask.

    def check(self, reading: Reading) -> Times:
        """Take a reading within a transaction and return the times that it may use.

        Raises:
            ClockInDoubt: the transaction must not be committed.
        """
        with self._lock:
            self._take(reading)
            self._refuse_doubt()
            settled = self._is_settled()
            return Times(reading.now, reading.now if settled else self._noted(reading))

    def check_publication(self, reading: Reading) -> datetime:
        """Take a reading and return the time of the publication.

        Raises:
            ClockInDoubt: nothing may be published.
        """
        with self._lock:
            self._take(reading)
            self._refuse_doubt()
            if self._unconfirmed:
                raise ClockInDoubt(_UNCONFIRMED)
            return reading.now

    def deletes_from(self) -> datetime | None:
        """Return the time that a deletion's retention counts back from; None: delete nothing."""
        with self._lock:
            reading = self._reading
            if reading is None or not self._is_settled():
                return None
            if self.monotonic() - reading.after_s > self._limits.reading_good_s:
                return None
            return reading.now

    def now_s(self) -> float:
        """Estimate the database's clock, in Unix time; this host's clock before any reading."""
        with self._lock:
            if self._reading is None:
                return time.time()
            return self.monotonic() + _offset_s(self._reading)

    def state(self) -> ClockState:
        """Return the state by the last reading."""
        with self._lock:
            return self._state()

    # Call these with the lock held.

    def _take(self, reading: Reading) -> None:
        first, self._reading = self._reading is None, reading
        record = reading.record
        if first:
            self._acceptances = record.acceptances
            self._no_doubt_since_s = reading.after_s
            self._step_seen_s = reading.after_s if "step" in record.doubts else None
            self._unconfirmed = "sensors" in record.doubts
        elif record.acceptances != self._acceptances:
            self._acceptances = record.acceptances
            self._offsets.clear()
            self._step_seen_s, self._unconfirmed = None, False
        self._offsets.take(reading.before_s, reading.after_s, reading.now.timestamp())
        reasons = (self._step(reading), self._earlier(reading), self._sensors_differ(reading))
        self._doubts = tuple(doubt for doubt in reasons if doubt is not None)
        if self._doubts or self._unconfirmed:
            self._no_doubt_since_s = reading.after_s

    def _step(self, reading: Reading) -> Doubt | None:
        moved_s = self._offsets.moved_s()
        minutes = self._limits.steady_s / 60
        if moved_s:
            return Doubt(
                "step",
                f"it has moved by {span(moved_s)} against the monotonic clock; it is trusted "
                f"again when it has been steady for {minutes:g} minutes",
            )
        seen_s = self._step_seen_s
        if seen_s is not None and reading.after_s - seen_s < self._limits.steady_s:
            return Doubt(
                "step",
                "it had moved shortly before this aggregator was started; it is trusted again "
                f"when it has been steady for {minutes:g} minutes",
            )
        self._step_seen_s = None
        return None

    def _earlier(self, reading: Reading) -> Doubt | None:
        behind_s = (reading.record.noted - reading.now).total_seconds()
        if behind_s <= self._limits.step_s:
            return None
        return Doubt(
            "earlier",
            f"it shows {_text(reading.now)}, which is {span(behind_s)} earlier than the newest "
            f"time noted in the database, {_text(reading.record.noted)}",
        )

    def _sensors_differ(self, reading: Reading) -> Doubt | None:
        if not self._doubts:
            # During a doubt no batch is taken from the source, so silence means nothing then.
            self._sensors.drop_silent(reading.after_s)
        verdict = self._sensors.verdict(
            _offset_s(reading), reading.record.accepted_ahead_s, reading.after_s
        )
        self._sensors_ahead_s = verdict.ahead_s
        if not verdict.ahead_s:
            if verdict.sensors >= self._limits.sensors_min:
                self._unconfirmed = False
            return None
        side = "behind" if verdict.ahead_s > 0 else "ahead of"
        return Doubt(
            "sensors",
            f"it is {span(abs(verdict.ahead_s))} {side} the median of the clocks of "
            f"{verdict.sensors} sensors",
        )

    def _refuse_doubt(self) -> None:
        if self._doubts:
            raise ClockInDoubt(message(self._doubts))

    def _is_settled(self) -> bool:
        if self._reading is None or self._doubts or self._unconfirmed:
            return False
        since_s = self._reading.after_s - self._no_doubt_since_s
        return since_s >= self._limits.settle_s

    def _noted(self, reading: Reading) -> datetime:
        return min(reading.now, reading.record.noted)

    def _state(self) -> ClockState:
        return ClockState(
            self._doubts,
            _UNCONFIRMED if self._unconfirmed else "",
            self._is_settled(),
            self._sensors_ahead_s,
        )


_UNCONFIRMED: Final = (
    "the database's clock differed from the sensors' when an aggregator ended, and too few "
    "sensors have been heard since: nothing is deleted, expired or published; if the clock is "
    "right, run `smtpfeeds aggregator accept-clock`"
)


def message(doubts: tuple[Doubt, ...]) -> str:
    """Return the message for an operator about a clock in doubt."""
    details = "; ".join(f"{doubt.detail} ({doubt.reason})" for doubt in doubts)
    return (
        f"the database's clock is in doubt: {details}. Nothing is acknowledged, deleted, expired "
        "or published meanwhile. Set the clock of the database's host right; if it is right, run "
        "`smtpfeeds aggregator accept-clock`"
    )


def span(seconds: float) -> str:
    """Format a length of time in its largest unit: ``40 days``, ``2 hours``, ``75 s``."""
    for unit, length_s in (("days", 86_400), ("hours", 3600), ("minutes", 60)):
        if abs(seconds) >= 2 * length_s:
            return f"{seconds / length_s:,.0f} {unit}"
    return f"{seconds:.0f} s"


def _offset_s(reading: Reading) -> float:
    return reading.now.timestamp() - (reading.before_s + reading.after_s) / 2


def _text(time: datetime) -> str:
    return f"{time.astimezone(UTC):%Y-%m-%d %H:%M:%SZ}"


def retention_from(times: Times, retention: timedelta) -> timedelta:
    """Return the retention that counts back from ``times.now``; longer until the clock settles."""
    return retention + (times.now - times.expires_from)
