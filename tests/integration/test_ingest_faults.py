"""The database fails in many ways, with a real broker: nothing is lost or counted twice."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ingest_support import Publisher, Table, greet, made_batch, running, settings_of, until
from ingest_support.fixtures import migrated_database, terminate_others
from servers.fixtures import Vhost
from servers.postgres import PostgresServer
from servers.proxy import CuttingProxy, Target
from smtpfeeds_aggregator.ingest import worker
from smtpfeeds_aggregator.service import Service
from smtpfeeds_common.topology import EXCHANGE, QUEUE


@pytest.fixture
def server(tmp_path: Path) -> Iterator[PostgresServer]:
    """A PostgreSQL that a test breaks."""
    server = PostgresServer(tmp_path, settings={"max_connections": "12"})
    with server.private:
        yield server


@pytest.fixture
def publisher(vhost: Vhost) -> Publisher:
    url = vhost.add_account("s1", write=f"^{EXCHANGE}$", topics={EXCHANGE: r"^observations\.s1$"})
    return Publisher(url, "s1")


def publish(publisher: Publisher, spool: uuid.UUID, first: int, last: int) -> None:
    for seq in range(first, last + 1):
        publisher.publish(made_batch(greet("192.0.2.1"), spool=spool, seq=seq))


def sample(service: Service, name: str) -> float:
    return service.metrics.registry.get_sample_value(f"smtpfeeds_ingest_{name}") or 0.0


def hits(dsn: str) -> int:
    table = Table(dsn)
    try:
        return int(table.one("SELECT coalesce(sum(hits), 0) FROM observation"))
    finally:
        table.connection.close()


def test_restart_of_the_database_under_load_loses_nothing(
    server: PostgresServer, vhost: Vhost, publisher: Publisher
) -> None:
    dsn = migrated_database(server)
    spool = uuid.uuid4()
    with running(settings_of(dsn, vhost.url)) as service:
        until(lambda: service._source.consuming, "the aggregator consumes")
        publish(publisher, spool, 1, 20)
        terminate_others(dsn)
        publish(publisher, spool, 21, 40)
        server.private.stop()
        publish(publisher, spool, 41, 60)
        until(lambda: bool(service.health.problems()), "the absence is noticed")
        server.private.start()
        publish(publisher, spool, 61, 80)
        until(lambda: hits(dsn) == 80, "all 80 count")
        until(lambda: service.health.problems() == [], "all is well again")
    assert hits(dsn) == 80
    publisher.close()


def test_long_outage_returns_batches_to_the_queue_until_the_database_is_back(
    server: PostgresServer, vhost: Vhost, publisher: Publisher, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a minute (here a second) the consumer is cancelled, and the broker has all messages."""
    defaults = worker.IngestWorker.__init__.__kwdefaults__
    quick = {**(defaults or {}), "hold_s": 1.0, "probe_s": 1.0}
    monkeypatch.setattr(worker.IngestWorker.__init__, "__kwdefaults__", quick)
    dsn = migrated_database(server)
    spool = uuid.uuid4()
    with running(settings_of(dsn, vhost.url)) as service:
        until(lambda: service._source.consuming, "the aggregator consumes")
        publish(publisher, spool, 1, 5)
        until(lambda: hits(dsn) == 5, "five count")
        server.private.stop()
        publish(publisher, spool, 6, 30)
        until(lambda: not service._source.consuming, "the consumer is cancelled")
        until(lambda: _ready_in(vhost) == 25, "the broker has all of it back")
        server.private.start()
        until(lambda: hits(dsn) == 30, "all count")
        until(lambda: service._source.consuming, "it consumes again")
    publisher.close()


def _ready_in(vhost: Vhost) -> int:
    asking = Publisher(vhost.url, None)
    count = asking.channel.queue_declare(QUEUE, passive=True).method.message_count
    asking.close()
    return int(count)


def test_network_failure_to_the_database_under_load_loses_nothing(
    postgres: PostgresServer,
    vhost: Vhost,
    publisher: Publisher,
    cutting_proxy: Callable[[Target], CuttingProxy],
) -> None:
    dsn = migrated_database(postgres)
    proxy = cutting_proxy(postgres.private.socket_path)
    through = postgres.dsn_through(proxy.host, proxy.port, dsn)
    spool = uuid.uuid4()
    with running(settings_of(through, vhost.url)) as service:
        until(lambda: service._source.consuming, "the aggregator consumes")
        for turn in range(10):
            publish(publisher, spool, turn * 10 + 1, turn * 10 + 10)
            if turn == 5:
                proxy.refuse()
            elif turn == 7:
                proxy.forward()
            else:
                proxy.cut()
        until(lambda: hits(dsn) == 100, "all 100 count")
    publisher.close()
    postgres.drop_database(dsn)


def test_aggregator_waits_for_a_server_without_free_connections(
    server: PostgresServer, vhost: Vhost, publisher: Publisher
) -> None:
    dsn = migrated_database(server)
    spool = uuid.uuid4()
    taken: list[Table] = []
    with running(settings_of(dsn, vhost.url)) as service:
        until(lambda: service._source.consuming, "the aggregator consumes")
        terminate_others(dsn)
        while True:
            try:
                taken.append(Table(dsn))
            except Exception as exc:  # noqa: BLE001 - the one that is looked for
                assert "connection" in str(exc)  # noqa: PT017 - counted on, not asserted about
                break
        publish(publisher, spool, 1, 10)
        until(lambda: sample(service, "holding") == 1, "it waits")
        for table in taken:
            table.connection.close()
        until(lambda: hits(dsn) == 10, "all 10 count")
    publisher.close()


def test_connection_to_a_database_that_never_answers_is_closed(
    postgres: PostgresServer,
    vhost: Vhost,
    publisher: Publisher,
    cutting_proxy: Callable[[Target], CuttingProxy],
) -> None:
    """A pooler, or a firewall that drops a reset, answers keepalives and nothing else."""
    dsn = migrated_database(postgres)
    proxy = cutting_proxy(postgres.private.socket_path)
    through = postgres.dsn_through(proxy.host, proxy.port, dsn) + " connect_timeout=2"
    spool = uuid.uuid4()
    with running(settings_of(through, vhost.url, database_timeout_s=1)) as service:
        until(lambda: service._source.consuming, "the aggregator consumes")
        publish(publisher, spool, 1, 10)
        until(lambda: hits(dsn) == 10, "ten count")
        proxy.blackhole()
        publish(publisher, spool, 11, 40)
        until(lambda: sample(service, "timeouts_total") > 0, "the silence is noticed")
        until(lambda: sample(service, "holding") == 1, "it waits")
        publish(publisher, spool, 41, 50)
        proxy.forward()  # the old connection stays open, without answers
        until(lambda: hits(dsn) == 50, "all 50 count")
        until(lambda: service.health.problems() == [], "all is well again")
    assert hits(dsn) == 50
    publisher.close()
    postgres.drop_database(dsn)


def test_slow_database_gets_smaller_transactions(
    postgres: PostgresServer, vhost: Vhost, publisher: Publisher
) -> None:
    """Several batches together exceed the time limit, single ones do not; none waits for ever."""
    dsn = migrated_database(postgres)
    slow = Table(dsn)
    # On any machine, several rows exceed the limit, and a single one takes no time.
    slow.run(
        "CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN"
        " IF (SELECT count(*) FROM written) > 1 THEN PERFORM pg_sleep(600); END IF;"
        " RETURN NULL; END'"
    )
    slow.run(
        "CREATE TRIGGER slow AFTER INSERT ON sighting REFERENCING NEW TABLE AS written"
        " FOR EACH STATEMENT EXECUTE FUNCTION slow()"
    )
    settings = settings_of(dsn, vhost.url, database_timeout_s=1, ingest_wait_ms=1500)
    with running(settings) as service:
        until(lambda: service._source.consuming, "the aggregator consumes")
        spool = uuid.uuid4()
        for seq in range(1, 11):
            publisher.publish(made_batch(greet(f"192.0.2.{seq}"), spool=spool, seq=seq))
        until(lambda: hits(dsn) == 10, "all 10 count")
        until(lambda: service.health.problems() == [], "all is well again")
        assert sample(service, "timeouts_total") >= 1
    assert hits(dsn) == 10
    slow.connection.close()
    publisher.close()
    postgres.drop_database(dsn)


def test_aggregator_waits_for_a_locked_table(
    postgres: PostgresServer, vhost: Vhost, publisher: Publisher
) -> None:
    dsn = migrated_database(postgres)
    other = Table(dsn)
    with running(settings_of(dsn, vhost.url, database_timeout_s=1)) as service:
        until(lambda: service._source.consuming, "the aggregator consumes")
        with other.connection.transaction():
            other.run("LOCK TABLE sighting IN ACCESS EXCLUSIVE MODE")
            publish(publisher, uuid.uuid4(), 1, 5)
            until(lambda: sample(service, "holding") == 1, "it waits")
        until(lambda: hits(dsn) == 5, "all 5 count")
    assert hits(dsn) == 5
    other.connection.close()
    publisher.close()
    postgres.drop_database(dsn)
