"""The accounts of a sensor and of the aggregator have no other rights, tried on a real RabbitMQ."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import NamedTuple

import pika
import pytest
from pika.adapters.blocking_connection import BlockingChannel
from pika.exceptions import (
    ChannelClosedByBroker,
    ConnectionClosedByBroker,
    ProbableAccessDeniedError,
)

from servers.rabbitmq import RabbitNode
from servers.rabbitmq_admin import AdminError, RabbitAdmin
from smtpfeeds_aggregator.cli.fleet import CENTRE_RIGHTS
from smtpfeeds_aggregator.cli.fleet_accounts import CENTRE
from smtpfeeds_aggregator.fleet.management import Management
from smtpfeeds_aggregator.fleet.rights import SensorAccount, limits, new_password
from smtpfeeds_common.topology import BINDING_KEY, EXCHANGE, QUEUE, REFUSED_QUEUE, routing_key

VHOST = "smtpfeeds-refusals"
OTHER_VHOST = "smtpfeeds-of-another"
SENSOR = "edge-7"
ACCESS_REFUSED, PRECONDITION_FAILED, NOT_ALLOWED = 403, 406, 530
Attempt = Callable[[BlockingChannel], object]


class Broker(NamedTuple):
    """A virtual host with the centre's topology, and both accounts."""

    node: RabbitNode
    management: Management
    passwords: dict[str, str]

    def connect(self, name: str, vhost: str = VHOST) -> pika.BlockingConnection:
        credentials = pika.PlainCredentials(name, self.passwords[name])
        where = (self.node.host, self.node.port, vhost, credentials)
        return pika.BlockingConnection(pika.ConnectionParameters(*where))

    def answer(self, connection: pika.BlockingConnection, attempt: Attempt) -> int:
        """Return the code with which the broker closes a new channel; 0 if it obeyed."""
        channel = connection.channel()
        channel.confirm_delivery()
        try:
            attempt(channel)
        except ChannelClosedByBroker as exc:
            return int(exc.reply_code)
        channel.close()
        return 0


@pytest.fixture
def broker(rabbitmq: RabbitNode) -> Iterator[Broker]:
    where = f"http://{rabbitmq.home.user}@{rabbitmq.host}:{rabbitmq.admin_port}"
    management = Management(where, rabbitmq.home.password, vhost=VHOST)
    passwords = {SENSOR: new_password(), CENTRE: new_password()}
    management.add_vhost()
    rabbitmq.admin.add_vhost(OTHER_VHOST)
    management.put_account(CENTRE, passwords[CENTRE], CENTRE_RIGHTS)
    assert list(management.put_sensors([SensorAccount(SENSOR, passwords[SENSOR])])) == [1]
    accounts_of_broker = Broker(rabbitmq, management, passwords)
    with accounts_of_broker.connect(CENTRE) as connection:
        channel = connection.channel()
        channel.exchange_declare(EXCHANGE, "topic", durable=True)
        for queue in (QUEUE, REFUSED_QUEUE):
            channel.queue_declare(queue, durable=True)
        channel.queue_bind(QUEUE, EXCHANGE, BINDING_KEY)
    yield accounts_of_broker
    for name in passwords:
        management.delete(name)
    management.close()
    for vhost in (VHOST, OTHER_VHOST):
        rabbitmq.admin.delete_vhost(vhost)


def publish(key: str, user_id: str | None = SENSOR, exchange: str = EXCHANGE) -> Attempt:
    properties = pika.BasicProperties(user_id=user_id)
    return lambda channel: channel.basic_publish(exchange, key, b"{}", properties)


def test_sensors_account_publishes_under_its_own_key_and_everything_else_is_refused(
    broker: Broker,
) -> None:
    own = routing_key(SENSOR)
    refused: dict[str, tuple[Attempt, int]] = {
        "another sensor's key": (publish(routing_key("edge-8")), ACCESS_REFUSED),
        "a key that begins like its own": (publish(f"{own}.more"), ACCESS_REFUSED),
        "a key that ends like its own": (publish(f"x.{own}"), ACCESS_REFUSED),
        "a forged user_id": (publish(own, "edge-8"), PRECONDITION_FAILED),
        "the centre's user_id": (publish(own, CENTRE), PRECONDITION_FAILED),
        "the default exchange": (publish(QUEUE, exchange=""), ACCESS_REFUSED),
        "the queue of the refused": (publish(REFUSED_QUEUE, exchange=""), ACCESS_REFUSED),
        "another exchange": (publish(own, exchange="amq.topic"), ACCESS_REFUSED),
        "declare a queue": (lambda c: c.queue_declare("mine"), ACCESS_REFUSED),
        "declare an exchange": (lambda c: c.exchange_declare("mine"), ACCESS_REFUSED),
        "declare a queue of the server's naming": (
            lambda c: c.queue_declare("", exclusive=True),
            ACCESS_REFUSED,
        ),
        "read one message": (lambda c: c.basic_get(QUEUE), ACCESS_REFUSED),
        "consume": (lambda c: c.basic_consume(QUEUE, lambda *_: None), ACCESS_REFUSED),
        "read the refused": (lambda c: c.basic_get(REFUSED_QUEUE), ACCESS_REFUSED),
        "bind": (lambda c: c.queue_bind(QUEUE, EXCHANGE, "#"), ACCESS_REFUSED),
        "unbind": (lambda c: c.queue_unbind(QUEUE, EXCHANGE, BINDING_KEY), ACCESS_REFUSED),
        "purge": (lambda c: c.queue_purge(QUEUE), ACCESS_REFUSED),
        "delete the queue": (lambda c: c.queue_delete(QUEUE), ACCESS_REFUSED),
        "delete the exchange": (lambda c: c.exchange_delete(EXCHANGE), ACCESS_REFUSED),
    }
    with broker.connect(SENSOR) as connection:
        codes = {what: broker.answer(connection, attempt) for what, (attempt, _) in refused.items()}
        assert codes == {what: code for what, (_, code) in refused.items()}
        assert broker.answer(connection, publish(own)) == 0
    with broker.connect(CENTRE) as connection:
        method, properties, _ = connection.channel().basic_get(QUEUE, auto_ack=True)
        assert method is not None
        assert (method.message_count, properties and properties.user_id) == (0, SENSOR)


def test_accounts_reach_no_other_virtual_host_and_no_administration(broker: Broker) -> None:
    for name, password in broker.passwords.items():
        with pytest.raises(ProbableAccessDeniedError, match=r"\(530\) .*access to vhost"):
            broker.connect(name, OTHER_VHOST)
        admin = RabbitAdmin(broker.node.host, broker.node.admin_port, name, password)
        with pytest.raises(AdminError, match=r": 40[13] "):
            admin.call("GET", "users")


def test_sensors_account_has_a_bound_of_connections_and_of_channels(broker: Broker) -> None:
    """A stolen password cannot exhaust the broker; the bound is per account."""
    with ExitStack() as stack:
        bound = limits(workers=1)
        held = [
            stack.enter_context(broker.connect(SENSOR)) for _ in range(bound["max-connections"])
        ]
        with pytest.raises(ProbableAccessDeniedError, match=r"\(530\) .*connection limit"):
            broker.connect(SENSOR)
        # Other accounts are not affected.
        broker.connect(CENTRE).close()
        channels = [held[0].channel() for _ in range(bound["max-channels"])]
        with pytest.raises(ConnectionClosedByBroker) as too_many:
            held[0].channel()
        assert too_many.value.reply_code == NOT_ALLOWED
        assert all(channel.is_closed for channel in channels)


def test_centres_account_declares_and_reads_what_is_its_own_and_nothing_else(
    broker: Broker,
) -> None:
    refused: dict[str, Attempt] = {
        "declare another's queue": lambda c: c.queue_declare("other"),
        "declare a queue that only begins so": lambda c: c.queue_declare("smtpfeeds-other"),
        "read another's queue": lambda c: c.basic_get("other"),
        "publish to another exchange": publish("x", CENTRE, "amq.topic"),
        "declare an exchange of another": lambda c: c.exchange_declare("other"),
        "speak for a sensor": publish(routing_key(SENSOR), SENSOR),
    }
    with broker.connect(CENTRE) as connection:
        codes = {what: broker.answer(connection, attempt) for what, attempt in refused.items()}
        assert codes.pop("speak for a sensor") == PRECONDITION_FAILED
        assert set(codes.values()) == {ACCESS_REFUSED}, codes
        allowed = (
            lambda c: c.queue_declare(QUEUE, durable=True),
            lambda c: c.basic_get(QUEUE),
            publish(REFUSED_QUEUE, CENTRE, ""),
        )
        assert [broker.answer(connection, attempt) for attempt in allowed] == [0, 0, 0]
