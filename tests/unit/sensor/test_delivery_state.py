"""The states of a delivery: what each outcome leads to, what is logged, how long it waits."""

from __future__ import annotations

import itertools

import pytest

from smtpfeeds_common.backoff import Backoff
from smtpfeeds_sensor.delivery.state import ALARM_S, SPOOL_RETRY_S, Outcome, Progress


class Set:
    def __init__(self) -> None:
        self.now_s = 50.0
        self.progress = Progress(
            interval_s=1.0, backoff=Backoff(60, rng=lambda: 1.0), monotonic=lambda: self.now_s
        )


def reason_of(outcome: Outcome) -> str:
    return "" if outcome is Outcome.WORKED else f"because of {outcome.name}"


@pytest.mark.parametrize(("before", "outcome"), list(itertools.product(Outcome, Outcome)))
def test_outcome_alone_gives_the_next_state(
    before: Outcome, outcome: Outcome, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    parts = Set()
    parts.progress.note(before, reason_of(before))
    caplog.clear()
    wait_s = parts.progress.note(outcome, reason_of(outcome))
    assert parts.progress.state is outcome.value
    assert parts.progress.reason == reason_of(outcome)
    if outcome is Outcome.SPOOL_FAILED:
        assert wait_s == SPOOL_RETRY_S
    else:
        assert 0 < wait_s <= 1.0
    assert bool(caplog.records) is (before is not outcome)
    if caplog.records and outcome is Outcome.WORKED:
        assert caplog.messages == ["delivering again"]
    elif caplog.records:
        assert caplog.messages == [outcome.value.value]


def test_first_successful_run_logs_nothing(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    Set().progress.note(Outcome.WORKED)
    assert caplog.records == []


def test_wait_for_the_broker_grows_until_it_works() -> None:
    parts = Set()
    waits = []
    for outcome in (Outcome.UNAVAILABLE, Outcome.REFUSED, Outcome.UNAVAILABLE):
        parts.progress.note(outcome, "x")
        waits.append(parts.progress.broker_wait_s())
        parts.now_s += waits[-1]
        assert parts.progress.broker_wait_s() == 0
    assert waits == [0.5, 1.0, 2.0]
    parts.progress.note(Outcome.WORKED)
    parts.progress.note(Outcome.UNAVAILABLE, "x")
    assert parts.progress.broker_wait_s() == 0.5


def test_fault_of_the_spool_does_not_shorten_the_wait_for_the_broker() -> None:
    parts = Set()
    for _ in range(5):
        parts.progress.note(Outcome.UNAVAILABLE, "x")
    parts.progress.note(Outcome.SPOOL_FAILED, "disk full")
    assert parts.progress.broker_wait_s() == 8.0


@pytest.mark.parametrize("outcome", [Outcome.REFUSED, Outcome.SPOOL_FAILED, Outcome.CLOCK_IN_DOUBT])
def test_permanent_fault_is_logged_every_five_minutes(
    outcome: Outcome, caplog: pytest.LogCaptureFixture
) -> None:
    parts = Set()
    for _ in range(int(ALARM_S) * 2 + 1):
        parts.progress.note(outcome, "x")
        parts.now_s += 1
    assert len(caplog.records) == 3
    assert {record.levelname for record in caplog.records} == {"ERROR"}


def test_absent_broker_is_logged_once_for_each_reason(caplog: pytest.LogCaptureFixture) -> None:
    parts = Set()
    for reason in ("no route", "no route", "refused", "refused"):
        parts.progress.note(Outcome.UNAVAILABLE, reason)
        parts.now_s += ALARM_S
    assert [record.levelname for record in caplog.records] == ["WARNING"] * 2
