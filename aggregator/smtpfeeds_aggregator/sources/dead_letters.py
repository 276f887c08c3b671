"""Lists, requeues and drops the messages in the queue of refused messages.

AMQP has no way to read a queue without taking its messages: this module fetches them
unacknowledged, and the broker returns the rest to their places when the channel closes.
It requeues a message under the aggregator's own account, because no account may publish
as another. A header names the original account; ingest accepts that header only from
the aggregator's own account.
"""

import contextlib
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import cast

import pika
from pika.adapters.blocking_connection import BlockingChannel
from pika.exceptions import AMQPError, ChannelClosedByBroker

from smtpfeeds_common.errors import BrokerError, BrokerUnavailable
from smtpfeeds_common.topology import REFUSED_QUEUE

from ..settings import AggregatorSettings
from . import broker
from .refused import ACCOUNT_HEADER, CUT_HEADER, KIND_HEADER, REASON_HEADER


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """A refused message."""

    id: str
    #: When it was refused.
    at: datetime | None
    account: str
    kind: str
    reason: str
    body: bytes
    #: Octets at the end of the body that were not kept.
    cut: int
    tag: int

    @property
    def can_go_back(self) -> bool:
        """Whether it is a complete message; refused rows are not, as their batch is stored."""
        return self.kind != "rows" and not self.cut


class DeadLetters:
    """The queue of refused messages, on its own connection."""

    def __init__(self, settings: AggregatorSettings) -> None:
        self._settings = settings
        self._account = broker.account(settings)

    def read(self, limit: int) -> list[DeadLetter]:
        """Return the oldest messages; all stay in the queue.

        Raises:
            BrokerUnavailable: there is no connection.
        """
        with self._channel() as channel:
            return list(_fetch(channel, limit))

    def requeue(self, ids: Collection[str] | None, limit: int) -> tuple[list[DeadLetter], int]:
        """Put messages back into the queue of batches; None: all that can go back.

        Returns:
            The requeued messages, and the number of those that cannot go back.

        Raises:
            BrokerUnavailable: there is no connection, or the queue accepts nothing now.
        """
        done, left = [], 0
        with self._channel() as channel:
            channel.confirm_delivery()
            for letter in self._chosen(channel, ids, limit):
                if not letter.can_go_back:
                    left += 1
                    continue
                channel.basic_publish(
                    "", self._settings.queue, letter.body, self._properties(letter), mandatory=True
                )
                channel.basic_ack(letter.tag)
                done.append(letter)
        return done, left

    def drop(self, ids: Collection[str] | None, limit: int) -> list[DeadLetter]:
        """Delete messages; None: all.

        Raises:
            BrokerUnavailable: there is no connection.
        """
        with self._channel() as channel:
            dropped = list(self._chosen(channel, ids, limit))
            for letter in dropped:
                channel.basic_ack(letter.tag)
        return dropped

    @staticmethod
    def _chosen(
        channel: BlockingChannel, ids: Collection[str] | None, limit: int
    ) -> Iterator[DeadLetter]:
        for letter in list(_fetch(channel, limit)):
            if ids is None or letter.id in ids:
                yield letter

    def _properties(self, letter: DeadLetter) -> pika.BasicProperties:
        return pika.BasicProperties(
            delivery_mode=pika.DeliveryMode.Persistent.value,
            user_id=self._account,
            headers={ACCOUNT_HEADER: letter.account},
        )

    @contextlib.contextmanager
    def _channel(self) -> Iterator[BlockingChannel]:
        connection = broker.connect(self._settings, "dead letters")
        try:
            yield connection.channel()
        except ChannelClosedByBroker as exc:
            if exc.reply_code == 404:
                raise BrokerError(
                    f"there is no queue {REFUSED_QUEUE}; `smtpfeeds aggregator run` creates it"
                ) from exc
            raise BrokerUnavailable(f"the broker closed the channel: {exc.reply_text}") from exc
        except AMQPError as exc:
            raise BrokerUnavailable(f"the broker did not accept the message: {exc!r}") from exc
        finally:
            if connection.is_open:
                with contextlib.suppress(AMQPError):
                    connection.close()


def _fetch(channel: BlockingChannel, limit: int) -> Iterator[DeadLetter]:
    for _ in range(limit):
        method, properties, body = channel.basic_get(REFUSED_QUEUE)
        if method is None or properties is None or body is None:
            return
        headers = cast("Mapping[str, str]", properties.headers)
        yield DeadLetter(
            id=properties.message_id or f"tag-{method.delivery_tag}",
            at=_time_of(properties.timestamp),
            account=headers.get(ACCOUNT_HEADER, ""),
            kind=headers.get(KIND_HEADER, ""),
            reason=headers.get(REASON_HEADER, ""),
            body=body,
            cut=_number(headers.get(CUT_HEADER)),
            tag=method.delivery_tag,
        )


def _time_of(timestamp_s: int | None) -> datetime | None:
    """Return the time of a message; None if it is out of range, as the sender may choose it."""
    try:
        return None if timestamp_s is None else datetime.fromtimestamp(timestamp_s, UTC)
    except (ValueError, OverflowError, OSError):
        return None


def _number(text: str | None) -> int:
    return int(text) if text and text.isdecimal() else 0
