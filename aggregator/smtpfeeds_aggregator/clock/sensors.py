"""Compares the database's clock with the times at which sensors sealed their batches.

A sensor seals a batch before the aggregator receives it, so a sealing time later than the
database's clock shows at once that the two differ. An earlier one shows that only if the batch
was delivered at once: a broker may hold batches for weeks. A batch counts as fresh if the source
was idle shortly before it arrived. A sensor's clock counts as behind if its fresh batches have
been behind by the same time for some minutes.
"""

from dataclasses import dataclass
from typing import Final, NamedTuple

#: Sensors that are watched; further ones have no vote.
_SENSORS_MAX: Final = 10_000
#: A sensor votes for this long after its last batch; it sends one each minute.
_RECENT_S: Final = 600.0
#: A source that was idle within this time holds no backlog.
_IDLE_S: Final = 60.0
#: A sensor's sealing times keep the same distance to a clock within this.
_JITTER_S: Final = 60.0
#: Shortest time between two comparisons, and between two removals of silent sensors.
_LOOK_S: Final = 1.0


class Verdict(NamedTuple):
    """What the sensors' votes give."""

    sensors: int
    #: The median of the sensors' clocks, less the database's; 0 within the limit.
    ahead_s: float


@dataclass(slots=True)
class _Sensor:
    heard_s: float
    #: Sealing time (Unix time) less the monotonic time at which the batch arrived.
    lead_s: float
    #: Since when fresh batches have kept this lead; None if the last was not fresh.
    steady_since_s: float | None


class SensorClocks:
    """The sealing times of recent batches, by sensor."""

    def __init__(self, *, limit_s: float, sensors_min: int, steady_s: float) -> None:
        """Start without a batch.

        Args:
            limit_s: a clock that differs by more is wrong.
            sensors_min: fewer sensors give no verdict.
            steady_s: a sensor's clock counts as behind after it was so for this long.
        """
        self._limit_s, self._sensors_min, self._steady_s = limit_s, sensors_min, steady_s
        self._sensors: dict[str, _Sensor] = {}
        self._idle_s: float | None = None
        self._dropped_s = 0.0
        #: The last verdict, after the arguments that gave it.
        self._last: tuple[float, float | None, float, Verdict] | None = None

    def idle(self, at_s: float) -> None:
        """Note that the source has nothing to deliver, so the next batch is fresh."""
        self._idle_s = at_s

    def sealed(self, sensor: str, sealed_s: float, at_s: float) -> None:
        """Note a batch; `sensor` is the account that the broker vouches for."""
        fresh = self._idle_s is not None and at_s - self._idle_s <= _IDLE_S
        lead_s = sealed_s - at_s
        known = self._sensors.get(sensor)
        if known is None and len(self._sensors) >= _SENSORS_MAX:
            return
        steady_since_s = at_s if fresh else None
        if fresh and known is not None and abs(lead_s - known.lead_s) <= _JITTER_S:
            steady_since_s = at_s if known.steady_since_s is None else known.steady_since_s
        self._sensors[sensor] = _Sensor(at_s, lead_s, steady_since_s)

    def drop_silent(self, at_s: float) -> None:
        """Drop sensors that have sent nothing lately, so that they do not vote."""
        if at_s - self._dropped_s < _LOOK_S:
            return
        self._dropped_s = at_s
        self._sensors = {
            name: sensor
            for name, sensor in self._sensors.items()
            if at_s - sensor.heard_s <= _RECENT_S
        }

    def verdict(self, offset_s: float, accepted_ahead_s: float | None, at_s: float) -> Verdict:
        """Compare the sensors' clocks with the database's.

        Args:
            offset_s: the database's clock less the monotonic one.
            accepted_ahead_s: a difference that an operator accepted; it counts as none.
            at_s: the monotonic time.
        """
        if self._last is not None:
            last_offset_s, last_accepted_s, last_s, verdict = self._last
            same = last_accepted_s == accepted_ahead_s and abs(offset_s - last_offset_s) < _LOOK_S
            if same and at_s - last_s < _LOOK_S:
                return verdict
        verdict = self._verdict(offset_s, accepted_ahead_s)
        self._last = (offset_s, accepted_ahead_s, at_s, verdict)
        return verdict

    def _verdict(self, offset_s: float, accepted_ahead_s: float | None) -> Verdict:
        votes: list[float] = []
        for sensor in self._sensors.values():
            ahead_s = sensor.lead_s - offset_s
            if self._agrees(ahead_s, accepted_ahead_s):
                votes.append(0.0)
            elif ahead_s > 0 or self._is_steady(sensor):
                votes.append(ahead_s)
        if len(votes) < self._sensors_min:
            return Verdict(len(votes), 0.0)
        votes.sort()
        low_s, high_s = votes[(len(votes) - 1) // 2], votes[len(votes) // 2]
        # Of an even number both middle votes must be off on the same side: half is not a majority.
        agreed_s = min(low_s, high_s, key=abs) if low_s * high_s > 0 else 0.0
        return Verdict(len(votes), agreed_s)

    def _agrees(self, ahead_s: float, accepted_ahead_s: float | None) -> bool:
        if abs(ahead_s) <= self._limit_s:
            return True
        return accepted_ahead_s is not None and abs(ahead_s - accepted_ahead_s) <= self._limit_s

    def _is_steady(self, sensor: _Sensor) -> bool:
        since_s = sensor.steady_since_s
        return since_s is not None and sensor.heard_s - since_s >= self._steady_s
