"""The publisher with a real RabbitMQ: confirms, refusals, cuts, failover, TLS, accounts, replay."""

import json
import socket
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from uuid import UUID

import pika
import pytest
from pika.credentials import PlainCredentials

from sensor_support import SensorProcess, running
from sensor_support.centre import Centre
from servers.certificates import Certificates
from servers.fixtures import Vhost
from servers.processes import free_port, wait_until
from servers.proxy import CuttingProxy, Target
from servers.rabbitmq import RabbitNode
from smtpfeeds_common.errors import BatchTooLarge, BrokerRefused, BrokerUnavailable, SettingsError
from smtpfeeds_common.spool import SealedBatch, read_status
from smtpfeeds_common.spool.file import PAGE_BYTES
from smtpfeeds_common.wire import decode
from smtpfeeds_sensor.delivery.publisher import BrokerLink, read_brokers
from smtpfeeds_sensor.settings import SensorSettings

SPOOL = "0f0e0d0c-0b0a-4908-8706-050403020100"


def batch(body: bytes = b"{}", seq: int = 1) -> SealedBatch:
    return SealedBatch(SPOOL, seq, 1_795_000_000_000, body)


def password_in(parameters: pika.URLParameters) -> str:
    assert isinstance(parameters.credentials, PlainCredentials)
    return str(parameters.credentials.password)


@pytest.fixture
def centre(vhost: Vhost) -> Iterator[Centre]:
    centre = Centre(vhost)
    yield centre
    if centre.connection.is_open:
        centre.connection.close()


def link_to(
    *urls: str, name: str = "s1", confirm_timeout_s: float = 10, **settings: object
) -> BrokerLink:
    return BrokerLink.of_settings(
        SensorSettings(
            name=name,
            broker=urls,
            confirm_timeout_s=confirm_timeout_s,
            **settings,  # type: ignore[arg-type]
        )
    )


@pytest.fixture
def link(centre: Centre) -> Iterator[BrokerLink]:
    link = link_to(centre.account())
    yield link
    link.close()


def test_batch_is_persistent_and_has_the_accounts_user_id(centre: Centre, link: BrokerLink) -> None:
    centre.declare_queue()
    link.open()
    link.publish(batch(b'{"a": 1}'))
    properties, body = centre.take()
    assert (properties.user_id, properties.delivery_mode, body) == ("s1", 2, b'{"a": 1}')
    assert properties.content_type == "application/json"


def test_unroutable_message_stops_all_batches(centre: Centre, link: BrokerLink) -> None:
    link.open()
    with pytest.raises(BrokerRefused, match="no queue takes"):
        link.publish(batch())
    centre.declare_queue()
    link.publish(batch())
    centre.take()


def test_full_queue_stops_all_batches(centre: Centre, link: BrokerLink) -> None:
    centre.declare_queue(**{"x-max-length-bytes": 100, "x-overflow": "reject-publish"})
    link.open()
    link.publish(batch(b"x" * 90))

    def publish_past_the_limit() -> None:
        """Before 4.3 RabbitMQ checks the limit after it accepts a message."""
        for _ in range(2):
            link.publish(batch(b"x" * 90))

    with pytest.raises(BrokerRefused, match="queue is full"):
        publish_past_the_limit()
    assert link.is_open


def test_missing_exchange_and_missing_rights_stop_all_batches(vhost: Vhost) -> None:
    account = vhost.add_account("s1", write="^smtpfeeds$", topics={})
    first = link_to(account)
    first.open()
    with pytest.raises(BrokerRefused, match="404"):
        first.publish(batch())
    first.close()
    centre = Centre(vhost)
    centre.declare_queue()
    other = vhost.add_account("s2", write="^nothing$")
    second = link_to(other, name="s2")
    second.open()
    with pytest.raises(BrokerRefused, match="403"):
        second.publish(batch())
    second.close()
    centre.connection.close()


def test_wrong_password_is_a_refusal(centre: Centre) -> None:
    url = centre.account()
    host = url.rpartition("@")[2]
    with pytest.raises(BrokerRefused, match="refuses the account"):
        link_to(f"amqp://s1:wrong@{host}").open()
    # The password from a setting overrides the one in the address.
    secret = url.split("//")[1].split("@")[0].split(":")[1]
    link = link_to(f"amqp://s1:wrong@{host}", broker_password=secret)
    link.open()
    link.close()


def test_new_password_is_used_for_the_next_connection(centre: Centre) -> None:
    """SIGHUP applies a password that was changed at the broker, without a restart."""
    url = centre.account()
    link = link_to(url.replace("//s1:", "//s1:old-"))
    with pytest.raises(BrokerRefused):
        link.open()
    link.take_over(read_brokers(SensorSettings(name="s1", broker=(url,))))
    link.open()
    assert link.is_open
    link.close()


def test_only_a_batch_that_is_too_large_is_refused_alone(centre: Centre, link: BrokerLink) -> None:
    centre.declare_queue()
    # RabbitMQ 3 reads the first for each channel; 4 reads it once, at its start, into the second.
    limit = "application:set_env(rabbit, max_message_size, {0}), "
    limit += "persistent_term:put(max_message_size, {0})."
    centre.vhost.node.ctl("eval", limit.format(1000))
    try:
        link.open()
        with pytest.raises(BatchTooLarge, match="larger than"):
            link.publish(batch(b"x" * 2000))
        assert not link.is_open
        link.open()
        link.publish(batch(b"x" * 500))
    finally:
        centre.vhost.node.ctl("eval", limit.format(134_217_728))


def test_connection_without_confirms_is_closed_in_time(
    centre: Centre, cutting_proxy: Callable[[Target], CuttingProxy]
) -> None:
    """pika has no time limit on a confirm; without a quorum a publish would block for ever."""
    centre.declare_queue()
    parts = pika.URLParameters(centre.account())
    proxy = cutting_proxy((parts.host, parts.port))
    account = f"amqp://s1:{password_in(parts)}@{proxy.host}:{proxy.port}/"
    link = link_to(account + parts.virtual_host.replace("/", "%2f"), confirm_timeout_s=1)
    link.open()
    link.publish(batch())
    proxy.pause()
    began = time.monotonic()
    with pytest.raises(BrokerUnavailable):
        link.publish(batch(seq=2))
    assert time.monotonic() - began > 0.9
    link.close()
    proxy.forward()
    link.open()
    link.publish(batch(seq=2))
    link.close()


def test_connection_without_any_answer_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("smtpfeeds_sensor.delivery.publisher._CONNECT_S", 1.0)
    monkeypatch.setattr("smtpfeeds_sensor.delivery.publisher._STACK_S", 1.0)
    with socket.create_server(("127.0.0.1", 0)) as deaf:
        link = link_to(f"amqp://s1:x@127.0.0.1:{deaf.getsockname()[1]}")
        with pytest.raises(BrokerUnavailable):
            link.open()


def test_refused_connection_is_the_reason_of_an_unavailable_broker() -> None:
    """The operator reads the kernel's error text instead of a class name."""
    settings = SensorSettings(name="s1", broker=(f"amqp://s1:x@127.0.0.1:{free_port()}/",))
    with pytest.raises(BrokerUnavailable, match=r"^broker 127\.0\.0\.1:\d+: Connection refused$"):
        BrokerLink.of_settings(settings).open()


def test_second_broker_is_used_if_the_first_is_unavailable(centre: Centre) -> None:
    centre.declare_queue()
    dead = f"amqp://s1:x@127.0.0.1:{free_port()}"
    link = link_to(dead, centre.account())
    link.open()
    link.publish(batch())
    link.close()
    # From then on, the broker that worked is tried first.
    link.open()
    link.publish(batch())
    link.close()


def test_tls_verifies_the_broker(
    rabbitmq: RabbitNode, vhost: Vhost, certificates: Certificates
) -> None:
    centre = Centre(vhost)
    centre.declare_queue()
    parts = pika.URLParameters(centre.account())
    rest = f":{rabbitmq.tls_port}/{parts.virtual_host}"
    url = f"amqps://s1:{password_in(parts)}@localhost{rest}"
    good = link_to(url, broker_ca_file=str(certificates.authority))
    good.open()
    good.publish(batch())
    good.close()
    with pytest.raises(BrokerUnavailable, match=r"[Cc]ertificate|CERTIFICATE"):
        link_to(url).open()
    with pytest.raises(SettingsError, match="certificates"):
        link_to(url, broker_ca_file="/none.pem")
    centre.connection.close()


def test_interrupt_from_another_thread_ends_a_wait(centre: Centre, link: BrokerLink) -> None:
    link.open()
    timer = threading.Timer(0.3, link.interrupt)
    timer.start()
    with pytest.raises(BrokerUnavailable):
        link.idle(10)
    timer.join()


def sensor_with(tmp_path: Path, broker: str, **settings: object) -> dict[str, object]:
    return {"broker": [broker], "seal_interval_s": 0.1, "state_interval_s": 1.0, **settings}


def greet(sensor: SensorProcess, source: str = "") -> None:
    with sensor.connect(0, source) as client:
        assert client.reply() == 220
        assert client.say(b"EHLO c.example.org\r\n") == 250


def test_sensor_delivers_its_events(centre: Centre, tmp_path: Path) -> None:
    centre.declare_queue()
    with running(tmp_path, **sensor_with(tmp_path, centre.account())) as sensor:
        greet(sensor, "127.0.0.7")
        _, body = centre.take_events()
        observation = decode(body).batch.observations[0]
        assert (observation.feed, observation.ip, observation.hits) == (
            "smtpgreet",
            "127.0.0.7",
            1,
        )
        # A replay beside the running sensor sends the same batch under the same number.
        assert sensor.call("replay", "--since", "1h").returncode == 0
        again = centre.take_events()[1]
        assert again == body
        assert sensor.stop() == 0
    assert read_status(sensor.spool).batches_waiting == 0
    assert "Traceback" not in sensor.log.read_text()


def test_broker_restart_is_survived(own_vhost: Vhost, tmp_path: Path) -> None:
    centre = Centre(own_vhost)
    centre.declare_queue()
    account = centre.account()
    centre.connection.close()
    with running(tmp_path, **sensor_with(tmp_path, account, backoff_max_s=2.0)) as sensor:
        greet(sensor, "127.0.0.1")
        wait_until(lambda: not sensor.rows(), what="the first batch")
        # Otherwise the queue may be lost with the node, which this test is not about.
        own_vhost.node.settle()
        own_vhost.node.kill()
        for number in range(5):
            greet(sensor, f"127.0.0.{10 + number}")
        assert len(sensor.rows()) >= 1
        own_vhost.node.start()
        wait_until(
            lambda: read_status(sensor.spool).batches_waiting == 0 and not sensor.rows(),
            what="the rest",
        )
        assert sensor.stop() == 0
    centre = Centre(own_vhost)
    got: dict[str, int] = {}
    numbers = set()
    while len(got) < 6:
        batch = decode(centre.take_events()[1]).batch
        assert (batch.spool, batch.seq) not in numbers
        numbers.add((batch.spool, batch.seq))
        for row in batch.observations:
            got[row.ip] = got.get(row.ip, 0) + row.hits
    assert set(got.values()) == {1}
    centre.connection.close()


def test_batch_is_delivered_when_the_broker_stops_blocking(centre: Centre, tmp_path: Path) -> None:
    """Short of memory, it stops reading (connection.blocked); batches wait, none is lost."""
    centre.declare_queue()
    node = centre.vhost.node
    settings = {"confirm_timeout_s": 1.0, "backoff_max_s": 1.0}
    with running(tmp_path, **sensor_with(tmp_path, centre.account(), **settings)) as sensor:
        greet(sensor, "127.0.0.7")
        centre.take_events()
        node.ctl("set_vm_memory_high_watermark", "absolute", "1")
        try:
            # The broker may still accept the message that makes it block.
            for number in range(3):
                greet(sensor, f"127.0.8.{1 + number}")
                time.sleep(0.5)
            wait_until(
                lambda: "the broker blocks all publishers" in sensor.log.read_text(),
                what="the sensor says why nothing goes out",
            )
            greet(sensor, "127.0.8.4")
            assert read_status(sensor.spool).batches_waiting >= 1
        finally:
            node.ctl("set_vm_memory_high_watermark", "absolute", "1GB")
        wait_until(
            lambda: read_status(sensor.spool).batches_waiting == 0 and not sensor.rows(),
            what="what was held has gone out",
        )
        assert sensor.stop() == 0
        hits: dict[str, int] = {}
        seen: set[tuple[UUID, int]] = set()
        while len(hits) < 4:
            batch = decode(centre.take_events()[1]).batch
            if (batch.spool, batch.seq) not in seen:
                seen.add((batch.spool, batch.seq))
                hits |= {row.ip: hits.get(row.ip, 0) + row.hits for row in batch.observations}
    assert hits == {f"127.0.8.{1 + number}": 1 for number in range(4)}
    assert "Traceback" not in sensor.log.read_text()


def test_sensor_replaces_a_spool_that_it_can_write_and_not_deliver(
    centre: Centre, tmp_path: Path
) -> None:
    centre.declare_queue()
    with running(tmp_path, **sensor_with(tmp_path, centre.account())) as sensor:
        greet(sensor, "127.0.0.7")
        centre.take_events()
        with closing(sqlite3.connect(sensor.spool)) as db:
            pages = "SELECT rootpage FROM sqlite_master WHERE tbl_name = 'batch'"
            roots = [root for (root,) in db.execute(pages)]
        # Otherwise its confirm would write a good page over the damage.
        wait_until(lambda: read_status(sensor.spool).batches_kept == 1, what="it is confirmed")
        wait_until(lambda: is_checkpointed(sensor.spool), what="all pages are in the file")
        with sensor.spool.open("r+b") as file:
            for root in roots:
                file.seek((root - 1) * PAGE_BYTES)
                file.write(b"\xff" * PAGE_BYTES)
        greet(sensor, "127.0.0.8")
        wait_until(lambda: "quarantined" in sensor.log.read_text(), what="it has a new file")
        greet(sensor, "127.0.0.9")
        delivered: set[str] = set()
        while "127.0.0.9" not in delivered:
            delivered |= {row.ip for row in decode(centre.take_events()[1]).batch.observations}
        assert sensor.stop() == 0


def is_checkpointed(path: Path) -> bool:
    with closing(sqlite3.connect(path)) as db:
        busy, _, _ = db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
        return not busy


def test_clean_stop_does_not_wait_for_a_broker_that_does_not_answer(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as deaf:
        broker = f"amqp://s1:x@127.0.0.1:{deaf.getsockname()[1]}"
        with running(tmp_path, **sensor_with(tmp_path, broker)) as sensor:
            greet(sensor)
            assert sensor.stop() == 0
            assert len(sensor.rows()) == 1


def test_spools_of_former_workers_are_delivered(centre: Centre, tmp_path: Path) -> None:
    centre.declare_queue()
    with running(tmp_path, workers=2) as sensor:
        for number in range(12):
            greet(sensor, f"127.0.7.{1 + number}")
        sensor.stop()
    with running(tmp_path, **sensor_with(tmp_path, centre.account())) as sensor:
        addresses: set[str] = set()
        while len(addresses) < 12:
            addresses |= {row.ip for row in decode(centre.take_events()[1]).batch.observations}
        sensor.stop()
    status = json.loads(sensor.call("status", "--json").stdout.splitlines()[0])
    assert status["sensor"] == "s1"


def test_spool_of_a_renamed_sensor_is_delivered_by_its_own_account(
    centre: Centre, tmp_path: Path
) -> None:
    centre.declare_queue()
    old_account = centre.account("old")
    with running(tmp_path, name="old") as sensor:
        greet(sensor, "127.0.0.8")
        sensor.stop()
    with running(tmp_path, **sensor_with(tmp_path, centre.account())) as sensor:
        greet(sensor, "127.0.0.9")
        centre.take_events()
        (shown,) = json.loads(sensor.call("left-behind", "list", "--json").stdout)
        assert (shown["file"], shown["kind"]) == ("old.spool", "other sensor")
        assert (shown["sensor"], shown["addresses"]) == ("old", 1)
        secret = tmp_path / "secret"
        secret.write_text("wrong")
        words = ("left-behind", "deliver", "old.spool", "--password-file", str(secret))
        refused = sensor.call(*words)
        assert (refused.returncode, "refuses the account 'old'" in refused.stderr) == (3, True)
        secret.write_text(old_account.split("//")[1].split("@")[0].split(":")[1])
        delivered = sensor.call(*words)
        assert delivered.returncode == 0, delivered.stderr
        properties, body = centre.take_events()
        batch = decode(body).batch
        assert (properties.user_id, batch.sensor) == ("old", "old")
        assert [(row.ip, row.hits) for row in batch.observations] == [("127.0.0.8", 1)]
        assert sensor.call("left-behind", "drop", "old.spool", "--yes").returncode == 0
        assert sensor.call("left-behind", "list").returncode == 1
        assert sensor.stop() == 0


def test_broker_that_takes_small_messages_only_gets_every_event_once(
    centre: Centre, tmp_path: Path
) -> None:
    """The sensor understands RabbitMQ's refusal, and seals smaller batches afterwards."""
    centre.declare_queue()
    limit = "application:set_env(rabbit, max_message_size, {})."
    centre.vhost.node.ctl("eval", limit.format(3_000))
    try:
        with running(tmp_path) as sensor:
            for number in range(100):
                greet(sensor, f"127.0.9.{1 + number}")
            sensor.stop()
        with running(tmp_path, **sensor_with(tmp_path, centre.account())) as sensor:
            hits: dict[str, int] = {}
            while len(hits) < 100:
                for row in decode(centre.take_events()[1]).batch.observations:
                    hits[row.ip] = hits.get(row.ip, 0) + row.hits
            assert set(hits.values()) == {1}
            assert sensor.stop() == 0
            status = read_status(sensor.spool)
            assert (status.batches_waiting, status.batches_too_large) == (0, 0)
    finally:
        centre.vhost.node.ctl("eval", limit.format(134_217_728))
