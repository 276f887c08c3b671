"""Sensors' accounts, created by the management API of a real RabbitMQ, and their limits."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing
from itertools import count

import pika
import pytest
from pika.adapters.blocking_connection import BlockingChannel
from pika.exceptions import AMQPError, ChannelClosedByBroker

from servers.processes import wait_until
from servers.rabbitmq import RabbitNode
from servers.raw_amqp import USER_ID, RawPublisher, RefusedByBrokerError, properties, short
from smtpfeeds_aggregator.fleet.broker import LOG_FILES, LOG_MAX_BYTES
from smtpfeeds_aggregator.fleet.closing import wait_until_closed
from smtpfeeds_aggregator.fleet.management import Management
from smtpfeeds_aggregator.fleet.rights import (
    SensorAccount,
    limits,
    new_password,
    password_hash,
    wrong_limits,
    wrong_rights,
)
from smtpfeeds_aggregator.sources.broker import declare
from smtpfeeds_common.errors import FleetError, SettingsError
from smtpfeeds_common.topology import EXCHANGE, QUEUE, routing_key

VHOST = "smtpfeeds-fleet"
Attempt = Callable[[BlockingChannel], object]


@pytest.fixture
def management(rabbitmq: RabbitNode) -> Iterator[Management]:
    made = Management(
        f"http://{rabbitmq.home.user}@{rabbitmq.host}:{rabbitmq.admin_port}",
        rabbitmq.home.password,
        vhost=VHOST,
    )
    made.add_vhost()
    rabbitmq.admin.call("PUT", "permissions", VHOST, rabbitmq.home.user, body=ALL)
    yield made
    for name in made.sensors():
        made.delete(name)
    rabbitmq.admin.delete_vhost(VHOST)
    made.close()


ALL = {"configure": ".*", "write": ".*", "read": ".*"}


def enroll(management: Management, *accounts: SensorAccount) -> int:
    return list(management.put_sensors(accounts))[-1]


def connect(rabbitmq: RabbitNode, account: SensorAccount) -> pika.BlockingConnection:
    return pika.BlockingConnection(
        pika.ConnectionParameters(
            rabbitmq.host,
            rabbitmq.port,
            VHOST,
            pika.PlainCredentials(account.name, account.password or ""),
        )
    )


def publish(channel: BlockingChannel, key: str, user_id: str, exchange: str = EXCHANGE) -> None:
    properties = pika.BasicProperties(user_id=user_id)
    channel.basic_publish(exchange, key, b"{}", properties)


def test_the_hash_is_the_one_that_the_broker_documents() -> None:
    # The example of the page that describes the computation.
    salt = bytes.fromhex("908DC60A")
    assert password_hash("test12", salt) == "kI3GCqW5JLMJa4iX1lo7X4D6XbYqlLgxIs30+P6tENUV2POR"


def test_an_account_may_publish_under_its_own_key_and_nothing_else(
    rabbitmq: RabbitNode, management: Management
) -> None:
    account = SensorAccount("edge-1", new_password())
    assert enroll(management, account) == 1
    connection = connect(rabbitmq, account)
    channel = connection.channel()
    channel.confirm_delivery()
    publish(channel, routing_key("edge-1"), "edge-1")
    refused: dict[str, tuple[int, Attempt]] = {
        "another key": (403, lambda c: publish(c, routing_key("edge-2"), "edge-1")),
        "another name": (406, lambda c: publish(c, routing_key("edge-1"), "edge-2")),
        "default exchange": (403, lambda c: publish(c, "smtpfeeds.observations", "edge-1", "")),
        "declare": (403, lambda c: c.queue_declare("edge-1")),
        "read": (403, lambda c: c.basic_get("smtpfeeds.observations")),
        "bind": (403, lambda c: c.exchange_declare("other", "topic")),
    }
    codes = {}
    for what, (_, attempt) in refused.items():
        other = connection.channel()
        other.confirm_delivery()
        with pytest.raises(ChannelClosedByBroker) as error:
            attempt(other)
        codes[what] = error.value.reply_code
    connection.close()
    assert codes["read"] in {403, 404}
    assert {what: code for what, code in codes.items() if what != "read"} == {
        what: code for what, (code, _) in refused.items() if what != "read"
    }


def test_an_account_has_a_bound_of_connections(
    rabbitmq: RabbitNode, management: Management
) -> None:
    account = SensorAccount("edge-1", new_password(), workers=1)
    enroll(management, account)
    # A worker, a check, a replay, and connections whose end the broker has not noticed.
    held = [connect(rabbitmq, account) for _ in range(5)]
    with pytest.raises(AMQPError):
        connect(rabbitmq, account)
    for connection in held:
        connection.close()


def test_exchange_comes_before_the_rights_that_name_it_and_an_existing_one_stays(
    rabbitmq: RabbitNode, management: Management
) -> None:
    """RabbitMQ 4.3 refuses rights in an exchange that does not exist, and deletes them with it."""
    admin = rabbitmq.admin
    enroll(management, SensorAccount("edge-1", new_password()))
    with closing(pika.BlockingConnection(pika.URLParameters(rabbitmq.url(VHOST)))) as connection:
        declare(connection, QUEUE)  # as the aggregator does: an exchange that differs is an error
    assert admin.call("GET", "exchanges", VHOST, EXCHANGE)["type"] == "topic"
    admin.call("DELETE", "exchanges", VHOST, EXCHANGE)
    management.put_rights([("edge-1", 1)])
    assert list(wrong_rights(management.accounts()["edge-1"], VHOST)) == []
    admin.call("DELETE", "exchanges", VHOST, EXCHANGE)
    admin.call("PUT", "exchanges", VHOST, EXCHANGE, body={"type": "direct", "durable": True})
    enroll(management, SensorAccount("edge-1", new_password()))
    assert admin.call("GET", "exchanges", VHOST, EXCHANGE)["type"] == "direct"


def test_second_enrolment_replaces_the_password_and_duplicates_nothing(
    rabbitmq: RabbitNode, management: Management
) -> None:
    first = SensorAccount("edge-1", new_password())
    second = SensorAccount("edge-1", new_password())
    enroll(management, first)
    enroll(management, second)
    assert management.sensors() == ["edge-1"]
    with pytest.raises(AMQPError):
        connect(rabbitmq, first)
    connect(rabbitmq, second).close()


def test_account_without_a_password_accepts_none(
    rabbitmq: RabbitNode, management: Management
) -> None:
    enroll(management, SensorAccount("edge-1", None))
    with pytest.raises(AMQPError):
        connect(rabbitmq, SensorAccount("edge-1", ""))


def test_a_deleted_account_is_closed_at_once(rabbitmq: RabbitNode, management: Management) -> None:
    account = SensorAccount("edge-1", new_password())
    enroll(management, account)
    connection = connect(rabbitmq, account)
    wait_until(lambda: bool(management.connections("edge-1")), what="it is listed")
    assert management.delete("edge-1")
    with pytest.raises(AMQPError):
        connection.process_data_events(time_limit=60)
    with pytest.raises(AMQPError):
        connect(rabbitmq, account)
    assert not management.delete("edge-1")
    assert "edge-1" not in management.accounts()


def test_connections_of_a_deleted_account_end_although_the_client_does_not_answer(
    rabbitmq: RabbitNode, management: Management
) -> None:
    """The broker waits 30 s for the client; an entry without a connection stays for ever."""
    account = SensorAccount("edge-1", new_password())
    enroll(management, account)
    mine = properties(USER_ID, short(b"edge-1"))
    key = routing_key("edge-1").encode()
    notes: list[str] = []
    with RawPublisher(rabbitmq.url(VHOST, account.name, account.password)) as silent:
        silent.publish(EXCHANGE, key, mine, b"{}")
        wait_until(lambda: bool(management.connections("edge-1")), what="it is listed")
        rabbitmq.admin.delete_user("edge-1")  # the broker closes its connections, and waits
        wait_until_closed(management, ["edge-1"], notes.append)
        assert management.connections("edge-1") == []
        with pytest.raises((RefusedByBrokerError, OSError)):
            silent.publish(EXCHANGE, key, mine, b"{}")

    _track(rabbitmq, "connection_created")
    listed = [connection.name for connection in management.connections("edge-1")]
    seconds = count()
    wait_until_closed(
        management, ["edge-1"], notes.append, clock=lambda: next(seconds), sleep=lambda _: None
    )
    _track(rabbitmq, "connection_closed")
    assert listed == [GONE]
    assert notes[-1].startswith(f"the broker lists connections of edge-1 that have ended: {GONE};")
    assert management.connections("edge-1") == []


GONE = "127.0.0.1:1 -> 127.0.0.1:2"


def _track(rabbitmq: RabbitNode, event: str) -> None:
    """Let the broker's table of connections see an event of a connection whose process is gone."""
    rabbitmq.ctl(
        "eval",
        "{Gone, End} = spawn_monitor(fun() -> ok end), receive {'DOWN', End, _, _, _} -> ok end,"
        f" rabbit_connection_tracking:handle_cast({{{event}, [{{type, network}}, {{node, node()}},"
        f' {{name, <<"{GONE}">>}}, {{vhost, <<"{VHOST}">>}}, {{user, <<"edge-1">>}},'
        " {pid, Gone}, {protocol, {0, 9, 1}}, {peer_host, {127, 0, 0, 1}}, {peer_port, 1},"
        " {connected_at, 1}]}).",
    )


def test_many_accounts_are_created_in_few_requests_with_their_limits(
    management: Management,
) -> None:
    accounts = [SensorAccount(f"edge-{number}", new_password(), 2) for number in range(300)]
    assert list(management.put_sensors(accounts)) == [250, 300]
    stored = management.accounts()
    assert len(management.sensors()) == 300
    for account in accounts:
        of = stored[account.name]
        bounds = {"max-connections": of.max_connections, "max-channels": of.max_channels}
        assert bounds == limits(2)
        assert (of.workers, of.has_password) == (2, True)
        assert [*wrong_rights(of, VHOST), *wrong_limits(of)] == []


def test_wrong_rights_of_an_account_are_named_and_corrected(
    rabbitmq: RabbitNode, management: Management
) -> None:
    account = SensorAccount("edge-1", new_password(), 3)
    enroll(management, account)
    admin = rabbitmq.admin
    admin.call("PUT", "permissions", VHOST, "edge-1", body=ALL)
    admin.call("PUT", "permissions", "/", "edge-1", body=ALL)
    admin.call("DELETE", "topic-permissions", VHOST, "edge-1")
    admin.call("DELETE", "user-limits", "edge-1", "max-connections")
    admin.call("PUT", "user-limits", "edge-1", "max-channels", body={"value": -1})
    stored = management.accounts()["edge-1"]
    assert list(wrong_rights(stored, VHOST)) == [
        f"other permissions in {VHOST} than to publish: configure .*, read .*, write .*",
        "any routing key: it can publish under other sensors' names",
        "permissions in the virtual host /",
    ]
    assert list(wrong_limits(stored)) == ["no limit of connections", "no limit of channels"]
    admin.call("DELETE", "permissions", "/", "edge-1")
    management.put_rights([("edge-1", 3)])
    stored = management.accounts()["edge-1"]
    assert [*wrong_rights(stored, VHOST), *wrong_limits(stored)] == []
    connect(rabbitmq, account).close()


def test_accounts_of_an_operator_do_not_belong_to_the_fleet(
    rabbitmq: RabbitNode, management: Management
) -> None:
    enroll(management, SensorAccount("edge-1", new_password()))
    assert rabbitmq.home.user not in management.sensors()


def test_error_does_not_contain_the_password(rabbitmq: RabbitNode) -> None:
    where = f"http://{rabbitmq.home.user}@{rabbitmq.host}:{rabbitmq.admin_port}"
    wrong = Management(where, "not-the-password", vhost=VHOST)
    with pytest.raises(FleetError, match="refuses the account: check its password") as error:
        wrong.sensors()
    assert "not-the-password" not in str(error.value)
    nobody = Management(f"http://a@{rabbitmq.host}:1", "secret-word", vhost=VHOST)
    with pytest.raises(FleetError, match="does not answer") as silent:
        nobody.sensors()
    assert "secret-word" not in str(silent.value)
    with pytest.raises(SettingsError, match="not of the form"):
        Management("broker.example:15671", "x", vhost=VHOST)


def test_brokers_log_is_bounded(rabbitmq: RabbitNode) -> None:
    """It has a line for each connection, also of somebody without an account."""
    handlers = rabbitmq.ctl("eval", "[maps:get(config, H) || H <- logger:get_handler_config()].")
    assert f"max_no_bytes => {LOG_MAX_BYTES}" in handlers
    assert f"max_no_files => {LOG_FILES - 1}" in handlers
