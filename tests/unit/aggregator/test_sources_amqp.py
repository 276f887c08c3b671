"""The consumer without a real broker: what ends it, what does not, how often it retries."""

from __future__ import annotations

import threading
from functools import partial
from types import SimpleNamespace
from typing import Any

import pytest
from pika.exceptions import ChannelClosedByBroker

from ingest_support import MemoryLedger, settings_of
from smtpfeeds_aggregator.metrics import Metrics
from smtpfeeds_aggregator.settings import AggregatorSettings
from smtpfeeds_aggregator.sources import broker
from smtpfeeds_aggregator.sources.amqp import AmqpSource
from smtpfeeds_aggregator.sources.refusal_counts import RefusalCounter
from smtpfeeds_aggregator.sources.refused import RefusedPublisher
from smtpfeeds_common.backoff import Backoff
from smtpfeeds_common.errors import BrokerUnavailable, SettingsError


class Connection(SimpleNamespace):
    """A connection without deliveries."""

    is_open = True

    def process_data_events(self, time_limit: float) -> None: ...

    def add_callback_threadsafe(self, what: Any) -> None: ...

    def channel(self) -> Any:
        return SimpleNamespace(
            is_open=True,
            consumer_tags=["tag"],
            basic_qos=lambda **_: None,
            basic_consume=lambda *_: None,
            close=lambda: None,
        )

    def close(self) -> None: ...


class Stop(threading.Event):
    """Records the waits, and is set after a number of them."""

    def __init__(self, times: int) -> None:
        super().__init__()
        self.waited: list[float] = []
        self._times = times

    def wait(self, timeout: float | None = None) -> bool:
        self.waited.append(timeout or 0.0)
        if len(self.waited) >= self._times:
            self.set()
        return self.is_set()


@pytest.fixture
def source(monkeypatch: pytest.MonkeyPatch) -> AmqpSource:
    monkeypatch.setattr(broker, "connect", lambda *_: Connection())
    monkeypatch.setattr(broker, "declare", lambda *_: None)
    return AmqpSource(settings_of("", "amqp://127.0.0.1"), Metrics(), MemoryLedger())


@pytest.fixture
def no_jitter(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("smtpfeeds_aggregator.sources.amqp.Backoff", partial(Backoff, rng=None))


@pytest.mark.parametrize("part", [RefusedPublisher, RefusalCounter])
def test_end_of_a_thread_for_refused_messages_is_reported(
    source: AmqpSource, monkeypatch: pytest.MonkeyPatch, part: type
) -> None:
    """Otherwise refused messages fill the prefetch, and no batch arrives."""
    monkeypatch.setattr(part, "run", lambda *_: None)
    with pytest.raises(RuntimeError, match="refused"):
        source.run(threading.Event())


def test_end_of_a_thread_is_noticed_while_the_broker_is_away(
    source: AmqpSource, monkeypatch: pytest.MonkeyPatch
) -> None:
    def away(*_: object) -> Connection:
        raise BrokerUnavailable

    monkeypatch.setattr(RefusedPublisher, "run", lambda *_: None)
    monkeypatch.setattr(broker, "connect", away)
    with pytest.raises(RuntimeError, match="refused"):
        source.run(Stop(100_000))


@pytest.mark.usefixtures("no_jitter")
def test_retries_slow_down_if_the_broker_refuses_the_queue(
    source: AmqpSource, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It accepts the connection each time, which alone is not a success."""

    def refused(*_: object) -> None:
        raise ChannelClosedByBroker(404, "NOT_FOUND - no queue")

    monkeypatch.setattr(RefusedPublisher, "run", lambda _, stop: threading.Event.wait(stop))
    monkeypatch.setattr(broker, "declare", refused)
    stop = Stop(7)
    source.run(stop)
    assert stop.waited == [0.5, 1.0, 2.0, 4.0, 5.0, 5.0, 5.0]


@pytest.mark.usefixtures("no_jitter")
def test_password_file_during_replacement_does_not_end_the_source(
    source: AmqpSource, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unreadable(*_: object) -> Connection:
        raise SettingsError("broker_password_file: cannot read it")

    monkeypatch.setattr(RefusedPublisher, "run", lambda _, stop: threading.Event.wait(stop))
    monkeypatch.setattr(broker, "connect", unreadable)
    stop = Stop(2)
    source.run(stop)
    assert stop.waited == [0.5, 1.0]


def test_settings_are_read_before_anything_runs() -> None:
    with pytest.raises(SettingsError, match="is not amqp://"):
        AmqpSource(AggregatorSettings(broker=("amqp://host:port",)), Metrics(), MemoryLedger())
