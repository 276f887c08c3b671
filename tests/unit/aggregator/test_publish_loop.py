"""When the publishing loop runs, if the database's clock is set."""

from __future__ import annotations

import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from smtpfeeds_aggregator.clock.database import DatabaseClock, Reading, Record
from smtpfeeds_aggregator.health import Health
from smtpfeeds_aggregator.metrics import Metrics
from smtpfeeds_aggregator.publish.once import Published
from smtpfeeds_aggregator.publish.service import PublishLoop
from smtpfeeds_aggregator.settings import AggregatorSettings
from smtpfeeds_aggregator.store.connection import Connection
from smtpfeeds_common.errors import DatabaseUnavailable

START = datetime(2026, 11, 23, 11, tzinfo=UTC)


class NeverRuns:
    """A runner that never runs, because the database is unavailable."""

    def run(self, unless_made_since: datetime, stop: threading.Event, /) -> Published | None:
        raise AssertionError("nothing is due")


class Waits(threading.Event):
    """A stop event that records the waits of the loop, and is set after a number of them."""

    def __init__(self, most: int, at_first: Callable[[], None]) -> None:
        super().__init__()
        self._most, self._at_first = most, at_first
        self.waits_s: list[float] = []

    def wait(self, timeout: float | None = None) -> bool:
        assert timeout is not None
        self.waits_s.append(timeout)
        if len(self.waits_s) == 1:
            self._at_first()
        if len(self.waits_s) == self._most:
            self.set()
        return self.is_set()


@pytest.mark.parametrize("back", [timedelta(hours=1), timedelta(days=3650)], ids=str)
def test_loop_waits_by_a_clock_that_was_set_back(tmp_path: Path, back: timedelta) -> None:
    clock = DatabaseClock(monotonic=lambda: 5000.0)

    def show(now: datetime) -> None:
        clock.take(Reading(5000.0, 5000.0, now, Record(START, 0, None)))

    def unreachable(_: AggregatorSettings) -> Connection:
        raise DatabaseUnavailable("not here")

    show(START)
    settings = AggregatorSettings(feeds_dir=str(tmp_path), publish_interval_s=2)
    loop = PublishLoop(settings, NeverRuns(), clock, Metrics(), Health(), connect=unreachable)
    stop = Waits(2, lambda: show(START - back))
    loop.run(stop)
    assert stop.waits_s == [2.0, 2.0]
