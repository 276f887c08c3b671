"""The servers of the tests are isolated, can be broken and repaired, and end afterwards."""

from __future__ import annotations

import os
import signal
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pika
import pika.exceptions
import psycopg
import pytest
from pika.adapters.blocking_connection import BlockingChannel

from servers.certificates import Certificates
from servers.fixtures import Vhost
from servers.postgres import PostgresServer, database_name
from servers.processes import HANG_LIMIT_S, bound_to_parent, free_port, wait_until
from servers.proxy import CuttingProxy, Target
from servers.rabbitmq import RabbitNode

QUORUM = {"x-queue-type": "quorum"}
MakeProxy = Callable[[Target], CuttingProxy]


def connect(url: str) -> pika.BlockingConnection:
    return pika.BlockingConnection(pika.URLParameters(url))


def publish(channel: BlockingChannel, body: bytes) -> None:
    lasting = pika.BasicProperties(delivery_mode=2)
    channel.basic_publish("", "observations", body, properties=lasting, mandatory=True)


def first_body(url: str, limit_s: float = HANG_LIMIT_S) -> bytes | None:
    """Return the first body of a consumer; without a leader RabbitMQ closes with 541."""
    deadline = time.monotonic() + limit_s
    while True:
        try:
            with connect(url) as connection:
                for _, _, body in connection.channel().consume(
                    "observations", inactivity_timeout=HANG_LIMIT_S
                ):
                    assert body is None or isinstance(body, bytes)
                    return body
        except pika.exceptions.ConnectionClosedByBroker as exc:
            if exc.reply_code != 541 or time.monotonic() > deadline:
                raise
            time.sleep(0.2)


def test_port_is_given_once() -> None:
    """A broker needs four ports that are free until it listens, and all different."""
    assert len({free_port() for _ in range(500)}) == 500


def test_confirmed_message_is_consumed_from_a_quorum_queue(vhost: Vhost) -> None:
    with connect(vhost.url) as connection:
        channel = connection.channel()
        channel.confirm_delivery()
        channel.queue_declare("observations", durable=True, arguments=QUORUM)
        publish(channel, b"batch")
        for method, _, body in channel.consume("observations", inactivity_timeout=HANG_LIMIT_S):
            assert body == b"batch"
            assert method is not None
            channel.basic_ack(method.delivery_tag)
            break
        channel.cancel()
        assert vhost.node.admin.queue(vhost.name, "observations")["type"] == "quorum"


def test_account_may_do_only_what_was_permitted(vhost: Vhost) -> None:
    with connect(vhost.url) as connection:
        connection.channel().exchange_declare("smtpfeeds", exchange_type="topic", durable=True)
    url = vhost.add_account(
        "sensor-1", write="^smtpfeeds$", topics={"smtpfeeds": "^observations\\.sensor-1$"}
    )
    with connect(url) as connection:
        channel = connection.channel()
        channel.confirm_delivery()
        channel.basic_publish("smtpfeeds", "observations.sensor-1", b"own key")
        with pytest.raises(pika.exceptions.ChannelClosedByBroker, match="403.*observations"):
            channel.basic_publish("smtpfeeds", "observations.sensor-2", b"another's key")
        with pytest.raises(pika.exceptions.ChannelClosedByBroker, match="403"):
            connection.channel().queue_declare("mine")


@pytest.mark.parametrize("first", [True, False], ids=["first", "second"])
def test_vhosts_of_two_tests_share_nothing(vhost: Vhost, first: bool) -> None:
    with connect(vhost.url) as connection:
        channel = connection.channel()
        with pytest.raises(pika.exceptions.ChannelClosedByBroker, match="404"):
            channel.queue_declare("observations", passive=True)
        connection.channel().queue_declare("observations", durable=True, arguments=QUORUM)


def test_tls_listener_shows_a_certificate_of_the_test_authority(
    rabbitmq: RabbitNode, vhost: Vhost, certificates: Certificates
) -> None:
    context = ssl.create_default_context(cafile=str(certificates.authority))
    parameters = pika.ConnectionParameters(
        rabbitmq.host,
        rabbitmq.tls_port,
        vhost.name,
        pika.PlainCredentials(rabbitmq.home.user, rabbitmq.home.password),
        ssl_options=pika.SSLOptions(context, "localhost"),
    )
    with pika.BlockingConnection(parameters) as connection:
        assert connection.is_open


def test_killed_broker_comes_back_with_its_confirmed_messages(own_vhost: Vhost) -> None:
    with connect(own_vhost.url) as connection:
        channel = connection.channel()
        channel.confirm_delivery()
        channel.queue_declare("observations", durable=True, arguments=QUORUM)
        publish(channel, b"batch")
        own_vhost.node.settle()
        own_vhost.node.kill()
        with pytest.raises(pika.exceptions.AMQPConnectionError):
            connection.process_data_events(10)
    with pytest.raises(pika.exceptions.AMQPConnectionError):
        connect(own_vhost.url)
    own_vhost.node.start()
    # A depth would come from statistics that the queue's leader does not have yet.
    assert first_body(own_vhost.url) == b"batch"


def test_unlimited_redelivery_needs_a_large_positive_delivery_limit(vhost: Vhost) -> None:
    """RabbitMQ 3.10 reads -1 literally and drops a message at its first requeue."""
    with connect(vhost.url) as connection:
        channel = connection.channel()
        channel.confirm_delivery()
        arguments = {**QUORUM, "x-delivery-limit": 2**31 - 1}
        channel.queue_declare("observations", durable=True, arguments=arguments)
        publish(channel, b"batch")
        channel.basic_qos(prefetch_count=1)
        deliveries = 0
        for method, _, _ in channel.consume("observations", inactivity_timeout=HANG_LIMIT_S):
            assert method is not None, "no delivery"
            deliveries += 1
            if deliveries == 30:  # the default of RabbitMQ 4 is 20
                break
            channel.basic_nack(method.delivery_tag, requeue=True)
        channel.cancel()
        assert deliveries == 30


def test_each_test_gets_an_empty_database_of_its_own(every_postgres: PostgresServer) -> None:
    one, two = every_postgres.create_database(), every_postgres.create_database()
    with psycopg.connect(one) as connection:
        connection.execute("CREATE TABLE sighting (ip inet)")
    with psycopg.connect(two) as connection:
        row = connection.execute("SELECT to_regclass('sighting')").fetchone()
        assert row == (None,)
    every_postgres.drop_database(one)
    copy = every_postgres.create_database(template=database_name(two))
    every_postgres.drop_database(two)
    every_postgres.drop_database(copy)


def test_database_role_is_owner_and_not_superuser(every_database: str) -> None:
    with psycopg.connect(every_database) as connection:
        connection.execute("CREATE SCHEMA feeds")
        row = connection.execute(
            "SELECT rolsuper, current_setting('server_encoding'), current_setting('TimeZone') "
            "FROM pg_roles WHERE rolname = current_user"
        ).fetchone()
    assert row == (False, "UTF8", "UTC")


def test_cut_database_connection_fails_and_the_next_one_works(
    postgres: PostgresServer, database: str, cutting_proxy: MakeProxy
) -> None:
    proxy = cutting_proxy(postgres.private.socket_path)
    dsn = postgres.dsn_through(proxy.host, proxy.port, database)
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute("SELECT 1")
        assert proxy.cut() == 1
        with pytest.raises(psycopg.OperationalError):
            connection.execute("SELECT 1")
    with psycopg.connect(dsn) as connection:
        assert connection.execute("SELECT 1").fetchone() == (1,)
    assert proxy.accepted == 2
    proxy.refuse()
    with pytest.raises(psycopg.OperationalError, match="refused"):
        psycopg.connect(dsn)
    proxy.forward()
    psycopg.connect(dsn).close()


def echo_server() -> tuple[socket.socket, int]:
    listener = socket.create_server(("127.0.0.1", 0))
    return listener, listener.getsockname()[1]


def test_paused_bytes_arrive_later_and_swallowed_bytes_never(cutting_proxy: MakeProxy) -> None:
    listener, port = echo_server()
    proxy = cutting_proxy(("127.0.0.1", port))
    with (
        listener,
        socket.create_connection((proxy.host, proxy.port), timeout=HANG_LIMIT_S) as client,
    ):
        far, _ = listener.accept()
        with far:
            proxy.pause()
            client.sendall(b"late")
            far.settimeout(0.2)
            with pytest.raises(TimeoutError):
                far.recv(10)
            far.settimeout(HANG_LIMIT_S)
            proxy.forward()
            assert far.recv(10) == b"late"
            proxy.blackhole()
            client.sendall(b"never")
            far.settimeout(0.2)
            with pytest.raises(TimeoutError):
                far.recv(10)
            far.settimeout(HANG_LIMIT_S)
            proxy.forward()
            client.sendall(b"again")
            assert far.recv(10) == b"again"
            client.shutdown(socket.SHUT_WR)
            assert far.recv(10) == b"", "the end of one way is handed on"
            far.sendall(b"answer")
            assert client.recv(10) == b"answer", "the other way still flows"


def test_proxy_without_a_target_resets_its_client(cutting_proxy: MakeProxy) -> None:
    proxy = cutting_proxy(("127.0.0.1", free_port()))
    with (  # the reset may come before or after the connection is open
        pytest.raises(ConnectionResetError),
        socket.create_connection((proxy.host, proxy.port), timeout=HANG_LIMIT_S) as client,
    ):
        client.recv(1)


_STARTS_SERVERS = """
import sys, time
from pathlib import Path
from servers.rabbitmq import RabbitHome, RabbitNode
from servers.postgres import PostgresServer
folder = Path(sys.argv[1])
server = PostgresServer(folder)
server.private.start()
home = RabbitHome.make(folder / "rabbitmq")
node = RabbitNode(home)
node.launch()
print(server.private.pid, home.epmd.pid, node.pid, flush=True)
time.sleep(600)
"""


def test_killed_test_run_leaves_no_server_behind(tmp_path: Path) -> None:
    tests = Path(__file__).parents[1]
    starter = subprocess.Popen(
        [sys.executable, "-c", _STARTS_SERVERS, str(tmp_path)],
        env={**os.environ, "PYTHONPATH": str(tests)},
        stdout=subprocess.PIPE,
        text=True,
    )
    with starter:
        assert starter.stdout is not None
        pids = [int(word) for word in starter.stdout.readline().split()]
        assert len(pids) == 3
        starter.send_signal(signal.SIGKILL)
    wait_until(lambda: not any(_runs(pid) for pid in pids), what="the servers are gone")


def test_command_does_not_run_without_its_parent(tmp_path: Path) -> None:
    """Its parent may end before the kernel watches it; another one takes its place, here `sh`."""
    done, left = tmp_path / "done", tmp_path / "left"
    subprocess.run(bound_to_parent(["touch", str(done)]), check=True)
    assert done.exists()
    later = ["sh", "-c", '"$@" || exit 3', "sh", *bound_to_parent(["touch", str(left)])]
    assert subprocess.run(later, check=False).returncode == 3
    assert not left.exists()


def _runs(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"
