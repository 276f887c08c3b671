"""Unit tests do not sleep: a clock is passed in, and what happens is awaited."""

from __future__ import annotations

import sys
import time

import pytest


@pytest.fixture(autouse=True)
def no_sleep(monkeypatch: pytest.MonkeyPatch) -> None:
    """A test that sleeps depends on the machine; what needs real time is an integration test."""
    sleep = time.sleep

    def refuse(seconds: float) -> None:
        if sys._getframe(1).f_globals["__name__"] == "subprocess":
            sleep(seconds)  # it waits for a child that way
            return
        pytest.fail(f"a unit test sleeps for {seconds} s: pass a clock in, or await the event")

    monkeypatch.setattr(time, "sleep", refuse)
