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

# ruff: noqa: F811 - fixtures are imported by name and asked for by name

BATCHES = 40
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
    """Publishes without confirms, as fast as the broker accepts, until it is cut off."""

    def __init__(self, url: str, bodies: Callable[[int], bytes]) -> None:
        self.sent = 0
        self.cut_off = threading.Event()
        self._bodies = bodies
        self._stop = threading.Event()
        self._connection = pika.BlockingConnection(pika.URLParameters(url))
        self._thread = threading.Thread(target=self._run)

    def _run(self) -> None:
        properties = pika.BasicProperties(delivery_mode=2, user_id="mallory")
        try:
            channel = self._connection.channel()
            while not self._stop.is_set():
                for _ in range(20):
                    channel.basic_publish(
                        EXCHANGE, routing_key("mallory"), self._bodies(self.sent), properties
                    )
                    self.sent += 1
                self._connection.process_data_events(time_limit=0)
            # The broker answers after it has handled all earlier messages.
            channel.close()
        except AMQPError:
            self.cut_off.set()

    @contextmanager
    def flooding(self) -> Iterator[None]:
        self._thread.start()
        try:
            yield
        finally:
            self._stop.set()
            self._thread.join(60)
            assert not self._thread.is_alive()
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
def test_account_that_floods_is_named_while_it_does_and_the_honest_one_loses_nothing(
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
