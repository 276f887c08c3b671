"""Connections to RabbitMQ, and the topology that the aggregator declares.

It is separate from the consumer because ``refused`` publishes on a separate
connection: a broker short of memory stops reading from connections that publish, and
that must not delay acknowledgements.
"""

import logging
import socket
import ssl
from typing import Any, Final
from urllib.parse import parse_qs

import pika
from pika.adapters.blocking_connection import BlockingChannel
from pika.adapters.utils.connection_workflow import AMQPConnectorException
from pika.exceptions import AMQPError, ChannelClosedByBroker

from smtpfeeds_common import __version__
from smtpfeeds_common.certificates import peer_expiry
from smtpfeeds_common.errors import BrokerUnavailable, SettingsError
from smtpfeeds_common.logs import fields
from smtpfeeds_common.service_address import ServiceAddress, parse_brokers
from smtpfeeds_common.settings import read_secret
from smtpfeeds_common.topology import BINDING_KEY, EXCHANGE, QUEUE, REFUSED_QUEUE

from ..settings import AggregatorSettings
from .properties import TolerantConnection

logger = logging.getLogger(__name__)

#: Account and password of a URL without them: RabbitMQ's default, valid on its own host only.
_GUEST: Final = ("guest", "guest")
_HEARTBEAT_S: Final = 30
_CONNECT_TIMEOUT_S: Final = 10
#: How long the broker's memory or disk alarm may block a publishing connection.
_BLOCKED_TIMEOUT_S: Final = 60
#: A connection ends when the peer's kernel does not acknowledge sent octets for 30 s.
_TCP_OPTIONS: Final = {"TCP_USER_TIMEOUT": 30_000, "TCP_KEEPIDLE": 10, "TCP_KEEPINTVL": 5}

#: In effect no limit, on every RabbitMQ: 3.10 dead-letters at the first return with -1, and 4.x
#: defaults to 20. A limit would dead-letter good batches when workers are killed.
_DELIVERY_LIMIT: Final = 2**31 - 1
#: At this size the queue refuses batches, and sensors keep them. A policy may set less.
_QUEUE_MAX_BYTES: Final = 4 * 1024**3
#: At this size the oldest refused messages are dropped, so that they never stop good batches.
_REFUSED_MAX_BYTES: Final = 256 * 1024**2

QUEUE_ARGUMENTS: Final[dict[str, Any]] = {
    "x-queue-type": "quorum",
    "x-delivery-limit": _DELIVERY_LIMIT,
    "x-max-length-bytes": _QUEUE_MAX_BYTES,
    "x-overflow": "reject-publish",
}
REFUSED_ARGUMENTS: Final[dict[str, Any]] = {
    "x-queue-type": "quorum",
    "x-delivery-limit": _DELIVERY_LIMIT,
    "x-max-length-bytes": _REFUSED_MAX_BYTES,
    "x-overflow": "drop-head",
}

#: The account may not declare it, or it exists with other arguments.
_ACCESS_REFUSED, _PRECONDITION_FAILED = 403, 406


def parameters(settings: AggregatorSettings, purpose: str) -> list[pika.URLParameters]:
    """Return the connection parameters of every URL in the settings.

    Raises:
        SettingsError: a URL or a file cannot be read.
    """
    return [
        _parameters_of(address, settings, purpose) for address in parse_brokers(settings.broker)
    ]


def account(settings: AggregatorSettings) -> str:
    """Return the aggregator's own account at the broker.

    Raises:
        SettingsError: a URL or a file cannot be read.
    """
    credentials = parameters(settings, "account")[0].credentials
    assert isinstance(credentials, pika.PlainCredentials)
    return str(credentials.username)


def _parameters_of(
    address: ServiceAddress, settings: AggregatorSettings, purpose: str
) -> pika.URLParameters:
    try:
        broker = pika.URLParameters(address.without_account)
    except (ValueError, TypeError, OSError, SyntaxError):
        # Without pika's message: it may quote a secret, such as one in ssl_options.
        raise SettingsError(
            f"broker: {address}: the text after its question mark is not a list of pika's options"
        ) from None
    broker.credentials = _credentials(address, settings)
    broker.socket_timeout = _CONNECT_TIMEOUT_S
    broker.stack_timeout = _CONNECT_TIMEOUT_S * 2
    broker.tcp_options = dict(_TCP_OPTIONS)
    broker.client_properties = {
        "connection_name": f"smtpfeeds aggregator {purpose}",
        "product": "smtpfeeds",
        "version": __version__,
    }
    given = parse_qs(address.query)
    if "heartbeat" not in given:
        broker.heartbeat = _HEARTBEAT_S
    if "blocked_connection_timeout" not in given:
        broker.blocked_connection_timeout = _BLOCKED_TIMEOUT_S
    if address.scheme == "amqps" and settings.broker_ca_file:
        broker.ssl_options = pika.SSLOptions(_tls(settings.broker_ca_file), address.host)
    return broker


def _credentials(address: ServiceAddress, settings: AggregatorSettings) -> pika.PlainCredentials:
    if address.account is None:
        return pika.PlainCredentials(*_GUEST)
    password = address.password
    if password is None:
        password = read_secret("", settings.broker_password_file, name="broker_password_file")
    return pika.PlainCredentials(address.account, password)


def _tls(ca_file: str) -> ssl.SSLContext:
    try:
        return ssl.create_default_context(cafile=ca_file)
    except (OSError, ssl.SSLError) as exc:
        raise SettingsError(f"broker_ca_file: cannot use {ca_file}: {exc}") from exc


def connect(settings: AggregatorSettings, purpose: str) -> pika.BlockingConnection:
    """Connect to the first broker that answers.

    Raises:
        SettingsError: a URL or a file cannot be read.
        BrokerUnavailable: no broker answers.
    """
    failures = []
    for one in parameters(settings, purpose):
        try:
            # Try a plain socket first: when nobody listens, pika does not close its sockets.
            socket.create_connection((one.host, one.port), timeout=_CONNECT_TIMEOUT_S).close()
            return pika.BlockingConnection(one, _impl_class=TolerantConnection)
        # pika raises ValueError if the connection is reset before pika uses it.
        except (AMQPError, AMQPConnectorException, OSError, ValueError) as exc:
            failures.append(f"{one.host}:{one.port}: {exc or type(exc).__name__}")
    raise BrokerUnavailable(f"no broker accepts the connection: {'; '.join(failures)}")


def certificate_expiry(connection: pika.BlockingConnection) -> float | None:
    """Return when the broker's certificate expires, in Unix time; None if it is not known.

    pika's socket has no public name. If a later pika renames it, only this time is missing.
    """
    transport = getattr(getattr(connection, "_impl", None), "_transport", None)
    return peer_expiry(getattr(transport, "_sock", None))


def declare(connection: pika.BlockingConnection, queue: str) -> None:
    """Declare the exchange, the queue and the queue of refused messages; keep existing ones.

    Only the queue with the default name is declared and bound; an operator who shards it
    declares the shards and their exchange.

    Raises:
        pika.exceptions.AMQPError: the broker refuses, or the connection broke.
    """
    if queue == QUEUE:
        _declare(connection, "exchange", EXCHANGE, _declare_exchange)
        _declare(connection, "queue", QUEUE, _declare_queue)
        _bind(connection)
    else:
        with_channel = connection.channel()
        with_channel.queue_declare(queue, passive=True)
        with_channel.close()
    declare_refused(connection)


def declare_refused(connection: pika.BlockingConnection) -> None:
    """Declare the queue of refused messages; keep an existing one."""
    _declare(connection, "queue", REFUSED_QUEUE, _declare_refused)


def _declare_exchange(channel: BlockingChannel, name: str, *, passive: bool) -> None:
    channel.exchange_declare(name, exchange_type="topic", durable=True, passive=passive)


def _declare_queue(channel: BlockingChannel, name: str, *, passive: bool) -> None:
    channel.queue_declare(
        name, durable=True, passive=passive, arguments=None if passive else QUEUE_ARGUMENTS
    )


def _bind(connection: pika.BlockingConnection) -> None:
    """Bind the queue, even one that an operator declared; otherwise no batch reaches it."""
    channel = connection.channel()
    try:
        channel.queue_bind(QUEUE, EXCHANGE, BINDING_KEY)
    except ChannelClosedByBroker as exc:
        if exc.reply_code != _ACCESS_REFUSED:
            raise
        logger.warning(
            "not allowed to bind the queue; its binding is the operator's",
            extra=fields(name=QUEUE, reason=exc.reply_text),
        )
    else:
        channel.close()


def _declare_refused(channel: BlockingChannel, name: str, *, passive: bool) -> None:
    channel.queue_declare(
        name, durable=True, passive=passive, arguments=None if passive else REFUSED_ARGUMENTS
    )


def _declare(connection: pika.BlockingConnection, kind: str, name: str, declare_one: Any) -> None:
    """Declare; use what exists if declaring is not allowed or its arguments differ."""
    channel = connection.channel()
    try:
        declare_one(channel, name, passive=False)
    except ChannelClosedByBroker as exc:
        if exc.reply_code not in {_ACCESS_REFUSED, _PRECONDITION_FAILED}:
            raise
        logger.warning(
            "cannot declare; using the existing one",
            extra=fields(kind=kind, name=name, reason=exc.reply_text),
        )
        channel = connection.channel()
        declare_one(channel, name, passive=True)
    channel.close()
