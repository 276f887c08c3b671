"""The broker as a sensor uses it: exchange, queue and accounts in a real RabbitMQ."""

from __future__ import annotations

import pika

from servers.fixtures import Vhost
from servers.processes import wait_until
from smtpfeeds_common.topology import BINDING_KEY, EXCHANGE, QUEUE
from smtpfeeds_common.wire import decode


class Centre:
    """Declares what the aggregator declares, on an administrator's connection."""

    def __init__(self, vhost: Vhost) -> None:
        self.vhost = vhost
        self.connection = pika.BlockingConnection(pika.URLParameters(vhost.url))
        self.channel = self.connection.channel()
        self.channel.exchange_declare(EXCHANGE, "topic", durable=True)

    def declare_queue(self, **arguments: object) -> None:
        self.channel.queue_declare(
            QUEUE, durable=True, arguments={"x-queue-type": "quorum", **arguments}
        )
        self.channel.queue_bind(QUEUE, EXCHANGE, BINDING_KEY)

    def account(self, name: str = "s1") -> str:
        return self.vhost.add_account(
            name, write=f"^{EXCHANGE}$", topics={EXCHANGE: rf"^observations\.{name}$"}
        )

    def take(self, limit_s: float = 60) -> tuple[pika.BasicProperties, bytes]:
        messages: list[tuple[pika.BasicProperties, bytes]] = []

        def look() -> bool:
            method, properties, body = self.channel.basic_get(QUEUE, auto_ack=True)
            if method is not None:
                assert properties is not None
                assert body is not None
                messages.append((properties, body))
            return bool(messages)

        wait_until(look, limit_s=limit_s, what="a batch in the queue")
        return messages[0]

    def take_events(self, limit_s: float = 60) -> tuple[pika.BasicProperties, bytes]:
        while True:
            properties, body = self.take(limit_s)
            if decode(body).batch.observations:
                return properties, body

    def waiting(self) -> int:
        """Return the number of messages in the queue."""
        return int(self.channel.queue_declare(QUEUE, passive=True).method.message_count)
