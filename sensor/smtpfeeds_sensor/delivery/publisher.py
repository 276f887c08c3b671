"""Publish batches to RabbitMQ over a pika connection, with confirms.

This is the sensor's only import of pika. pika's blocking confirm has no time limit: with a lost
quorum or a full disk at the broker it would wait forever. So a watchdog shuts the socket down after
the limit, which pika reports as a lost connection. Heartbeats and the blocked-connection timeout
cover a host that disappears and a broker that reports that it blocks.

The sensor declares nothing: the aggregator owns exchange and queues, and a sensor's account may
only publish under its own key.
"""

import socket
import ssl
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final, NamedTuple

import pika
import pika.credentials
import pika.exceptions
from pika.adapters.blocking_connection import BlockingChannel
from pika.adapters.utils.connection_workflow import AMQPConnectorException

from smtpfeeds_common.certificates import peer_expiry
from smtpfeeds_common.errors import (
    BatchTooLarge,
    BrokerError,
    BrokerRefused,
    BrokerUnavailable,
    SettingsError,
)
from smtpfeeds_common.service_address import ServiceAddress, parse_brokers
from smtpfeeds_common.spool import SealedBatch
from smtpfeeds_common.topology import CONTENT_TYPE, EXCHANGE, routing_key

from ..settings import SensorSettings

#: Time limits of a connection: for TCP, and for TCP with TLS and AMQP.
_CONNECT_S: Final = 10.0
_STACK_S: Final = 15.0
_PERSISTENT: Final = 2
#: AMQP 0-9-1 reply codes, section 1.9.
_PRECONDITION_FAILED: Final = 406
#: ACCESS_REFUSED, NOT_ALLOWED.
_REFUSALS: Final = frozenset({403, 530})
#: RabbitMQ: "message size 1234 is larger than configured max size 1000".
_TOO_LARGE: Final = "larger than"


class Broker(NamedTuple):
    """A broker's address, and the account there."""

    account: str
    parameters: pika.URLParameters


def read_brokers(settings: SensorSettings) -> list[Broker]:
    """Return the brokers that the settings name.

    Raises:
        SettingsError: an address or a certificate cannot be used.
    """
    password = settings.secret()
    return [_read_broker(settings, each, password) for each in parse_brokers(settings.broker)]


def _read_broker(settings: SensorSettings, address: ServiceAddress, password: str) -> Broker:
    name = address.account or settings.name
    if name != settings.name:
        raise SettingsError(
            f"broker: the account {name!r} at {address.host} is not the sensor's name "
            f"{settings.name!r}: the aggregator refuses batches that one account sends for "
            f"another; use the same name for both"
        )
    secret = password or address.password or ""
    with_certificate = settings.broker_certificate_file and address.scheme == "amqps"
    if not secret and not with_certificate:
        raise SettingsError(
            f"broker: no password for {name} at {address.host}; set broker_password_file, "
            "or SMTPFEEDS_SENSOR_BROKER_PASSWORD; or broker_certificate_file, at amqps://"
        )
    try:
        parameters = pika.URLParameters(address.without_account)
    except (ValueError, TypeError, OSError, SyntaxError):
        # Do not quote pika's message: an option may contain a secret, such as one of ssl_options.
        raise SettingsError(
            f"broker: {address}: the text after its question mark is not a list of pika's options"
        ) from None
    # Without a password the certificate is the login, and the account is its common name.
    parameters.credentials = (
        pika.PlainCredentials(name, secret, erase_on_connect=False)
        if secret
        else pika.credentials.ExternalCredentials()
    )
    parameters.heartbeat = settings.heartbeat_s
    parameters.blocked_connection_timeout = settings.confirm_timeout_s
    parameters.socket_timeout = _CONNECT_S
    parameters.stack_timeout = _STACK_S
    parameters.connection_attempts = 1
    parameters.client_properties = {"connection_name": f"smtpfeeds sensor {settings.name}"}
    if address.scheme == "amqps":
        parameters.ssl_options = pika.SSLOptions(_tls_context(settings), address.host)
    return Broker(name, parameters)


def _tls_context(settings: SensorSettings) -> ssl.SSLContext:
    try:
        context = ssl.create_default_context(cafile=settings.broker_ca_file or None)
        if settings.broker_certificate_file:
            context.load_cert_chain(
                settings.broker_certificate_file, settings.broker_key_file or None
            )
    except (OSError, ssl.SSLError) as exc:
        raise SettingsError(f"broker: cannot use the certificates: {exc}") from exc
    return context


class BrokerLink:
    """A connection to one of several brokers; use it from one thread, except ``interrupt``."""

    def __init__(self, brokers: Sequence[Broker], *, sensor: str, confirm_timeout_s: float) -> None:
        self._brokers = list(brokers)
        self._routing_key = routing_key(sensor)
        self._confirm_timeout_s = confirm_timeout_s
        #: The broker to try first: the last one that worked.
        self._first = 0
        self._connection: pika.BlockingConnection | None = None
        self._channel: BlockingChannel | None = None
        self._account = ""
        self._socket: socket.socket | None = None
        #: Why the broker blocks publishers now, as it reports it; empty if it does not.
        self._blocked = ""
        #: Expiry of the certificate that the broker showed last, in Unix time.
        self.certificate_expires_s: float | None = None

    @classmethod
    def of_settings(cls, settings: SensorSettings) -> "BrokerLink":
        """Return a link to the brokers of the settings."""
        return cls(
            read_brokers(settings),
            sensor=settings.name,
            confirm_timeout_s=settings.confirm_timeout_s,
        )

    def take_over(self, brokers: Sequence[Broker]) -> None:
        """Use these brokers from the next connection on; callable from any thread."""
        self._brokers = list(brokers)

    @property
    def is_open(self) -> bool:
        """Return whether it is open."""
        return self._channel is not None and self._channel.is_open

    def open(self) -> None:
        """Connect to the first broker that accepts, beginning with the last one that did.

        Raises:
            BrokerError: no broker accepted; has the last one's reason.
        """
        self.close()
        failure: BrokerError = BrokerUnavailable()
        brokers = self._brokers
        for turn in range(len(brokers)):
            index = (self._first + turn) % len(brokers)
            try:
                self._open(*brokers[index])
            except BrokerError as exc:
                failure = exc
                self.close()
            else:
                self._first = index
                return
        raise failure

    def _open(self, account: str, parameters: pika.URLParameters) -> None:
        where = f"{parameters.host}:{parameters.port}"
        try:
            connection = pika.BlockingConnection(parameters)
            self._connection = connection
            self._socket = _socket_of(connection)
            self.certificate_expires_s = peer_expiry(self._socket)
            self._watch_blocking(connection)
            with self._watchdog():
                self._channel = connection.channel()
                self._channel.confirm_delivery()
        except (
            pika.exceptions.ProbableAuthenticationError,
            pika.exceptions.AuthenticationError,
            pika.exceptions.ProbableAccessDeniedError,
        ) as exc:
            if _is_only_lost(exc):
                raise BrokerUnavailable(f"broker {where}: {_reason(exc)}") from exc
            raise BrokerRefused(f"broker {where} refuses the account {account!r}: {exc}") from exc
        except pika.exceptions.ConnectionClosedByBroker as exc:
            raise _connection_closed(exc, where) from exc
        # ValueError: pika raises it for a connection that was reset at once.
        except (pika.exceptions.AMQPError, AMQPConnectorException, OSError, ValueError) as exc:
            raise BrokerUnavailable(f"broker {where}: {_reason(exc)}") from exc
        self._account = account

    def publish(self, batch: SealedBatch) -> None:
        """Publish persistent and mandatory; after the return the broker has the batch.

        Raises:
            BatchTooLarge: only the size is refused.
            BrokerRefused: nack, no route or no right, which concerns every batch.
            BrokerUnavailable: there is no connection, it broke, or no confirm came in time.
        """
        channel = self._channel
        if channel is None:
            raise BrokerUnavailable
        try:
            with self._watchdog():
                channel.basic_publish(
                    EXCHANGE,
                    self._routing_key,
                    batch.body,
                    pika.BasicProperties(
                        content_type=CONTENT_TYPE,
                        delivery_mode=_PERSISTENT,
                        user_id=self._account,
                        message_id=f"{batch.spool}/{batch.seq}",
                    ),
                    mandatory=True,
                )
        except pika.exceptions.UnroutableError as exc:
            raise BrokerRefused(
                f"no queue takes {self._routing_key!r}; the aggregator creates the queue when it "
                f"first starts"
            ) from exc
        except pika.exceptions.NackError as exc:
            raise BrokerRefused("the broker refuses it, because its queue is full") from exc
        except pika.exceptions.ChannelClosedByBroker as exc:
            raise _refusal(exc) from exc
        except (pika.exceptions.AMQPError, OSError) as exc:
            if self._blocked:
                raise BrokerRefused(
                    f"the broker blocks all publishers: {self._blocked}; check its memory and disk"
                ) from exc
            raise BrokerUnavailable(f"the broker's connection is lost: {_reason(exc)}") from exc

    def idle(self, wait_s: float) -> None:
        """Wait, answering heartbeats.

        Raises:
            BrokerUnavailable: the connection broke.
        """
        connection = self._connection
        if connection is None:
            raise BrokerUnavailable
        try:
            connection.sleep(wait_s)
        except (pika.exceptions.AMQPError, OSError) as exc:
            raise BrokerUnavailable(f"the broker's connection is lost: {_reason(exc)}") from exc
        if not self.is_open:
            raise BrokerUnavailable("the broker closed the channel")

    def close(self) -> None:
        """Disconnect, without waiting for a broker that does not answer."""
        connection, self._connection, self._channel = self._connection, None, None
        if connection is None or not connection.is_open:
            self._socket = None
            return
        try:
            with self._watchdog(_STACK_S / 5):
                connection.close()
        except (pika.exceptions.AMQPError, OSError):
            # The connection is closed already.
            pass
        finally:
            self._socket = None

    def interrupt(self) -> None:
        """Shut the socket down, so that a wait in another thread ends with an error."""
        wire = self._socket
        if wire is not None:
            try:
                wire.shutdown(socket.SHUT_RDWR)
            except OSError:
                # Already shut.
                return

    def _watch_blocking(self, connection: pika.BlockingConnection) -> None:
        """Notice at once that the broker blocks (RabbitMQ's connection.blocked).

        pika calls its own callback only after a call returns, but a publish waits for a confirm
        that cannot come. A later pika may lack this hook: then only the reason is missing.
        """
        self._blocked = ""
        wire = getattr(connection, "_impl", None)
        if wire is not None and hasattr(wire, "add_on_connection_unblocked_callback"):
            wire.add_on_connection_blocked_callback(self._note_blocked)
            wire.add_on_connection_unblocked_callback(self._note_unblocked)

    def _note_blocked(self, _connection: object, frame: Any) -> None:
        self._blocked = str(frame.method.reason)

    def _note_unblocked(self, *_: object) -> None:
        self._blocked = ""

    @contextmanager
    def _watchdog(self, limit_s: float | None = None) -> Iterator[None]:
        timer = threading.Timer(
            self._confirm_timeout_s if limit_s is None else limit_s, self.interrupt
        )
        timer.daemon = True
        timer.start()
        try:
            yield
        finally:
            timer.cancel()


def _is_only_lost(exc: pika.exceptions.AMQPConnectionError) -> bool:
    """Return whether pika reports a connection lost in the handshake as a refusal.

    pika keeps the ``repr`` of the error; a broker that refuses sends its reason before it closes.
    """
    return any(str(met).startswith("StreamLostError") for met in exc.args)


def _connection_closed(exc: pika.exceptions.ConnectionClosedByBroker, where: str) -> BrokerError:
    """Map a close: a broker that just started closes with 541, which is not a refusal."""
    reason = f"broker {where}: {exc.reply_code} {exc.reply_text}"
    if exc.reply_code in _REFUSALS:
        return BrokerRefused(reason)
    return BrokerUnavailable(reason)


def _refusal(exc: pika.exceptions.ChannelClosedByBroker) -> BrokerError:
    # As valid text: pika leaves octets that are not UTF-8 unchanged.
    answer = f"{exc.reply_code} {exc.reply_text}"
    if exc.reply_code == _PRECONDITION_FAILED and _TOO_LARGE in answer:
        return BatchTooLarge(answer)
    return BrokerRefused(f"the broker refuses: {answer}")


def _reason(exc: BaseException) -> str:
    """Return the reason; pika's connection error has no text, but contains the original error."""
    causes = [getattr(each, "exception", each) for each in exc.args]
    return _text_of(exc) or "; ".join(map(_text_of, causes)) or type(exc).__name__


def _text_of(cause: object) -> str:
    """Return the text of an error, without the number of an error of the system."""
    return str(getattr(cause, "strerror", None) or cause)


def _socket_of(connection: pika.BlockingConnection) -> socket.socket | None:
    """Return the connection's socket, which pika does not expose.

    Only ``shutdown`` is called on it. If a later pika moves it, only heartbeats limit a confirm; a
    test with a broker that never confirms would fail.
    """
    transport = getattr(getattr(connection, "_impl", None), "_transport", None)
    wire = getattr(transport, "_sock", None)
    return wire if isinstance(wire, socket.socket) else None
