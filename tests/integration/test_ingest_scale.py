"""The promises of docs/how-to/scale-out.md: shards of the queue, partitions of the tables."""

from __future__ import annotations

import subprocess
import uuid
from pathlib import Path

import pika
import pytest

from ingest_support import (
    Publisher,
    Table,
    greet,
    made_batch,
    now_ms,
    running,
    settings_of,
    until,
    utc,
)
from ingest_support.fixtures import dsn, every_dsn, table  # noqa: F401 - fixtures
from servers.fixtures import Vhost
from servers.rabbitmq import RabbitNode, scripts_folder
from smtpfeeds_common.spool import Event, Spool, read_status
from smtpfeeds_common.topology import EXCHANGE

# ruff: noqa: F811 - fixtures are imported by name and used by name

ROOT = Path(__file__).resolve().parent.parent.parent
SHARDS = ("smtpfeeds.observations.1", "smtpfeeds.observations.2", "smtpfeeds.observations.3")


def enable_plugin(node: RabbitNode, name: str) -> None:
    command = [str(scripts_folder() / "rabbitmq-plugins"), "--node", node.node_name, "enable", name]
    done = subprocess.run(
        command, env=node.environment(), capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def make_shards(vhost: Vhost) -> None:
    """Declare a hash exchange behind the topic exchange and a queue per shard, as documented."""
    connection = pika.BlockingConnection(pika.URLParameters(vhost.url))
    channel = connection.channel()
    channel.exchange_declare(EXCHANGE, "topic", durable=True)
    channel.exchange_declare("smtpfeeds.shards", "x-consistent-hash", durable=True)
    channel.exchange_bind("smtpfeeds.shards", EXCHANGE, "observations.*")
    for shard in SHARDS:
        channel.queue_declare(
            shard,
            durable=True,
            arguments={"x-queue-type": "quorum", "x-delivery-limit": 2**31 - 1},
        )
        channel.queue_bind(shard, "smtpfeeds.shards", "1")
    connection.close()


def test_batches_of_many_sensors_spread_over_shards_and_all_count_once(
    own_rabbitmq: RabbitNode, own_vhost: Vhost, dsn: str, table: Table
) -> None:
    enable_plugin(own_rabbitmq, "rabbitmq_consistent_hash_exchange")
    make_shards(own_vhost)
    names = [f"s{n}" for n in range(24)]
    for name in names:
        topics = {EXCHANGE: f"^observations\\.{name}$"}
        publisher = Publisher(
            own_vhost.add_account(name, write=f"^{EXCHANGE}$", topics=topics), name
        )
        spool = uuid.uuid4()
        for seq in (1, 2):
            publisher.publish(made_batch(greet("192.0.2.1"), sensor=name, spool=spool, seq=seq))
        publisher.close()
    connection = pika.BlockingConnection(pika.URLParameters(own_vhost.url))
    channel = connection.channel()
    depths = [channel.queue_declare(q, passive=True).method.message_count for q in SHARDS]
    connection.close()
    assert sum(depths) == 48
    assert all(depth % 2 == 0 for depth in depths), "a sensor's batches stay on one shard"
    assert sum(depth > 0 for depth in depths) >= 2
    first, second, third = (settings_of(dsn, own_vhost.url, queue=shard) for shard in SHARDS)
    with running(first), running(second), running(third):
        until(lambda: table.hits() == {("192.0.2.1", "smtpgreet"): 48}, "all count")
    assert table.one("SELECT count(*) FROM sighting") == 24


def test_two_aggregators_share_one_queue(vhost: Vhost, dsn: str, table: Table) -> None:
    topics = {EXCHANGE: r"^observations\.s1$"}
    url = vhost.add_account("s1", write=f"^{EXCHANGE}$", topics=topics)
    settings = settings_of(dsn, vhost.url, ingest_batch_messages=2)
    with running(settings) as one, running(settings) as two:
        until(lambda: one._source.consuming and two._source.consuming, "both consume")
        publisher = Publisher(url, "s1")
        spool = uuid.uuid4()
        for seq in range(1, 61):
            publisher.publish(made_batch(greet("192.0.2.1"), spool=spool, seq=seq))
        publisher.close()
        until(lambda: table.hits() == {("192.0.2.1", "smtpgreet"): 60}, "each counts once")
        shares = [
            service.metrics.registry.get_sample_value("smtpfeeds_ingest_batches_total")
            for service in (one, two)
        ]
    assert sum(share or 0 for share in shares) == 60
    assert all(shares), "both took a share"


def test_partitioned_tables_need_no_change(every_dsn: str, tmp_path: Path) -> None:
    asked = Table(every_dsn)
    asked.connection.execute((ROOT / "deploy/postgresql/partition.sql").read_bytes())
    before = asked("SELECT count(*) FROM pg_inherits")
    assert before[0][0] >= 32
    spool = Spool(tmp_path / "s1.spool", sensor="s1")
    for n in range(200):
        for feed in (0, 1):
            spool.fold(Event(feed, bytes([192, 0, 2, n]), 1_790_000_000_000))
    spool.commit()
    spool.close()
    asked.run("SET timezone = 'UTC'")
    with running(settings_of(every_dsn, f"spool:{tmp_path}", retention_days=3650)):
        until(lambda: len(asked.rows()) == 400, "all are stored")
    parts = asked.one("SELECT count(DISTINCT tableoid) FROM observation")
    assert parts == 16
    with pytest.raises(Exception, match="not empty"):
        asked.connection.execute((ROOT / "deploy/postgresql/partition.sql").read_bytes())
    asked.connection.close()


def test_spool_on_a_single_host_gives_the_same_rows_as_a_broker(
    dsn: str, table: Table, tmp_path: Path
) -> None:
    at = now_ms() - 1000
    spool = Spool(tmp_path / "s1.spool", sensor="s1")
    for feed, ip in ((0, 1), (1, 1), (0, 1), (0, 2)):
        spool.fold(Event(feed, bytes([192, 0, 2, ip]), at, flags=1, target=5))
    spool.commit()
    spool.close()
    with running(settings_of(dsn, f"spool:{tmp_path}", seal_interval_s=0.1)):
        until(lambda: len(table.rows()) == 3, "all are stored")
    assert table.hits() == {
        ("192.0.2.1", "smtpgreet"): 2,
        ("192.0.2.1", "smtpdata"): 1,
        ("192.0.2.2", "smtpgreet"): 1,
    }
    assert {row[:2] for row in table.rows().values()} == {(utc(at), utc(at))}
    assert table("SELECT feed, sum(events)::int FROM activity GROUP BY 1 ORDER BY 1") == [
        ("smtpdata", 1),
        ("smtpgreet", 3),
    ]
    assert table("SELECT DISTINCT sensor, targets FROM sighting") == [("s1", 32)]
    assert read_status(tmp_path / "s1.spool").batches_waiting == 0
