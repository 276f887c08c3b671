"""Signals of a program with its own main loop."""

from __future__ import annotations

import signal
from collections.abc import Iterator

import pytest

from smtpfeeds_common.signals import Signals


@pytest.fixture
def signals() -> Iterator[Signals]:
    numbers = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
    before = {number: signal.getsignal(number) for number in numbers}
    signals = Signals().install()
    yield signals
    for number, handler in before.items():
        signal.signal(number, handler)
    signals.close()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_stop_signal_ends_a_wait_at_once(signals: Signals, number: signal.Signals) -> None:
    signal.raise_signal(number)
    signals.wait(3600)  # past the time limit of a test
    assert signals.stop


def test_hangup_asks_for_one_reload_and_no_stop(signals: Signals) -> None:
    signal.raise_signal(signal.SIGHUP)
    signals.wait(3600)
    assert signals.take_reload()
    assert not signals.take_reload()
    assert not signals.stop


def test_many_signals_do_not_block(signals: Signals) -> None:
    """While a program is busy, its pipe fills up."""
    for _ in range(70_000):
        signals.ask_to_stop()
    signals.wait(3600)
    assert signals.stop


def test_wait_ends_at_its_limit(signals: Signals) -> None:
    signals.wait(0)
    assert not signals.stop
