"""Consumes batches from RabbitMQ in its own thread.

The connection's thread only moves messages and acknowledgements, so it answers
heartbeats even while the database is slow. The prefetch bounds the deliveries that
wait.

pika raises nothing when the broker cancels a consumer (a deleted queue, a failed
leader) or closes a channel (its acknowledgement timeout), so this module checks
``is_open`` and ``consumer_tags`` after every call. A delivery tag is valid only on its
channel. Each channel is a numbered session; acknowledging a delivery of an older
session does nothing, because the broker delivers it again.
"""

import contextlib
import logging
import queue
import time
from collections.abc import Callable
from functools import partial
from threading import Event, Thread
from typing import Final, cast

import pika
from pika.adapters.blocking_connection import BlockingChannel
from pika.exceptions import AMQPError, ConnectionWrongStateError
from pika.spec import Basic

from smtpfeeds_common.backoff import Backoff
from smtpfeeds_common.errors import BrokerUnavailable, SmtpfeedsError
from smtpfeeds_common.logs import fields
from smtpfeeds_common.wire import MAX_BODY_BYTES, too_large

from ..accounts import AccountWatch
from ..metrics import Metrics
from ..settings import AggregatorSettings
from . import Delivery, Refusal, broker
from .prefetch import Prefetch
from .properties import problem_of
from .refusal_counts import RefusalCounter, RefusalLedger
from .refused import ACCOUNT_HEADER, RefusedPublisher

logger = logging.getLogger(__name__)

#: Longest wait for an event before the channel is checked.
_TICK_S: Final = 1
#: Short, because there are few aggregators, and it delays the first batch after a restart.
_LONGEST_BACKOFF_S: Final = 5.0
#: Wait before consuming again, because the broker may cancel the new consumer at once.
_CONSUME_AGAIN_S: Final = 0.5
#: The prefetch has room for this many collections: one is committed while the next fills.
_COLLECTIONS_AHEAD: Final = 2
#: Octets kept of a message that is longer than any batch.
_KEPT_OF_TOO_LARGE: Final = 65_536


class AmqpSource:
    """A consumer that reconnects; `run` is its thread, other threads call the other methods."""

    def __init__(
        self, settings: AggregatorSettings, metrics: Metrics, ledger: RefusalLedger
    ) -> None:
        self._settings = settings
        self._metrics = metrics
        self._account = broker.account(settings)
        prefetch = min(settings.ingest_batch_messages * _COLLECTIONS_AHEAD, 65_535)
        self._prefetch = Prefetch(prefetch, time.monotonic)
        self._deliveries: queue.SimpleQueue[Delivery] = queue.SimpleQueue()
        self._session = 0
        self._consumed = False
        self._logged_reason = ""
        self._paused = Event()
        self._connection: pika.BlockingConnection | None = None
        self._channel: BlockingChannel | None = None
        self._watch = AccountWatch(
            messages_per_s=settings.flood_messages_per_s, octets_per_s=settings.flood_bytes_per_s
        )
        self._refused = RefusedPublisher(
            settings, self._account, self.acknowledge, self.is_current, self._samples_max
        )
        self._counter = RefusalCounter(
            ledger,
            self._watch,
            metrics,
            keep=self._refused.put,
            acknowledge=self.acknowledge,
            is_current=self.is_current,
        )

    # For the worker's thread.

    def get(self, timeout_s: float) -> Delivery | None:
        """Return the next delivery that can still be acknowledged."""
        try:
            while True:
                delivery = self._deliveries.get(timeout=timeout_s)
                if self.is_current(delivery):
                    return delivery
        except queue.Empty:
            return None

    def is_current(self, delivery: Delivery) -> bool:
        """Return whether it belongs to the current session."""
        return bool(delivery.token[0] == self._session)

    def acknowledge(self, deliveries: list[Delivery]) -> None:
        """Acknowledge on the connection's thread; skip deliveries of older sessions."""
        self._call(partial(self._acknowledge, list(deliveries)))

    def refuse(self, delivery: Delivery, refusal: Refusal) -> None:
        """Count a refused delivery, keep it if it is a sample, then acknowledge it."""
        self._counter.put(delivery, refusal)

    def pause(self) -> None:
        """Close the channel, so that the broker gives unacknowledged deliveries to others."""
        self._paused.set()
        self._session += 1
        self._call(lambda: None)

    def resume(self) -> None:
        """Consume again."""
        self._paused.clear()
        self._call(lambda: None)

    @property
    def more_can_come(self) -> bool:
        """Whether the broker sends more before a delivery is acknowledged."""
        return not self._prefetch.is_full or not self._deliveries.empty()

    @property
    def consuming(self) -> bool:
        """Whether a channel with a consumer is open."""
        channel = self._channel
        return channel is not None and channel.is_open and bool(channel.consumer_tags)

    def _samples_max(self) -> int:
        """Return how many samples may wait; the other half of the prefetch is for batches."""
        return self._prefetch.prefetch // 2

    def _call(self, callback: Callable[[], None]) -> None:
        connection = self._connection
        if connection is not None:
            with contextlib.suppress(ConnectionWrongStateError):
                connection.add_callback_threadsafe(callback)

    # On the connection's thread.

    def run(self, stop: Event) -> None:
        """Connect and consume until stopped; reconnect after each failure.

        Raises:
            RuntimeError: a thread that counts or keeps refused messages has ended, by a bug.
        """
        helpers = [
            Thread(target=self._counter.run, args=(stop,), name="refusals", daemon=True),
            Thread(target=self._refused.run, args=(stop,), name="refused", daemon=True),
        ]
        for helper in helpers:
            helper.start()
        backoff = Backoff(_LONGEST_BACKOFF_S)
        while not stop.is_set():
            if not all(helper.is_alive() for helper in helpers) and not stop.is_set():
                # Refused messages would stay unacknowledged until they fill the prefetch.
                raise RuntimeError("a thread that counts or keeps refused messages has ended")
            self._consumed = False
            try:
                self._connect()
                self._serve(stop, helpers)
            except (AMQPError, OSError, SmtpfeedsError) as exc:
                if self._consumed:
                    # Only a consumer counts as success: a broker that accepts connections but
                    # refuses the queue would otherwise be tried twice a second for ever.
                    backoff.reset()
                self._metrics.broker_losses.inc()
                self._log_unavailable(str(exc) or type(exc).__name__)
                self._end_session()
                stop.wait(backoff.next_s())
            finally:
                self._disconnect()
        for helper in helpers:
            helper.join(timeout=10)

    def _log_unavailable(self, reason: str) -> None:
        """Log the reason once, and again when it changes; the source retries for ever."""
        if reason != self._logged_reason:
            self._logged_reason = reason
            logger.warning("broker unavailable; retrying", extra=fields(reason=reason))

    def _connect(self) -> None:
        self._connection = broker.connect(self._settings, "ingest")
        self._metrics.note_certificate("broker", broker.certificate_expiry(self._connection))
        logger.info("broker connected", extra=fields(account=self._account))

    def _serve(self, stop: Event, helpers: list[Thread]) -> None:
        connection = self._connection
        assert connection is not None
        while not stop.is_set():
            if self._paused.is_set():
                self._close_channel()
            elif not self.consuming:
                self._consume(connection)
            elif self._prefetch.adapt():
                self._consume_again()
            connection.process_data_events(time_limit=_TICK_S)
            if not connection.is_open:
                raise BrokerUnavailable("the connection was closed")
            if not all(helper.is_alive() for helper in helpers):
                return
        connection.process_data_events(time_limit=0)

    def _consume(self, connection: pika.BlockingConnection) -> None:
        """Open a channel and consume, as a new session."""
        if self._channel is not None:
            logger.warning("consumer lost", extra=fields(queue=self._settings.queue))
            self._metrics.consumer_losses.inc()
            self._close_channel()
            connection.sleep(_CONSUME_AGAIN_S)
        broker.declare(connection, self._settings.queue)
        self._session += 1
        self._channel = connection.channel()
        self._begin(self._channel)
        self._consumed = True
        self._logged_reason = ""

    def _begin(self, channel: BlockingChannel) -> None:
        prefetch = self._prefetch.prefetch
        channel.basic_qos(prefetch_count=prefetch)
        channel.basic_consume(self._settings.queue, partial(self._delivered, self._session))
        logger.info("consuming", extra=fields(queue=self._settings.queue, prefetch=prefetch))

    def _consume_again(self) -> None:
        """Consume with another prefetch; unacknowledged deliveries stay valid.

        pika requeues what arrives for the old consumer until the broker has cancelled it.
        """
        channel = self._channel
        assert channel is not None
        for tag in channel.consumer_tags:
            channel.basic_cancel(tag)
        self._begin(channel)

    def _delivered(
        self,
        session: int,
        _channel: BlockingChannel,
        method: Basic.Deliver,
        properties: pika.BasicProperties,
        body: bytes,
    ) -> None:
        account = self._sender(properties)
        self._watch.delivered(account, len(body))
        problem = problem_of(properties)
        if len(body) > MAX_BODY_BYTES:
            problem = problem or too_large(len(body))
            body = body[:_KEPT_OF_TOO_LARGE]
        self._prefetch.add(len(body))
        self._deliveries.put(
            Delivery(
                body=body,
                account=account,
                routing_key=_text(method.routing_key),
                redelivered=method.redelivered,
                token=(session, method.delivery_tag),
                problem=problem,
            )
        )

    def _sender(self, properties: pika.BasicProperties) -> str | None:
        """Return who sent it; in requeued messages a header names the sender."""
        account: str | None = properties.user_id
        if account == self._account:
            headers = cast("dict[str, str]", properties.headers)
            return headers.get(ACCOUNT_HEADER) or account
        return account

    def _acknowledge(self, deliveries: list[Delivery]) -> None:
        channel = self._channel
        if channel is None or not channel.is_open:
            return
        for delivery in deliveries:
            if self.is_current(delivery):
                channel.basic_ack(delivery.token[1])
                self._prefetch.remove(len(delivery.body))

    def _end_session(self) -> None:
        """Drop the deliveries of this channel; the broker delivers all of them again."""
        self._session += 1
        self._channel = None
        self._prefetch.clear()
        with contextlib.suppress(queue.Empty):
            while True:
                self._deliveries.get_nowait()

    def _close_channel(self) -> None:
        channel = self._channel
        if channel is None:
            return
        self._end_session()
        if channel.is_open:
            with contextlib.suppress(AMQPError):
                channel.close()

    def _disconnect(self) -> None:
        self._end_session()
        connection, self._connection = self._connection, None
        if connection is not None and connection.is_open:
            with contextlib.suppress(AMQPError, OSError):
                connection.close()


def _text(short_string: str | bytes) -> str:
    """Decode a short string; pika leaves it as octets if it is not UTF-8."""
    if isinstance(short_string, bytes):
        return short_string.decode(errors="replace")
    return short_string
