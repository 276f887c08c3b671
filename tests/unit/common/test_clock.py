"""The clock: when the wall clock is trusted, and what a reading contains while it is not."""

import pytest

from smtpfeeds_common.clock import EARLIEST_MS, LATEST_MS, STEP_MS, Clock, Reading

NOW = 1_795_000_000_000
HOUR = 3_600_000
DAY = 24 * HOUR


class Host:
    """A host whose clocks a test sets."""

    def __init__(self, utc_ms: int = NOW) -> None:
        self.utc_ms, self.elapsed_ms = utc_ms, 5_000
        self.clock = Clock(
            steady_s=120,
            utc_ms=lambda: self.utc_ms,
            elapsed_ms=lambda: self.elapsed_ms,
            boot="a",
        )

    def wait(self, ms: int) -> None:
        self.utc_ms += ms
        self.elapsed_ms += ms

    def trusted(self) -> bool:
        return self.clock.read().utc_ms is not None


def test_both_clocks_are_read_together() -> None:
    host = Host()
    host.wait(250)
    assert host.clock.read() == Reading(NOW + 250, 5_250, "a")
    assert host.clock.doubt == ""


@pytest.mark.parametrize("step", [-HOUR, HOUR, -40 * DAY, 40 * DAY, 3650 * DAY, STEP_MS + 1])
def test_step_is_noticed_at_the_next_reading_and_doubted_until_the_clock_is_steady(
    step: int,
) -> None:
    host = Host()
    host.utc_ms += step
    assert host.clock.read() == Reading(None, 5_000, "a")
    assert "stepped by" in host.clock.doubt
    host.wait(119_999)
    assert not host.trusted()
    host.wait(1)
    assert host.clock.read().utc_ms == NOW + step + 120_000
    assert host.clock.doubt == ""


def test_step_within_a_minute_and_slow_drift_are_believed() -> None:
    host = Host()
    for step in (1_000, -1_000, STEP_MS, -STEP_MS):
        host.utc_ms += step
        assert host.trusted()
    for _ in range(1_000):
        host.wait(1_000)
        host.utc_ms += 500
        assert host.trusted()


def test_each_step_begins_the_wait_anew() -> None:
    host = Host()
    host.utc_ms += HOUR
    assert not host.trusted()
    host.wait(100_000)
    host.utc_ms -= HOUR
    assert not host.trusted()
    host.wait(100_000)
    assert not host.trusted()
    host.wait(20_000)
    assert host.trusted()


@pytest.mark.parametrize("utc_ms", [0, EARLIEST_MS - 2 * DAY, LATEST_MS, -5])
def test_impossible_time_is_never_believed_however_long_it_lasts(utc_ms: int) -> None:
    host = Host(utc_ms)
    assert not host.trusted()
    host.wait(DAY)
    assert not host.trusted()
    assert "impossible" in host.clock.doubt
    host.utc_ms = NOW
    assert "stepped by" in host.clock.doubt
    host.wait(120_000)
    assert host.trusted()


def test_edges_of_what_is_possible() -> None:
    assert Host(EARLIEST_MS).trusted()
    assert not Host(EARLIEST_MS - 1).trusted()
    assert Host(LATEST_MS - 1).trusted()
    assert not Host(LATEST_MS).trusted()


def test_clock_behind_what_was_noted_before_the_start_is_doubted() -> None:
    host = Host()
    host.clock.compare(NOW + STEP_MS)
    host.clock.compare(None)
    assert host.trusted()
    host.clock.compare(NOW + DAY)
    assert not host.trusted()
    host.wait(120_000)
    assert host.trusted(), "the noted time may itself have been the wrong one"


def test_real_clocks_go_on() -> None:
    clock = Clock()
    first, second = clock.read(), clock.read()
    assert first.utc_ms is not None
    assert second.elapsed_ms >= first.elapsed_ms > 0
    assert first.boot == second.boot == Clock().read().boot != ""
