"""Keeps samples of refused messages in a queue at the broker.

It has its own connection, open only while there is something to publish. It publishes
each message persistent and mandatory, waits for the confirm, and only then acknowledges
the original delivery. ``refusal_counts`` decides which messages are samples and how much
of a body is kept; that and the consumer's prefetch bound the messages that wait here.

A broker short of memory or disk may accept nothing until its queue is shorter. Samples are not
acknowledged while they wait, so they could take the whole prefetch, and then nothing would make
the queue shorter. When many wait and one cannot be kept, all of them are given up: they are
counted, as every refused message is, and acknowledged.
"""

import contextlib
import logging
import queue
import time
import uuid
from collections.abc import Callable
from threading import Event
from typing import Final, NamedTuple

import pika
from pika.adapters.blocking_connection import BlockingChannel
from pika.exceptions import AMQPError, UnroutableError

from smtpfeeds_common.errors import BrokerUnavailable, SmtpfeedsError
from smtpfeeds_common.logs import fields
from smtpfeeds_common.topology import CONTENT_TYPE, REFUSED_QUEUE

from ..settings import AggregatorSettings
from . import Delivery, Refusal, broker

logger = logging.getLogger(__name__)

#: Headers of a refused message, and of a requeued one.
ACCOUNT_HEADER: Final = "x-smtpfeeds-account"
REASON_HEADER: Final = "x-smtpfeeds-reason"
KIND_HEADER: Final = "x-smtpfeeds-kind"
ROUTING_KEY_HEADER: Final = "x-smtpfeeds-routing-key"
#: Octets at the end of a body that were not kept.
CUT_HEADER: Final = "x-smtpfeeds-cut"

_REASON_MAX: Final = 1_000
_IDLE_S: Final = 5.0
_TICK_S: Final = 0.5
_RETRY_S: Final = 2.0


class Sample(NamedTuple):
    """A refused message to keep, and how many octets of its body."""

    delivery: Delivery
    refusal: Refusal
    octets: int


class RefusedPublisher:
    """Publishes samples of refused messages; any thread calls `put`, `run` has its own."""

    def __init__(
        self,
        settings: AggregatorSettings,
        account: str,
        acknowledge: Callable[[list[Delivery]], None],
        is_current: Callable[[Delivery], bool],
        waiting_max: Callable[[], int],
    ) -> None:
        """Prepare; `run` publishes.

        Args:
            settings: name the broker.
            account: the aggregator's own.
            acknowledge: acknowledges deliveries whose samples are kept or given up.
            is_current: whether a delivery can still be acknowledged.
            waiting_max: how many samples may wait while the broker does not accept them.
        """
        self._settings = settings
        self._account = account
        self._waiting_max = waiting_max
        self._acknowledge = acknowledge
        self._is_current = is_current
        self._waiting: queue.SimpleQueue[Sample] = queue.SimpleQueue()

    def put(self, sample: Sample) -> None:
        """Queue a sample to be published, then acknowledged."""
        self._waiting.put(sample)

    def run(self, stop: Event) -> None:
        """Publish samples until stopped."""
        while not stop.is_set():
            self.turn(stop)

    def turn(self, stop: Event) -> None:
        """Publish what waits or arrives within a tick."""
        try:
            first = self._waiting.get(timeout=_TICK_S)
        except queue.Empty:
            return
        self._publish_burst(first, stop)

    def _publish_burst(self, first: Sample, stop: Event) -> None:
        """Publish this sample and those that follow soon on one connection."""
        item: Sample | None = first
        connection: pika.BlockingConnection | None = None
        try:
            connection = broker.connect(self._settings, "refused")
            broker.declare_refused(connection)
            channel = connection.channel()
            channel.confirm_delivery()
            while item is not None:
                self._publish(channel, item)
                item = None  # acknowledged, so it is not tried again if `_next` fails
                item = self._next(connection, stop)
        except Exception as exc:
            # Catch everything: the end of this thread would end the program, and the same
            # message would end the next one.
            expected = isinstance(exc, AMQPError | OSError | SmtpfeedsError)
            logger.warning(
                "refused messages not kept yet",
                extra=fields(reason=str(exc) or type(exc).__name__),
                exc_info=not expected,
            )
            if item is not None:
                self._waiting.put(item)
            if self._waiting.qsize() > self._waiting_max():
                self._give_up()
            stop.wait(_RETRY_S)
        finally:
            if connection is not None and connection.is_open:
                with contextlib.suppress(AMQPError, OSError):
                    connection.close()

    def _give_up(self) -> None:
        """Acknowledge the samples that wait, so that the consumer can continue."""
        given_up = []
        with contextlib.suppress(queue.Empty):
            while True:
                given_up.append(self._waiting.get_nowait().delivery)
        logger.warning(
            "refused messages counted and not kept: the broker does not accept them",
            extra=fields(messages=len(given_up)),
        )
        self._acknowledge(given_up)

    def _next(self, connection: pika.BlockingConnection, stop: Event) -> Sample | None:
        deadline = time.monotonic() + _IDLE_S
        while not stop.is_set() and time.monotonic() < deadline:
            try:
                return self._waiting.get(timeout=_TICK_S)
            except queue.Empty:
                connection.process_data_events(time_limit=0)
        return None

    def _publish(self, channel: BlockingChannel, sample: Sample) -> None:
        if not self._is_current(sample.delivery):
            return  # it is delivered again, and checked again
        body = sample.refusal.body[: sample.octets]
        try:
            channel.basic_publish("", REFUSED_QUEUE, body, self._properties(sample), mandatory=True)
        except UnroutableError as exc:
            raise BrokerUnavailable(f"the queue {REFUSED_QUEUE} does not exist any more") from exc
        self._acknowledge([sample.delivery])

    def _properties(self, sample: Sample) -> pika.BasicProperties:
        delivery, refusal = sample.delivery, sample.refusal
        cut = len(refusal.body) - sample.octets
        return pika.BasicProperties(
            content_type=CONTENT_TYPE,
            delivery_mode=pika.DeliveryMode.Persistent.value,
            message_id=str(uuid.uuid4()),
            timestamp=int(time.time()),
            user_id=self._account,
            headers={
                ACCOUNT_HEADER: _utf8(delivery.account or ""),
                KIND_HEADER: refusal.kind,
                REASON_HEADER: _utf8(refusal.reason[:_REASON_MAX]),
                ROUTING_KEY_HEADER: _utf8(delivery.routing_key),
                **({CUT_HEADER: str(cut)} if cut else {}),
            },
        )


def _utf8(text: str) -> str:
    """Replace what UTF-8 cannot encode, because a reason may quote anything."""
    return text.encode(errors="replace").decode()
