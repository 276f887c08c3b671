"""Hostile message properties through a real RabbitMQ cost only their own message."""

from __future__ import annotations

import dataclasses
import socket
import struct
import threading
import uuid
from collections.abc import Iterator

import pytest

from ingest_support import Publisher, Table, greet, made_batch, running, settings_of, until
from ingest_support.fixtures import dsn, table  # noqa: F401 - fixtures
from servers.fixtures import Vhost
from servers.raw_amqp import (
    APP_ID,
    HEADERS,
    MESSAGE_ID,
    TIMESTAMP,
    USER_ID,
    RawPublisher,
    RefusedByBrokerError,
    header,
    long,
    properties,
    short,
)
from smtpfeeds_aggregator.service import Service
from smtpfeeds_aggregator.sources.dead_letters import DeadLetters
from smtpfeeds_common.errors import BrokerUnavailable
from smtpfeeds_common.topology import EXCHANGE, QUEUE, REFUSED_QUEUE
from smtpfeeds_common.wire import encode
from smtpfeeds_sensor.delivery.publisher import BrokerLink
from smtpfeeds_sensor.settings import SensorSettings

# ruff: noqa: F811 - fixtures are imported by name and used by name

S1 = short(b"s1")


def nested(kind: bytes, depth: int) -> bytes:
    value = b""
    for _ in range(depth):
        value = header(b"a", kind, long(value)) if kind == b"F" else kind + long(value)
    return header(b"deep", b"A", long(value)) if kind == b"A" else value


def with_headers(*entries: bytes) -> bytes:
    return properties(HEADERS | USER_ID, long(b"".join(entries)), S1)


#: Each is confirmed by RabbitMQ, or refused by it at the sender's cost.
HOSTILE = {
    "a time past every calendar": with_headers(header(b"t", b"T", b"\xff" * 8)),
    "a kind that nobody knows": with_headers(header(b"z", b"Z", b"1234")),
    "tables 2,000 deep": with_headers(nested(b"F", 2_000)),
    "tables 4,000 deep": with_headers(nested(b"F", 4_000)),
    "arrays 4,000 deep": with_headers(nested(b"A", 4_000)),
    "a name that is not UTF-8": with_headers(header(b"\xff", b"S", long(b"x"))),
    "a text that is not UTF-8": with_headers(header(b"k", b"S", long(b"\xff"))),
    "a decimal beyond all": with_headers(header(b"d", b"D", b"\xff\x7f\xff\xff\xff")),
    "no number": with_headers(header(b"f", b"f", struct.pack(">f", float("nan")))),
    "a table longer than its frame": properties(HEADERS, struct.pack(">I", 2**31)),
    "our own headers, as a time": with_headers(header(b"x-smtpfeeds-account", b"T", b"\xff" * 8)),
    "our own headers, of another": with_headers(header(b"x-smtpfeeds-account", b"S", long(b"s2"))),
    "a message id that is not UTF-8": properties(MESSAGE_ID | USER_ID, short(b"\xff"), S1),
    "a timestamp past every calendar": properties(TIMESTAMP | USER_ID, b"\xff" * 8, S1),
    "an app id that is not UTF-8": properties(USER_ID | APP_ID, S1, short(b"\xff")),
    "a header as large as a frame": with_headers(header(b"k", b"S", long(bytes(131_000)))),
}


@pytest.fixture
def service(vhost: Vhost, dsn: str) -> Iterator[Service]:
    with running(settings_of(dsn, vhost.url)) as service:
        until(lambda: service._source.consuming, "the aggregator consumes")
        yield service


@pytest.fixture
def s1(vhost: Vhost, service: Service) -> str:
    return vhost.add_account("s1", write=f"^{EXCHANGE}$", topics={EXCHANGE: r"^observations\.s1$"})


def sample(service: Service, name: str) -> float:
    return service.metrics.registry.get_sample_value(f"smtpfeeds_ingest_{name}_total") or 0.0


def left_in(vhost: Vhost, queue: str) -> int:
    asking = Publisher(vhost.url, None)
    count = asking.channel.queue_declare(queue, passive=True).method.message_count
    asking.close()
    return int(count)


def publish_raw(url: str, exchange: str, key: bytes, encoded: bytes, body: bytes) -> bool:
    """Publish; return whether the broker confirmed it."""
    with RawPublisher(url) as raw:
        try:
            raw.publish(exchange, key, encoded, body)
        except RefusedByBrokerError:
            return False
    return True


def test_batch_with_hostile_properties_counts_and_later_batches_too(
    service: Service, s1: str, vhost: Vhost, table: Table
) -> None:
    """It is a batch from its own account, so it counts; the consumer continues after it."""
    spool, honest = uuid.uuid4(), Publisher(s1, "s1")
    confirmed = 0
    for number, encoded in enumerate(HOSTILE.values(), 1):
        body = encode(made_batch(greet("192.0.2.1"), spool=spool, seq=number))
        confirmed += publish_raw(s1, EXCHANGE, b"observations.s1", encoded, body)
        honest.publish(made_batch(greet("192.0.2.2"), spool=spool, seq=1000 + number))
    honest.close()
    assert confirmed >= 12, "of these a broker confirms nearly all"
    counted = {("192.0.2.1", "smtpgreet"): confirmed, ("192.0.2.2", "smtpgreet"): len(HOSTILE)}
    until(lambda: table.hits() == counted, "all that was confirmed counts, once")
    until(lambda: left_in(vhost, QUEUE) == 0, "nothing is left")
    assert (sample(service, "broker_losses"), sample(service, "redelivered")) == (0, 0)


def test_message_with_an_unreadable_sender_is_refused_with_the_reason(
    service: Service, vhost: Vhost, table: Table
) -> None:
    """The account may set any user_id, as an operator's tools can."""
    vhost.node.admin.add_user("tool", "password", tags="impersonator")
    vhost.node.admin.permit("tool", vhost.name, write=".*")
    url = vhost.node.url(vhost.name, "tool", "password")
    encoded = properties(USER_ID, short(b"\xff\xfe"))
    assert publish_raw(url, EXCHANGE, b"observations.\xff", encoded, encode(made_batch()))
    until(lambda: left_in(vhost, REFUSED_QUEUE) == 1, "it is refused")
    (letter,) = DeadLetters(settings_of("", vhost.url)).read(10)
    assert (letter.account, letter.kind) == ("", "message")
    assert "user_id is not UTF-8" in letter.reason


def test_dead_letters_with_hostile_properties_are_listed_requeued_and_dropped(
    service: Service, vhost: Vhost, table: Table
) -> None:
    """An operator's tools may publish anything to the queue of refused messages."""
    confirmed = 0
    for encoded in HOSTILE.values():
        plain = encoded.replace(S1, short(b"test-admin"))
        confirmed += publish_raw(vhost.url, "", REFUSED_QUEUE.encode(), plain, b"no batch")
    letters = DeadLetters(settings_of("", vhost.url))
    dead = letters.read(100)
    assert len(dead) == confirmed
    assert all(letter.body == b"no batch" for letter in dead)
    done, _ = letters.requeue({dead[0].id}, 100)
    assert [letter.id for letter in done] == [dead[0].id]
    until(lambda: left_in(vhost, REFUSED_QUEUE) == confirmed, "it is refused again")
    assert len(letters.drop(None, 100)) == confirmed
    assert left_in(vhost, REFUSED_QUEUE) == 0


def greeting(table: bytes) -> bytes:
    """Connection.Start, with which a broker begins."""
    arguments = b"\0\x09" + long(table) + long(b"PLAIN") + long(b"en_US")
    payload = struct.pack(">HH", 10, 10) + arguments
    return struct.pack(">BHI", 1, 0, len(payload)) + payload + b"\xce"


@pytest.mark.parametrize(
    "table",
    [
        header(b"t", b"T", b"\xff" * 8),
        header(b"z", b"Z", b"1234"),
        nested(b"F", 2_000),
        header(b"k", b"S", struct.pack(">I", 2**31)),
    ],
    ids=["time", "kind", "deep", "long"],
)
def test_sensor_keeps_its_batches_while_the_brokers_replies_cannot_be_decoded(table: bytes) -> None:
    """A sensor only reads what its broker itself sends; no account's message reaches it."""
    settings = SensorSettings(name="s1", broker_password="x")
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            client, _ = server.accept()
            with client:
                client.recv(8)
                client.sendall(greeting(table))
                client.recv(8)

        broker = threading.Thread(target=serve)
        broker.start()
        address = f"amqp://s1@127.0.0.1:{server.getsockname()[1]}"
        link = BrokerLink.of_settings(dataclasses.replace(settings, broker=(address,)))
        with pytest.raises(BrokerUnavailable):
            link.open()
        broker.join(60)
        assert not broker.is_alive()
