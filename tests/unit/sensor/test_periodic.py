"""Periodic calls continue after an error of one of them."""

from __future__ import annotations

from typing import cast

import pytest
from twisted.internet.task import Clock

from smtpfeeds_sensor.edge.periodic import Periodic
from smtpfeeds_sensor.edge.reactor import Reactor


def test_periodic_call_continues_after_an_error(caplog: pytest.LogCaptureFixture) -> None:
    clock = Clock()
    periodic = Periodic(cast("Reactor", clock))
    calls: list[float] = []

    def call() -> None:
        calls.append(clock.seconds())
        if len(calls) == 2:
            raise RuntimeError("a surprise")

    periodic.every(10, call, name="something")
    clock.pump([10] * 5)
    assert calls == [10, 20, 30, 40, 50]
    assert caplog.text.count("RuntimeError: a surprise") == 1
    assert "periodic call failed; it continues" in caplog.text
    periodic.stop()
    clock.pump([10] * 5)
    assert len(calls) == 5


def test_late_call_gets_how_many_intervals_have_passed() -> None:
    clock = Clock()
    periodic = Periodic(cast("Reactor", clock))
    passed: list[int] = []
    periodic.every_counted(1, passed.append, name="ticks")
    clock.advance(1)
    clock.advance(4)
    assert passed == [1, 4]
    periodic.stop()
