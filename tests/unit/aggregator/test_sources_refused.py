"""The thread that keeps refused messages survives any message."""

from __future__ import annotations

import pytest
from pika import BasicProperties
from pika.exceptions import ConnectionBlockedTimeout, StreamLostError

from ingest_support import delivery_of, settings_of
from ingest_support.stepped import SteppedStop, SteppedTime
from smtpfeeds_aggregator.accounts import RefusalCode
from smtpfeeds_aggregator.sources import Delivery, Refusal, broker, refused
from smtpfeeds_aggregator.sources.refused import RefusedPublisher, Sample


class Channel:
    """A broker that accepts all messages, and encodes them first, like pika."""

    def __init__(self) -> None:
        self.published: list[tuple[bytes, BasicProperties]] = []
        self.faults = 0
        self.blocks = False
        self.ends_when_idle = False

    def confirm_delivery(self) -> None: ...

    def basic_publish(
        self,
        _exchange: str,
        _key: str,
        body: bytes,
        properties: BasicProperties,
        *,
        mandatory: bool,
    ) -> None:
        if self.faults:
            self.faults -= 1
            raise TypeError("a fault of ours")
        if self.blocks:
            raise ConnectionBlockedTimeout("Blocked connection timeout expired.")
        properties.encode()
        self.published.append((body, properties))


class Connection:
    is_open = True

    def __init__(self, channel: Channel) -> None:
        self._channel = channel

    def channel(self) -> Channel:
        return self._channel

    def process_data_events(self, time_limit: float) -> None:
        if self._channel.ends_when_idle:
            raise StreamLostError("Stream connection lost")

    def close(self) -> None: ...


@pytest.fixture
def channel(monkeypatch: pytest.MonkeyPatch) -> Channel:
    channel = Channel()
    monkeypatch.setattr(broker, "connect", lambda *_: Connection(channel))
    monkeypatch.setattr(broker, "declare_refused", lambda *_: None)
    return channel


def publish(samples: list[Sample], waiting_max: int = 50) -> list[Delivery]:
    """Run a publisher until all samples are acknowledged, with a clock of its own."""
    acknowledged: list[Delivery] = []
    stop = SteppedStop(SteppedTime())

    def acknowledge(deliveries: list[Delivery]) -> None:
        acknowledged.extend(deliveries)
        if len(acknowledged) == len(samples):
            stop.set()

    settings = settings_of("", "amqp://127.0.0.1")
    publisher = RefusedPublisher(
        settings, "centre", acknowledge, lambda _: True, lambda: waiting_max
    )
    for each in samples:
        publisher.put(each)
    publisher.run(stop)
    return acknowledged


def sample(reason: str, account: str = "s1") -> Sample:
    refusal = Refusal(RefusalCode.NOT_A_BATCH, reason, b"junk")
    return Sample(delivery_of(b"junk", account), refusal, 4)


def test_reason_with_invalid_text_is_kept(channel: Channel) -> None:
    publish([sample("it says '\ud800'", "s\udcff")])
    ((_, properties),) = channel.published
    assert properties.headers is not None
    assert properties.headers[refused.REASON_HEADER] == "it says '?'"
    assert properties.headers[refused.ACCOUNT_HEADER] == "s?"


def test_bug_does_not_end_the_thread_and_the_message_is_tried_again(
    channel: Channel, caplog: pytest.LogCaptureFixture
) -> None:
    channel.faults = 2
    publish([sample("one"), sample("two")])
    assert len(channel.published) == 2
    assert "TypeError: a fault of ours" in caplog.text


def test_samples_past_the_bound_are_given_up_while_the_broker_blocks(
    channel: Channel, caplog: pytest.LogCaptureFixture
) -> None:
    channel.blocks = True
    acknowledged = publish([sample("one"), sample("two"), sample("three")], waiting_max=2)
    assert (len(acknowledged), channel.published) == (3, [])
    assert "counted and not kept" in caplog.text


def test_samples_within_the_bound_wait_until_the_broker_accepts_them(channel: Channel) -> None:
    """So a bound of messages, not a short trouble of the broker, decides what is not kept."""
    channel.faults = 2
    assert len(publish([sample("one"), sample("two")], waiting_max=2)) == 2
    assert len(channel.published) == 2


def test_sample_is_kept_and_acknowledged_once_although_its_connection_ends_afterwards(
    channel: Channel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The broker closes a channel that acknowledges a delivery twice."""
    monkeypatch.setattr(refused, "_TICK_S", 0)
    channel.ends_when_idle = True
    acknowledged: list[Delivery] = []
    stop = SteppedStop(SteppedTime())
    settings = settings_of("", "amqp://127.0.0.1")
    publisher = RefusedPublisher(
        settings, "centre", acknowledged.extend, lambda _: True, lambda: 50
    )
    publisher.put(sample("one"))
    publisher.turn(stop)
    publisher.turn(stop)
    assert (len(acknowledged), len(channel.published)) == (1, 1)
