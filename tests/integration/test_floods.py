"""A flood from one account on a real broker delays others until it is revoked; none is lost.

Both accounts have the documented rights. The honest one publishes as a sensor does: each batch
until it is confirmed. Its ledger is compared with the database in the end.
"""

from __future__ import annotations

import contextlib
import json
import logging
import threading
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pika
import pytest
from click.testing import CliRunner
from pika.adapters.blocking_connection import BlockingChannel
from pika.exceptions import AMQPError, NackError

from ingest_support import Publisher, Table, greet, made_batch, running, settings_of, until
from ingest_support.fixtures import dsn, table  # noqa: F401 - fixtures
from servers.fixtures import Vhost
from smtpfeeds_aggregator.service import Service
from smtpfeeds_aggregator.sources import broker
from smtpfeeds_aggregator.sources.dead_letters import DeadLetters
from smtpfeeds_aggregator.store.refusals import SAMPLES_OF_HOUR
from smtpfeeds_common.cli import main
from smtpfeeds_common.topology import EXCHANGE, QUEUE, routing_key
from smtpfeeds_common.wire import Batch, encode

# ruff: noqa: F811 - fixtures are imported by name and used by name

BATCHES = 40
#: Messages that a flooder publishes before it looks whether it must stop.
BURST = 20
#: Of the flooder, which opens it once.
SPOOL = uuid.uuid4()


def account_of(vhost: Vhost, name: str) -> str:
    return vhost.add_account(
        name, write=f"^{EXCHANGE}$", topics={EXCHANGE: f"^observations\\.{name}$"}
    )


def honest_batches() -> list[Batch]:
    spool = uuid.uuid4()
    return [
        made_batch(
            greet(f"192.0.2.{n}"), greet("198.51.100.1"), sensor="honest", spool=spool, seq=n
        )
        for n in range(1, BATCHES + 1)
    ]


def assert_nothing_is_lost(table: Table) -> None:
    expected = {(f"192.0.2.{n}", "smtpgreet"): 1 for n in range(1, BATCHES + 1)}
    assert table.hits() == {**expected, ("198.51.100.1", "smtpgreet"): BATCHES}


class Flooder:
    """Publishes without confirms, as fast as the broker accepts, until it is cut off.

    Only the last message is confirmed: RabbitMQ answers the end of a channel before its queue has
    written all messages, and RabbitMQ 3.10 then drops those that are left. A queue takes a
    channel's messages in their order, so after that confirm it has all that were sent.
    """

    def __init__(self, url: str, bodies: Callable[[int], bytes]) -> None:
        self.sent = 0
        self.cut_off = threading.Event()
        self._bodies = bodies
        self._stop = threading.Event()
        self._connection = pika.BlockingConnection(pika.URLParameters(url))
        self._thread = threading.Thread(target=self._run)

    def _run(self) -> None:
        try:
            channel = self._connection.channel()
            while not self._stop.is_set():
                for _ in range(BURST):
                    self._publish(channel)
                self._connection.process_data_events(time_limit=0)
            channel.confirm_delivery()
            self._publish(channel)
            channel.close()
        except AMQPError:
            self.cut_off.set()

    def _publish(self, channel: BlockingChannel) -> None:
        properties = pika.BasicProperties(delivery_mode=2, user_id="mallory")
        channel.basic_publish(EXCHANGE, routing_key("mallory"), self._bodies(self.sent), properties)
        self.sent += 1

    @property
    def is_alive(self) -> bool:
        return self._thread.is_alive()

    def stop(self) -> None:
        """Stop after this burst and its last message."""
        self._stop.set()

    @contextmanager
    def flooding(self) -> Iterator[None]:
        self._thread.start()
        try:
            yield
        finally:
            self.stop()
            self._thread.join(60)
            assert not self.is_alive
            with contextlib.suppress(AMQPError):
                self._connection.close()


def flood_in_sensors(dsn: str) -> str | None:
    done = CliRunner().invoke(main, ["sensors", "--json", "--dsn", dsn])
    rows = json.loads(done.stdout or "[]")
    floods = [row["flood"] for row in rows if row["sensor"] == "mallory"]
    return floods[0] if floods else None


def counted_refusals(table: Table) -> int:
    sql = "SELECT coalesce(sum(messages), 0)::int FROM refusal WHERE account = 'mallory'"
    return int(table.one(sql))


def left(vhost: Vhost) -> int:
    connection = pika.BlockingConnection(pika.URLParameters(vhost.url))
    count = connection.channel().queue_declare(QUEUE, passive=True).method.message_count
    connection.close()
    return int(count)


def is_taken(publisher: Publisher, batch: Batch) -> bool:
    """Publish once; return whether the broker confirmed it."""
    try:
        publisher.publish(batch)
    except NackError:
        return False
    return True


@pytest.fixture
def service(vhost: Vhost, dsn: str) -> Iterator[Service]:
    with running(settings_of(dsn, vhost.url)) as service:
        until(lambda: service._source.consuming, "the aggregator consumes")
        yield service


@pytest.mark.parametrize(
    ("bodies", "reason"),
    [
        (lambda n: b'{"v": 1, "junk": %d}' % n, "not_a_batch"),
        (lambda n: encode(made_batch(sensor="mallory", spool=SPOOL, seq=n + 1)), "messages"),
    ],
    ids=["no-batches", "valid-batches"],
)
def test_flooding_account_is_named_and_another_account_loses_nothing(
    vhost: Vhost,
    dsn: str,
    table: Table,
    service: Service,
    caplog: pytest.LogCaptureFixture,
    bodies: Callable[[int], bytes],
    reason: str,
) -> None:
    caplog.set_level(logging.WARNING)
    honest = Publisher(account_of(vhost, "honest"), "honest")
    metric = service.metrics.registry.get_sample_value
    labels = {"account": "mallory", "reason": reason}
    honest.publish(b"a message that is refused once, before the flood")
    flooder = Flooder(account_of(vhost, "mallory"), bodies)
    with flooder.flooding():
        for batch in honest_batches():
            honest.publish(batch)
        until(lambda: (flood_in_sensors(dsn) or "").endswith(f"/s {reason}"), "it is named")
        until(lambda: metric("smtpfeeds_ingest_account_flooding", labels) is not None, "metric")
        assert not flooder.cut_off.is_set(), "it was named while it flooded"
        until(lambda: len(table.hits()) == BATCHES + 1, "the honest batches are counted meanwhile")
    assert any(
        "account floods" in record.message and "mallory" in str(record.__dict__)
        for record in caplog.records
    )
    until(lambda: left(vhost) == 0, "the queue is empty")
    assert_nothing_is_lost(table)
    counted = dict(table("SELECT account, sum(messages)::int FROM refusal GROUP BY 1"))
    if reason == "not_a_batch":
        assert not flooder.cut_off.is_set(), "the broker has all that was sent"
        until(
            lambda: counted_refusals(table) >= flooder.sent,
            "every refused message is counted",
            limit_s=120,
        )
        assert counted_refusals(table) == flooder.sent, "and none twice"
    assert counted["honest"] == 1
    letters = DeadLetters(settings_of(dsn, vhost.url)).read(1_000)
    kept = [letter.account for letter in letters]
    assert kept.count("honest") == 1, "the flood pushed no other evidence out"
    # There are two hours if one has just begun.
    assert kept.count("mallory") in (
        {SAMPLES_OF_HOUR, 2 * SAMPLES_OF_HOUR} if reason == "not_a_batch" else {0}
    )
    honest.close()


def test_flooder_ends_when_the_queue_has_all_that_it_sent(vhost: Vhost) -> None:
    """The tests compare its number with what the aggregator counts, however slow the queue is."""
    connection = pika.BlockingConnection(pika.URLParameters(vhost.url))
    broker.declare(connection, QUEUE)
    connection.close()
    is_held, last = threading.Event(), threading.Event()

    def bodies(n: int) -> bytes:
        if n == 1:
            assert is_held.wait(60)
        if n == BURST:
            last.set()
        return b"%d" % n

    flooder = Flooder(account_of(vhost, "mallory"), bodies)
    with flooder.flooding():
        until(lambda: left(vhost) == 1, "the queue has the first message")
        with vhost.node.holding_queue(vhost.name, QUEUE):
            flooder.stop()
            is_held.set()
            until(lambda: last.is_set() or not flooder.is_alive, "it ends, or waits for the queue")
    assert flooder.sent == left(vhost) == BURST + 1


def test_flood_that_fills_the_queue_delays_until_the_account_is_revoked(
    vhost: Vhost, dsn: str, table: Table
) -> None:
    """The broker then refuses all messages; an honest sensor keeps its batches and tries again."""
    connection = pika.BlockingConnection(pika.URLParameters(vhost.url))
    broker.declare(connection, QUEUE)
    connection.close()
    vhost.node.admin.set_policy(vhost.name, "small", f"^{QUEUE}$", {"max-length-bytes": 200_000})
    flooder = Flooder(account_of(vhost, "mallory"), lambda n: b"x" * 2_000)
    honest = Publisher(account_of(vhost, "honest"), "honest")
    with flooder.flooding():
        waiting = honest_batches()
        # No aggregator runs, so the flood fills the queue.
        until(lambda: not is_taken(honest, made_batch(sensor="honest")), "the broker refuses")
        with running(settings_of(dsn, vhost.url)):
            until(lambda: flood_in_sensors(dsn) is not None, "it is named")
            assert not flooder.cut_off.is_set()
            vhost.node.admin.delete_user("mallory")
            assert flooder.cut_off.wait(60), "revoked, it is disconnected"
            while waiting:
                if is_taken(honest, waiting[0]):
                    waiting.pop(0)
            until(lambda: left(vhost) == 0, "the queue is empty")
            until(lambda: len(table.hits()) == BATCHES + 1, "all are counted")
    assert_nothing_is_lost(table)
    honest.close()


def test_backlog_of_a_full_broker_shrinks_although_samples_cannot_be_kept(
    vhost: Vhost, dsn: str, table: Table
) -> None:
    """Samples that wait for the broker leave room for the batches behind them in the queue."""
    connection = pika.BlockingConnection(pika.URLParameters(vhost.url))
    broker.declare(connection, QUEUE)
    connection.close()
    for name, bodies in (
        ("mallory", [b"not a batch"] * SAMPLES_OF_HOUR),
        ("honest", [encode(batch) for batch in honest_batches()]),
    ):
        publisher = Publisher(account_of(vhost, name), name)
        for body in bodies:
            publisher.publish(body)
        publisher.close()
    vhost.node.ctl("set_vm_memory_high_watermark", "absolute", "1")
    try:
        # The samples of one account fill this prefetch; those of five fill the default one.
        prefetch = SAMPLES_OF_HOUR // 2
        url = f"{vhost.url}?blocked_connection_timeout=1"
        with running(settings_of(dsn, url, ingest_batch_messages=prefetch)):
            until(lambda: len(table.hits()) == BATCHES + 1, "the honest batches are counted")
            until(lambda: counted_refusals(table) == SAMPLES_OF_HOUR, "so are the refused ones")
            until(lambda: left(vhost) == 0, "the queue is empty")
    finally:
        vhost.node.ctl("set_vm_memory_high_watermark", "absolute", "1GB")
    assert_nothing_is_lost(table)
