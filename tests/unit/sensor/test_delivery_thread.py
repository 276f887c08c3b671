"""The delivery thread survives every exception; if it ends, it is started again."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from smtpfeeds_sensor.delivery import thread as thread_module
from smtpfeeds_sensor.delivery.thread import DeliveryThread

#: A machine under load takes its time.
LIMIT_S = 30


class Work:
    """Raises each given exception once, at its given place."""

    def __init__(self) -> None:
        self.raises: dict[str, BaseException] = {}
        self.steps = self.closed = 0
        self.reports_damage = False
        self.went_on = threading.Event()

    def _maybe_raise(self, place: str) -> None:
        if place in self.raises:
            raise self.raises.pop(place)

    def step(self) -> float:
        self.steps += 1
        if self.steps > 1 and not self.raises:
            self.went_on.set()
        self._maybe_raise("step")
        return 0.001

    def idle(self, wait_s: float, stopping: threading.Event) -> None:
        self._maybe_raise("idle")
        stopping.wait(wait_s)

    def gauges(self) -> dict[str, float]:
        return {}

    def interrupt(self) -> None:
        pass

    def close(self) -> None:
        self.closed += 1
        self._maybe_raise("close")


@pytest.fixture
def work(monkeypatch: pytest.MonkeyPatch) -> Work:
    monkeypatch.setattr(thread_module, "_UNEXPECTED_WAIT_S", 0.001)
    return Work()


def end(thread: DeliveryThread) -> None:
    thread.ask_to_stop()
    thread.join(LIMIT_S)
    assert not thread._thread.is_alive()


@pytest.mark.parametrize("place", ["step", "idle"])
def test_unexpected_error_does_not_end_the_thread(
    work: Work, place: str, caplog: pytest.LogCaptureFixture
) -> None:
    work.raises[place] = RuntimeError("a surprise")
    thread = DeliveryThread(work, Path("s.spool"))
    thread.start()
    assert work.went_on.wait(LIMIT_S)
    assert "a surprise" in caplog.text
    assert work.closed == 1, "what was open is opened again"
    end(thread)
    assert work.closed == 2


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
@pytest.mark.parametrize(
    "raises",
    [
        {"step": SystemExit()},
        {"idle": SystemExit()},
        {"step": RuntimeError("x"), "close": RuntimeError("y")},
    ],
)
def test_thread_that_ended_is_started_again(
    work: Work, raises: dict[str, BaseException], caplog: pytest.LogCaptureFixture
) -> None:
    work.raises = dict(raises)
    thread = DeliveryThread(work, Path("s.spool"))
    thread.start()
    thread._thread.join(LIMIT_S)
    assert not thread._thread.is_alive()
    thread.look_after()
    assert work.went_on.wait(LIMIT_S)
    assert "delivery thread ended; it is started again" in caplog.text
    end(thread)
    thread.look_after()
    assert not thread._thread.is_alive(), "one that was asked to end stays so"


def test_running_thread_is_not_started_again(work: Work) -> None:
    thread = DeliveryThread(work, Path("s.spool"))
    thread.start()
    before: Callable[[], object] = thread._thread.is_alive
    thread.look_after()
    assert thread._thread.is_alive == before
    end(thread)
