"""When the database's clock is in doubt, and what may be done during a doubt."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from smtpfeeds_aggregator.clock.database import (
    ClockInDoubt,
    ClockLimits,
    ClockState,
    DatabaseClock,
    Reading,
    Record,
    retention_from,
    span,
)
from smtpfeeds_aggregator.clock.offsets import Offsets

START = datetime(2026, 11, 23, 11, tzinfo=UTC)
HOUR, DAY = 3600.0, 86_400.0
STEPS = [
    pytest.param(step, id=name)
    for name, step in (
        ("an hour ahead", HOUR),
        ("an hour behind", -HOUR),
        ("40 days ahead", 40 * DAY),
        ("40 days behind", -40 * DAY),
        ("10 years ahead", 3650 * DAY),
        ("10 years behind", -3650 * DAY),
        ("to 1970", -START.timestamp()),
    )
]


class World:
    """A database's clock, a monotonic one, and sensors with clocks of their own."""

    def __init__(self, record: Record | None = None) -> None:
        self.at_s = 5000.0
        #: How far the database's clock is from the true time.
        self.wrong_s = 0.0
        self.record = record or Record(START, 0, None)
        self.clock = DatabaseClock(monotonic=lambda: self.at_s)
        self.sensors: dict[str, float] = {}

    @property
    def now(self) -> datetime:
        return START + timedelta(seconds=self.at_s - 5000 + self.wrong_s)

    def reading(self, took_s: float = 0.001) -> Reading:
        return Reading(self.at_s - took_s, self.at_s, self.now, self.record)

    def look(self, took_s: float = 0.001) -> ClockState:
        return self.clock.take(self.reading(took_s))

    def go_on(self, seconds: float, every_s: float = 2.0) -> ClockState:
        """Let time pass; sensors send one batch each minute."""
        state = self.look()
        until_s = self.at_s + seconds
        beat_s = self.at_s
        while self.at_s < until_s:
            self.at_s += every_s
            if self.at_s >= beat_s:
                beat_s += 60
                self.hear()
            state = self.look()
        return state

    def hear(self, late_s: float = 0.0) -> None:
        self.clock.idle()
        for name, wrong_s in self.sensors.items():
            self.seal(name, wrong_s - late_s)

    def seal(self, name: str, wrong_s: float) -> None:
        true_s = START.timestamp() + self.at_s - 5000
        self.clock.sealed(name, int((true_s + wrong_s) * 1000))

    @property
    def reasons(self) -> list[str]:
        return [doubt.reason for doubt in self.clock.state().doubts]


def test_clock_that_matches_the_monotonic_clock_is_not_in_doubt() -> None:
    world = World()
    world.sensors = {"a": 0, "b": -5, "c": 30}
    for _ in range(100):
        assert not world.go_on(30).doubts
    assert world.clock.check(world.reading()).now == world.now


@pytest.mark.parametrize("step_s", [1.0, -1.0, 59.0, -59.0])
def test_step_of_less_than_a_minute_raises_no_doubt(step_s: float) -> None:
    world = World()
    world.go_on(60)
    world.wrong_s += step_s
    assert not world.go_on(700).doubts


@pytest.mark.parametrize("step_s", STEPS)
def test_step_is_in_doubt_from_the_first_reading_until_steady_for_ten_minutes(
    step_s: float,
) -> None:
    world = World()
    world.go_on(60)
    world.wrong_s += step_s
    with pytest.raises(ClockInDoubt, match=r"moved by .*\(step\)"):
        world.clock.check(world.reading())
    world.go_on(590)
    assert "step" in world.reasons
    world.go_on(30)
    assert "step" not in world.reasons


def test_clock_that_steps_again_stays_in_doubt() -> None:
    world = World()
    world.go_on(60)
    for _ in range(10):
        world.wrong_s += 300
        assert "step" in [doubt.reason for doubt in world.go_on(300).doubts]


def test_small_steps_within_ten_minutes_add_up() -> None:
    world = World()
    for _ in range(3):
        world.go_on(60)
        world.wrong_s += 25
    world.look()
    assert world.reasons == ["step"]


def test_slow_drift_raises_no_doubt() -> None:
    """The clock drifts by ten seconds in ten minutes, far more than any real clock."""
    world = World()
    for _ in range(100):
        world.wrong_s += 1
        assert not world.go_on(60, every_s=10).doubts


def test_slow_answer_is_not_a_step_and_hides_no_step() -> None:
    world = World()
    world.go_on(60)
    world.at_s += 300
    world.clock.take(Reading(world.at_s - 300, world.at_s, world.now, world.record))
    assert not world.reasons
    stale = Reading(world.at_s - 300, world.at_s, world.now - timedelta(seconds=299), world.record)
    assert not world.clock.take(stale).doubts
    world.wrong_s += 400
    world.look()
    assert world.reasons == ["step"]


def test_step_during_an_outage_is_detected_afterwards() -> None:
    world = World()
    world.go_on(60)
    world.at_s += 5 * HOUR
    world.wrong_s += HOUR
    world.look()
    assert world.reasons == ["step"]
    world.go_on(620)
    assert world.reasons == []


@pytest.mark.parametrize("behind_s", [61.0, HOUR, 40 * DAY, 3650 * DAY])
def test_clock_earlier_than_the_newest_noted_time_is_in_doubt_at_the_start(
    behind_s: float,
) -> None:
    world = World()
    world.wrong_s = -behind_s
    with pytest.raises(ClockInDoubt, match=r"earlier than the newest time noted.*\(earlier\)"):
        world.clock.check(world.reading())
    world.go_on(900)
    assert "earlier" in world.reasons or behind_s < 900
    world.wrong_s = 0
    world.look()
    assert "earlier" not in world.reasons


def test_start_after_weeks_raises_no_doubt() -> None:
    record = Record(START - timedelta(days=60), 0, None)
    world = World(record)
    world.sensors = {"a": 0, "b": 0, "c": 0}
    assert not world.go_on(1000).doubts


@pytest.mark.parametrize("wrong_s", [-2 * HOUR, -40 * DAY, -3650 * DAY])
def test_clock_behind_three_sensors_is_in_doubt_at_their_first_batches(wrong_s: float) -> None:
    """Their sealing times are in its future, which no delay explains."""
    world = World(Record(datetime(2000, 1, 1, tzinfo=UTC), 0, None))
    world.wrong_s = wrong_s
    world.look()
    for name in ("a", "b"):
        world.seal(name, 0)
        world.at_s += 1.5
        world.look()
        assert world.reasons == []
    world.seal("c", 0)
    world.at_s += 1.5
    world.look()
    assert world.reasons == ["sensors"]


@pytest.mark.parametrize("wrong_s", [2 * HOUR, 40 * DAY, 3650 * DAY])
def test_clock_ahead_of_three_sensors_is_in_doubt_within_minutes(wrong_s: float) -> None:
    world = World()
    world.wrong_s = wrong_s
    world.sensors = {"a": 0, "b": 3, "c": -20}
    world.go_on(150)
    assert world.reasons == []
    world.go_on(150)
    assert world.reasons == ["sensors"]


def test_step_is_also_a_difference_from_known_sensors() -> None:
    world = World()
    world.sensors = {"a": 0, "b": 0, "c": 0}
    world.go_on(400)
    world.wrong_s = 40 * DAY
    world.look()
    assert world.reasons == ["step", "sensors"]
    world.go_on(620)
    assert world.reasons == ["sensors"]


def test_two_sensors_raise_no_doubt() -> None:
    world = World()
    world.wrong_s = 40 * DAY
    world.sensors = {"a": 0, "b": 0}
    world.go_on(1200)
    assert world.reasons == []


@pytest.mark.parametrize(
    ("sensors", "in_doubt"),
    [
        ({"a": 0.0, "b": 0.0, "c": 3650 * DAY}, False),  # one account cannot stop the centre
        ({"a": 0.0, "b": 0.0, "c": -3650 * DAY}, False),
        ({"a": 0.0, "b": 0.0, "c": -40 * DAY, "d": -40 * DAY}, False),  # half is not a majority
        ({"a": 0.0, "b": -40 * DAY, "c": 40 * DAY}, False),  # wrong on different sides
        ({"a": 0.0, "b": -40 * DAY, "c": -40 * DAY}, True),
        ({"a": 0.0, "b": 3600.0, "c": -3600.0}, False),  # an hour is not more than an hour
    ],
)
def test_majority_of_the_sensors_decides(sensors: dict[str, float], in_doubt: bool) -> None:
    world = World()
    world.sensors = sensors
    world.go_on(400)
    assert world.reasons == (["sensors"] if in_doubt else [])


def test_backlog_of_weeks_raises_no_doubt() -> None:
    """The broker kept batches while the aggregator was stopped; it was never idle since."""
    world = World()
    late_s = 21 * DAY
    while late_s > 0:
        for name in "abcd":
            world.seal(name, -late_s)
        late_s -= 60
        world.at_s += 0.1
        world.look()
        assert world.reasons == []
    world.sensors = dict.fromkeys("abcd", 0.0)
    assert not world.go_on(600).doubts


def test_backlog_with_a_constant_delay_raises_no_doubt() -> None:
    """Ingest is just fast enough: it never catches up, and is never idle."""
    world = World()
    for _ in range(600):
        for name in "abcd":
            world.seal(name, -5 * HOUR)
        world.at_s += 1
        world.look()
    assert world.reasons == []


def test_few_old_batches_after_an_outage_raise_no_doubt() -> None:
    """After an outage each sensor may have four sealed batches; then new ones follow."""
    world = World()
    world.sensors = {"a": 0, "b": 0, "c": 0}
    world.go_on(300)
    world.at_s += 5 * HOUR
    world.look()
    world.clock.idle()
    for _ in range(4):
        world.hear(late_s=5 * HOUR)
        world.at_s += 1
        world.look()
    assert world.reasons == []
    assert not world.go_on(600).doubts


def test_doubt_stays_without_batches_and_ends_with_the_difference() -> None:
    world = World()
    world.wrong_s = 40 * DAY
    world.sensors = {"a": 0, "b": 0, "c": 0}
    world.go_on(400)
    world.sensors = {}
    world.go_on(4 * HOUR, every_s=60)
    assert world.reasons == ["sensors"]
    world.wrong_s = 0
    world.look()
    assert world.reasons == ["step"]


def test_nothing_is_deleted_for_an_hour_after_the_start_and_after_a_doubt() -> None:
    world = World()
    world.go_on(HOUR - 10, every_s=10)
    assert world.clock.deletes_from() is None
    world.go_on(20)
    assert world.clock.deletes_from() == world.now
    world.wrong_s = HOUR
    world.look()
    assert world.clock.deletes_from() is None
    world.go_on(620)
    assert world.reasons == []
    assert world.clock.deletes_from() is None
    world.go_on(HOUR, every_s=10)
    assert world.clock.deletes_from() == world.now


def test_nothing_is_deleted_by_an_old_reading() -> None:
    world = World()
    world.go_on(HOUR + 10, every_s=10)
    world.at_s += 61
    assert world.clock.deletes_from() is None


def test_rows_expire_by_the_newest_noted_time_until_the_hour_is_over() -> None:
    """At a start 40 days ahead, a present event does not expire, and an old one does."""
    world = World()
    world.wrong_s = 40 * DAY
    times = world.clock.check(world.reading())
    assert times.expires_from == START
    retention = retention_from(times, timedelta(days=30))
    assert times.now - retention == START - timedelta(days=30)
    world.go_on(HOUR + 10, every_s=10)
    times = world.clock.check(world.reading())
    assert times.expires_from == times.now
    assert retention_from(times, timedelta(days=30)) == timedelta(days=30)


def accepted(world: World, ahead_s: float | None = None) -> None:
    world.record = Record(world.now, world.record.acceptances + 1, ahead_s)


@pytest.mark.parametrize("step_s", STEPS)
def test_accepted_clock_is_trusted_at_the_next_reading(step_s: float) -> None:
    world = World()
    world.sensors = {"a": 0, "b": 0, "c": 0}
    world.go_on(400)
    world.wrong_s = step_s
    state = world.look()
    assert state.doubts
    accepted(world, state.sensors_ahead_s or None)
    world.look()
    assert world.reasons == []
    world.go_on(1000)
    assert world.reasons == []


def test_acceptance_covers_one_difference_only() -> None:
    world = World()
    world.sensors = dict.fromkeys("abc", -40 * DAY)
    world.go_on(400)
    accepted(world, world.clock.state().sensors_ahead_s)
    world.go_on(60)
    assert world.reasons == []
    world.sensors = dict.fromkeys("abc", -80 * DAY)
    world.go_on(400)
    assert world.reasons == ["sensors"]
    world.sensors = dict.fromkeys("abc", 0.0)
    world.go_on(400)
    assert world.reasons == []


def recorded(*reasons: str) -> Record:
    return Record(START, 0, None, reasons)


def test_restart_does_not_end_a_step() -> None:
    world = World(recorded("step"))
    world.look()
    assert world.reasons == ["step"]
    world.go_on(590)
    assert world.reasons == ["step"]
    world.go_on(20)
    assert world.reasons == []


def test_restart_publishes_nothing_before_the_sensors_report_again() -> None:
    world = World(recorded("sensors"))
    world.wrong_s = 40 * DAY
    state = world.look()
    assert not state.doubts
    assert "too few sensors" in state.unconfirmed
    assert world.clock.check(world.reading()).expires_from == START
    with pytest.raises(ClockInDoubt, match="accept-clock"):
        world.clock.check_publication(world.reading())
    world.sensors = {"a": 0, "b": 0, "c": 0}
    world.go_on(400)
    assert world.reasons == ["sensors"]


def test_restart_with_a_corrected_clock_needs_no_operator() -> None:
    world = World(recorded("sensors"))
    world.sensors = {"a": 0, "b": 0, "c": 0}
    state = world.go_on(70)
    assert (state.doubts, state.unconfirmed) == ((), "")
    assert world.clock.check_publication(world.reading()) == world.now


def test_host_clock_is_used_before_the_first_reading() -> None:
    clock = DatabaseClock()
    assert abs(clock.now_s() - datetime.now(UTC).timestamp()) < 60
    assert clock.deletes_from() is None


def test_estimated_time_follows_the_database() -> None:
    world = World()
    world.wrong_s = 0.02
    world.look(took_s=0.002)
    world.at_s += 100
    assert abs(world.clock.now_s() - world.now.timestamp()) < 0.0011


@given(
    st.lists(
        st.tuples(st.floats(0, 700), st.floats(0, 50), st.floats(-0.5, 0.5)),
        min_size=1,
        max_size=60,
    )
)
def test_offset_within_its_bounds_is_never_a_step(
    readings: Sequence[tuple[float, float, float]],
) -> None:
    """However slow answers are, and at whatever point the clock was read."""
    offsets = Offsets(window_s=600, step_s=60)
    at_s = 0.0
    for pause_s, took_s, part in readings:
        before_s, at_s = at_s + pause_s, at_s + pause_s + took_s
        offsets.take(before_s, at_s, 1e9 + before_s + took_s * (part + 0.5))
        assert offsets.moved_s() == 0


@given(st.floats(61, 1e9), st.booleans(), st.floats(0, 600))
def test_step_is_seen_by_any_exact_reading(step_s: float, back: bool, pause_s: float) -> None:
    offsets = Offsets(window_s=600, step_s=60)
    offsets.take(0, 0, 1e9)
    offsets.take(pause_s, pause_s, 1e9 + pause_s + (-step_s if back else step_s))
    assert offsets.moved_s() > 60


def test_number_of_readings_is_bounded() -> None:
    offsets = Offsets(window_s=600, step_s=60)
    for second in range(100_000):
        offsets.take(second, second, 1e9 + second)
    assert len(offsets._spans) <= 62


def test_number_of_watched_sensors_is_bounded() -> None:
    world = World()
    world.look()
    for number in range(10_050):
        world.seal(f"sensor-{number}", 0)
    assert len(world.clock._sensors._sensors) == 10_000
    world.at_s += 700
    world.look()
    assert len(world.clock._sensors._sensors) == 0


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(61, "61 s"), (3600, "60 minutes"), (-7200, "-2 hours"), (40 * DAY, "40 days")],
)
def test_duration_is_shown_in_its_largest_unit(seconds: float, text: str) -> None:
    assert span(seconds) == text


def test_limits_are_those_of_the_documentation() -> None:
    limits = ClockLimits()
    assert (limits.step_s, limits.steady_s) == (60, 600)
    assert (limits.settle_s, limits.sensors_differ_s, limits.sensors_min) == (3600, 3600, 3)
