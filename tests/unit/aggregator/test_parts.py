"""Threads of the aggregator never end unnoticed."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

import pytest

from smtpfeeds_aggregator.clock.database import DatabaseClock
from smtpfeeds_aggregator.health import Health
from smtpfeeds_aggregator.maintenance import Maintenance
from smtpfeeds_aggregator.metrics import Metrics
from smtpfeeds_aggregator.parts import Part
from smtpfeeds_aggregator.settings import AggregatorSettings
from smtpfeeds_common.backoff import Backoff


def failing(times: int, then: threading.Event) -> Callable[[threading.Event], None]:
    """Fails so many times, then runs until it is asked to stop."""
    left = [times]

    def run(stop: threading.Event) -> None:
        if left[0]:
            left[0] -= 1
            raise ZeroDivisionError
        then.set()
        stop.wait()

    return run


def test_part_that_moves_batches_fails_for_good(caplog: pytest.LogCaptureFixture) -> None:
    part = Part("store", failing(1, threading.Event()), Health())
    part.start()
    part._thread.join(60)
    assert part.failed
    assert not part.alive
    assert caplog.messages == ["part failed"]


def test_part_that_ends_without_a_stop_has_failed(caplog: pytest.LogCaptureFixture) -> None:
    part = Part("store", lambda stop: None, Health())
    part.start()
    part._thread.join(60)
    assert part.failed
    assert caplog.messages == ["part ended unexpectedly"]


def test_periodic_part_runs_again_and_is_reported_until_then(
    caplog: pytest.LogCaptureFixture,
) -> None:
    runs, health = threading.Event(), Health()
    at_once = Backoff(0, rng=None)
    part = Part("publish", failing(3, runs), health, runs_again=True, backoff=at_once)
    part.start()
    assert runs.wait(60)
    assert caplog.messages == ["part failed"] * 3
    assert health.problems() == ["publish thread: it failed and runs again; see the log"]
    part.look()
    assert health.problems() != [], "it has only just begun"
    part._troubled_s = -1000.0
    part.look()
    assert health.problems() == []
    part.end(30)
    assert not part.alive
    assert not part.failed


def test_part_that_waits_to_run_again_stops_at_once() -> None:
    part = Part("publish", failing(1, threading.Event()), Health(), runs_again=True)
    part.start()
    part.end(30)
    assert not part.alive
    assert not part.failed


def test_maintenance_continues_after_a_failed_round(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    stop = threading.Event()
    rounds: list[int] = []

    def round_(_: Maintenance, stop: threading.Event) -> None:
        rounds.append(1)
        if len(rounds) == 3:
            stop.set()
        raise ZeroDivisionError

    monkeypatch.setattr(Maintenance, "_round", round_)
    monkeypatch.setattr("smtpfeeds_aggregator.maintenance._COMPACT_EVERY_S", 0.0)
    Maintenance(AggregatorSettings(), DatabaseClock(), Metrics(), Health()).run(stop)
    assert len(rounds) == 3
    assert caplog.messages == ["maintenance failed; the next round tries again"] * 3
