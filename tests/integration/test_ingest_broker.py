"""From a real RabbitMQ into a real PostgreSQL, exactly once, through failures of the broker."""

from __future__ import annotations

import contextlib
import json
import logging
import uuid
from collections.abc import Iterator, Sequence
from typing import Any

import pika
import pytest
from click.testing import CliRunner

from ingest_support import (
    Publisher,
    Table,
    data,
    greet,
    made_batch,
    running,
    settings_of,
    until,
)
from ingest_support.fixtures import dsn, table  # noqa: F401 - fixtures
from servers.fixtures import Vhost
from servers.rabbitmq import running as rabbitmq_with
from smtpfeeds_aggregator.ingest import collect
from smtpfeeds_aggregator.ingest.check import CheckedBatch
from smtpfeeds_aggregator.ingest.fold import fold
from smtpfeeds_aggregator.origin.lookup import OriginLookup
from smtpfeeds_aggregator.service import Service
from smtpfeeds_aggregator.store.rows import Folded
from smtpfeeds_common.cli import main
from smtpfeeds_common.topology import EXCHANGE, QUEUE, REFUSED_QUEUE
from smtpfeeds_common.wire import encode

# ruff: noqa: F811 - fixtures are imported by name and used by name


def account_of(vhost: Vhost, name: str = "s1") -> str:
    return vhost.add_account(
        name, write=f"^{EXCHANGE}$", topics={EXCHANGE: f"^observations\\.{name}$"}
    )


@pytest.fixture
def service(vhost: Vhost, dsn: str) -> Iterator[Service]:
    with running(settings_of(dsn, vhost.url)) as service:
        until(lambda: service._source.consuming, "the aggregator consumes")
        yield service


@pytest.fixture
def s1(vhost: Vhost, service: Service) -> Iterator[Publisher]:
    publisher = Publisher(account_of(vhost), "s1")
    yield publisher
    publisher.close()


def counted(service: Service, name: str, **labels: str) -> float:
    value = service.metrics.registry.get_sample_value(f"smtpfeeds_ingest_{name}_total", labels)
    return value or 0.0


def refused(vhost: Vhost) -> list[tuple[dict[str, Any], bytes]]:
    connection = pika.BlockingConnection(pika.URLParameters(vhost.url))
    channel = connection.channel()
    refusals = []
    while True:
        method, properties, body = channel.basic_get(REFUSED_QUEUE, auto_ack=True)
        if method is None:
            break
        assert properties is not None
        refusals.append((properties.headers, body))
    connection.close()
    return refusals


def left_in(vhost: Vhost, queue: str) -> int:
    connection = pika.BlockingConnection(pika.URLParameters(vhost.url))
    count = connection.channel().queue_declare(queue, passive=True).method.message_count
    connection.close()
    return int(count)


def test_batch_of_a_sensor_with_the_documented_rights_is_stored(
    s1: Publisher, table: Table
) -> None:
    s1.publish(made_batch(greet("192.0.2.1", hits=3), data("192.0.2.1"), version="0.1"))
    until(lambda: len(table.rows()) == 2, "both rows are stored")
    assert table.hits() == {("192.0.2.1", "smtpgreet"): 3, ("192.0.2.1", "smtpdata"): 1}
    assert table("SELECT name, version FROM sensor") == [("s1", "0.1")]


def test_batch_delivered_twice_counts_once(s1: Publisher, table: Table, service: Service) -> None:
    batch = made_batch(greet("192.0.2.1"))
    s1.publish(batch)
    until(lambda: counted(service, "batches") == 1, "the first is counted")
    s1.publish(batch)
    until(lambda: counted(service, "duplicates") == 1, "the second is recognised")
    assert table.hits() == {("192.0.2.1", "smtpgreet"): 1}


def test_message_that_is_not_a_batch_is_kept_as_refused_and_the_next_is_processed(
    s1: Publisher, table: Table, vhost: Vhost, service: Service
) -> None:
    for body in (b"", b"\x00\xff\x00", b'{"v":1}', b"[" * 100_000, b'{"v": 2, "spool": "x"}'):
        s1.publish(body)
    s1.publish(made_batch(greet("192.0.2.9")))
    until(lambda: bool(table.rows()), "the good batch is stored")
    until(lambda: left_in(vhost, REFUSED_QUEUE) == 5, "all five are among the refused")
    kept = refused(vhost)
    assert [body for _, body in kept][:2] == [b"", b"\x00\xff\x00"]
    for headers, _ in kept:
        assert headers["x-smtpfeeds-account"] == "s1"
        assert headers["x-smtpfeeds-kind"] == "message"
        assert headers["x-smtpfeeds-routing-key"] == "observations.s1"
        assert "not a batch" in headers["x-smtpfeeds-reason"]
    until(lambda: left_in(vhost, QUEUE) == 0, "nothing is left")
    assert counted(service, "refused", kind="message") == 5


def test_batch_that_names_another_sensor_or_no_account_is_refused(
    s1: Publisher, vhost: Vhost, table: Table
) -> None:
    """The broker vouches for the account; a batch cannot claim to be another's."""
    s1.publish(encode(made_batch(greet("192.0.2.1"), sensor="s2")))
    nobody = Publisher(vhost.url, None)
    nobody.publish(made_batch(greet("192.0.2.2")), key="observations.s1")
    nobody.close()
    s1.publish(made_batch(greet("192.0.2.3")))
    until(lambda: left_in(vhost, REFUSED_QUEUE) == 2, "both are refused")
    until(lambda: bool(table.rows()), "the good one is stored")
    assert list(table.rows()) == [("192.0.2.3", "smtpgreet")]
    reasons = sorted(headers["x-smtpfeeds-reason"] for headers, _ in refused(vhost))
    assert reasons[0].startswith("no user_id")
    assert "'s2', the account 's1'" in reasons[1]


def test_hostile_rows_do_not_affect_other_rows(s1: Publisher, vhost: Vhost, table: Table) -> None:
    good = greet("192.0.2.1")
    body = json.loads(encode(made_batch(good, greet("192.0.2.2"))))
    plain = body["observations"][0]
    body["observations"] += [
        {**plain, "ip": "192.0.2.3\0"},
        {**plain, "ip": "fe80::1%eth0"},
        {**plain, "hits": 10**30},
        {**plain, "hits": -1},
        {**plain, "feed": "smtpevil"},
        {**plain, "feed": "smtpdata\n"},
        {**plain, "ip": "192.0.2.0/24"},
        {**plain, "first_ms": plain["last_ms"] + 1},
        "text",
        {**plain, "ip": "2001:DB8:0::1"},
        {**plain, "ip": "2001:db8::1"},
        {**plain, "ip": "::ffff:192.0.2.4"},
    ]
    body["version"] = "1\0\x1b[31m"
    body["counters"] = {"a\0": 1}
    s1.publish(json.dumps(body).encode())
    until(lambda: bool(table.rows()), "the good rows are stored")
    assert table.hits() == {
        ("192.0.2.1", "smtpgreet"): 1,
        ("192.0.2.2", "smtpgreet"): 1,
        ("2001:db8::1", "smtpgreet"): 2,
        ("192.0.2.4", "smtpgreet"): 1,
    }
    until(lambda: left_in(vhost, REFUSED_QUEUE) == 1, "the refused rows are kept, as one message")
    ((headers, kept),) = refused(vhost)
    assert headers["x-smtpfeeds-kind"] == "rows"
    assert len(json.loads(kept)["rows"]) == 9
    until(lambda: left_in(vhost, QUEUE) == 0, "the batch is acknowledged")


def test_batch_that_triggers_a_bug_is_refused_and_later_ones_are_stored(
    s1: Publisher,
    vhost: Vhost,
    table: Table,
    service: Service,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A batch must not end every aggregator that receives it."""

    def faulty(batches: Sequence[CheckedBatch], origin: OriginLookup, today: int) -> Folded:
        if any(batch.key.seq == 2 for batch in batches):
            raise KeyError("smtpdata\n")
        return fold(batches, origin, today)

    monkeypatch.setattr(collect, "fold", faulty)
    spool = uuid.uuid4()
    for seq in range(1, 6):
        s1.publish(made_batch(greet("192.0.2.1"), spool=spool, seq=seq))
    until(lambda: table.hits() == {("192.0.2.1", "smtpgreet"): 4}, "the four others count")
    until(lambda: left_in(vhost, REFUSED_QUEUE) == 1, "it is refused")
    until(lambda: left_in(vhost, QUEUE) == 0, "nothing is left")
    ((headers, _),) = refused(vhost)
    assert headers["x-smtpfeeds-account"] == "s1"
    assert "KeyError" in headers["x-smtpfeeds-reason"]
    assert counted(service, "broker_losses") == 0


def test_deleted_queue_is_detected(
    s1: Publisher, vhost: Vhost, table: Table, service: Service
) -> None:
    """pika does not report it, so the aggregator must check."""
    vhost.node.admin.delete_queue(vhost.name, QUEUE)
    until(lambda: counted(service, "consumer_losses") == 1, "the loss is noticed")
    until(lambda: service._source.consuming, "it consumes again")
    s1.publish(made_batch(greet("192.0.2.1")))
    until(lambda: bool(table.rows()), "a batch is stored again")


def test_queue_declared_by_an_operator_is_bound_too(vhost: Vhost, dsn: str, table: Table) -> None:
    """The queue is used as it is; without a binding it would receive nothing."""
    with contextlib.closing(pika.BlockingConnection(pika.URLParameters(vhost.url))) as connection:
        arguments = {"x-queue-type": "quorum", "x-max-length-bytes": 1_000_000}
        connection.channel().queue_declare(QUEUE, durable=True, arguments=arguments)
    with running(settings_of(dsn, vhost.url)) as service:
        until(lambda: service._source.consuming, "the aggregator consumes")
        publisher = Publisher(account_of(vhost), "s1")
        publisher.publish(made_batch(greet("192.0.2.1")))
        until(lambda: bool(table.rows()), "the batch is stored")
        publisher.close()


def test_closed_connection_is_opened_again_and_nothing_counts_twice(
    s1: Publisher, vhost: Vhost, table: Table
) -> None:
    spool = uuid.uuid4()
    publisher: Publisher = s1
    for seq in range(1, 31):
        if seq in (10, 20):
            vhost.node.admin.close_connections()
            publisher.close()
            publisher = Publisher(account_of(vhost), "s1")
        publisher.publish(made_batch(greet("192.0.2.1"), spool=spool, seq=seq))
    publisher.close()
    until(lambda: table.hits() == {("192.0.2.1", "smtpgreet"): 30}, "each of 30 counts once")
    until(lambda: left_in(vhost, QUEUE) == 0, "nothing is left")
    assert table.hits() == {("192.0.2.1", "smtpgreet"): 30}


def test_second_address_of_a_broker_is_used_if_the_first_is_down(
    vhost: Vhost, dsn: str, table: Table
) -> None:
    dead = "amqp://nobody:nothing@127.0.0.1:9/"
    with running(settings_of(dsn, dead, vhost.url)) as service:
        until(lambda: service._source.consuming, "it consumes from the second")


def test_acknowledgement_timeout_of_the_broker_is_survived(
    tmp_path_factory: pytest.TempPathFactory, dsn: str, table: Table
) -> None:
    """The broker closes the channel when a batch is held too long; the batch counts once."""
    folder = tmp_path_factory.mktemp("rabbitmq")
    with rabbitmq_with(folder, settings={"consumer_timeout": "2000"}, channel_tick_ms=500) as node:
        node.admin.add_user("s1", "password")
        node.admin.permit("s1", "/", write=".*")
        with running(settings_of(dsn, node.url())) as service:
            until(lambda: service._source.consuming, "the aggregator consumes")
            table.run("BEGIN")
            table.run("LOCK TABLE observation IN ACCESS EXCLUSIVE MODE")
            publisher = Publisher(node.url("/", "s1", "password"), "s1")
            publisher.publish(made_batch(greet("192.0.2.1")))
            until(lambda: counted(service, "consumer_losses") >= 1, "the broker closes the channel")
            table.run("ROLLBACK")
            until(lambda: bool(table.rows()), "the batch is stored")
            until(lambda: counted(service, "redelivered") >= 1, "it is delivered again")
            until(lambda: counted(service, "duplicates") >= 1, "and recognised")
            publisher.close()
    assert table.hits() == {("192.0.2.1", "smtpgreet"): 1}


def dead_letters(vhost: Vhost, *arguments: str) -> tuple[int, str]:
    """Run `smtpfeeds aggregator dead-letters …` with settings from the environment."""
    environ = {"SMTPFEEDS_AGGREGATOR_BROKER": vhost.url}
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level  # the command configures logging itself
    try:
        done = CliRunner().invoke(main, ["aggregator", "dead-letters", *arguments], env=environ)
    finally:
        root.handlers[:] = handlers
        root.setLevel(level)
    return done.exit_code, done.output


def test_dead_letters_are_listed_requeued_and_dropped(
    s1: Publisher, vhost: Vhost, table: Table, service: Service
) -> None:
    """One is a valid batch that the database refused until its operator repaired it."""
    table.run("ALTER TABLE observation ADD CONSTRAINT odd CHECK (hits <> 13)")
    good = made_batch(greet("192.0.2.1", hits=13))
    s1.publish(b"not a batch \x1b[31m")
    s1.publish(good)
    until(lambda: left_in(vhost, REFUSED_QUEUE) == 2, "both are refused")
    code, listed = dead_letters(vhost, "list", "--format", "tsv")
    assert code == 0
    _, first, second = (line.split("\t") for line in listed.splitlines())
    assert (first[2], first[3], second[2], second[3]) == ("s1", "message", "s1", "batch")
    assert "odd" in second[5]
    code, listed = dead_letters(vhost, "list", "--json")
    hostile, refused = json.loads(listed)
    assert (code, hostile["id"], refused["id"]) == (0, first[0], second[0])
    assert (refused["account"], refused["kind"], refused["at"]) == ("s1", "batch", second[1])
    assert refused["octets"] == len(encode(good))
    assert dead_letters(vhost, "show", second[0])[1] == encode(good).decode()
    table.run("ALTER TABLE observation DROP CONSTRAINT odd")
    assert dead_letters(vhost, "requeue", second[0]) == (0, "put back: 1\n")
    until(lambda: bool(table.rows()), "the batch is stored")
    assert table("SELECT hits, sensor FROM sighting") == [(13, "s1")]
    assert left_in(vhost, REFUSED_QUEUE) == 1
    assert dead_letters(vhost, "drop", "--all") == (0, "dropped: 1\n")
    assert dead_letters(vhost, "list") == (1, "nothing is refused\n")
    code, listed = dead_letters(vhost, "list", "--format", "json")
    assert (code, sorted(listed.splitlines())) == (1, ["[]", "nothing is refused"])
    assert dead_letters(vhost, "requeue", "nonsense")[0] == 1
    assert dead_letters(vhost, "drop")[0] == 2


def test_sensor_cannot_name_another_account_in_a_header(
    s1: Publisher, vhost: Vhost, table: Table, service: Service
) -> None:
    body = encode(made_batch(greet("192.0.2.1"), sensor="s2"))
    properties = pika.BasicProperties(user_id="s1", headers={"x-smtpfeeds-account": "s2"})
    s1.channel.basic_publish(EXCHANGE, "observations.s1", body, properties)
    until(lambda: counted(service, "refused", kind="message") == 1, "it is refused")
    assert table.rows() == {}


def test_only_the_bad_batch_of_a_collection_is_refused(
    vhost: Vhost, dsn: str, table: Table
) -> None:
    table.run("ALTER TABLE observation ADD CHECK (hits <> 13)")
    with running(settings_of(dsn, vhost.url, ingest_wait_ms=1000)) as service:
        until(lambda: service._source.consuming, "the aggregator consumes")
        publisher = Publisher(account_of(vhost), "s1")
        spool = uuid.uuid4()
        for seq in range(1, 8):
            row = greet(f"192.0.2.{seq}", hits=13 if seq == 4 else 1)
            publisher.publish(made_batch(row, spool=spool, seq=seq))
        publisher.close()
        until(lambda: len(table.rows()) == 6, "six of seven are stored")
        until(lambda: left_in(vhost, REFUSED_QUEUE) == 1, "the seventh is refused")
        until(lambda: left_in(vhost, QUEUE) == 0, "nothing is left")
    ((headers, _),) = refused(vhost)
    assert (headers["x-smtpfeeds-kind"], "23514" in headers["x-smtpfeeds-reason"]) == (
        "batch",
        True,
    )
