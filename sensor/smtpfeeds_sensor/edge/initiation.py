"""A connection before its banner: learn the client's address, and whether the client waits."""

import logging
from typing import Any, Final

from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.interfaces import IAddress, IProtocolFactory
from zope.interface import implementer

from smtpfeeds_common.addresses import pack_address

from ..smtp.dialogue import OPEN, Dialogue
from ..smtp.erase import Octets, erase
from ..smtp.personas import Persona
from .connection import Connection, State
from .proxy_header import NotAProxyHeader, ProxyHeaderReader
from .reception import Reception
from .session import HOLDING, IN_SESSION, hold, receive, record, send_held
from .termination import close, finish, reply, reply_stopping, reply_too_slow

logger = logging.getLogger(__name__)

#: A trusted proxy's connection that ends sooner, without an octet, only checks the port.
_SILENT_S: Final = 3
#: Made once: Python makes a union each time that it is written in a test.
_ADDRESSES: Final = (IPv4Address, IPv6Address)


@implementer(IProtocolFactory)
class Listener:
    """Creates the connections of one listening socket."""

    #: Twisted logs "Starting factory" otherwise.
    noisy = False

    def __init__(self, reception: Reception, local: bytes | None) -> None:
        """Create the listener.

        Args:
            reception: what all connections share.
            local: the packed address of the socket, or None for a wildcard.
        """
        self._reception, self._local = reception, local

    def buildProtocol(self, addr: IAddress) -> Any:
        """Return a connection, or None to close it at once."""
        reception = self._reception
        now_s = reception.reactor.seconds()
        if not reception.limits.may_accept(now_s):
            reception.count["refused_rate"] += 1
            return None
        reception.count["connections"] += 1
        reception.last_client_s = now_s
        assert isinstance(addr, _ADDRESSES)
        ip = pack_address(addr.host.partition("%")[0])
        return Connection(reception, ip, self._local, NEW)

    def doStart(self) -> None:
        """Twisted's hook: nothing to do."""

    def doStop(self) -> None:
        """Twisted's hook: nothing to do."""


def _accept(connection: Connection) -> None:
    reception = connection.reception
    if len(reception.open) > reception.max_connections:
        _refuse(connection, "refused_total", reception.personas.default)
    elif reception.trusted_proxies and connection.ip in reception.trusted_proxies:
        connection.header = ProxyHeaderReader()
        connection.state = AWAITING_HEADER
    else:
        _begin(connection, connection.local)


# Waiting for a PROXY header


def _read_header(connection: Connection, octets: Octets) -> None:
    assert connection.header is not None
    reception = connection.reception
    try:
        read = connection.header.feed(octets)
    except NotAProxyHeader:
        reception.count["proxy_invalid"] += 1
        close(connection)
        return
    if read is None:
        return
    header, rest = read
    connection.header = None
    if header.source is None:
        reception.count["proxy_unnamed"] += 1
        connection.recorded = False
    else:
        connection.ip = header.source
    _begin(connection, header.destination or connection.local)
    if rest:
        connection.state.octets(connection, rest)
        erase(rest)


def _give_up_on_header(connection: Connection) -> None:
    _count_missing_header(connection)
    close(connection)


def _disconnected_without_header(connection: Connection) -> None:
    _count_missing_header(connection)
    finish(connection)


def _count_missing_header(connection: Connection) -> None:
    assert connection.header is not None
    count = connection.reception.count
    if connection.header.started:
        count["proxy_invalid"] += 1
    elif connection.age_s >= _SILENT_S:
        if not count["proxy_silent"]:
            logger.warning(
                "a trusted proxy sent no PROXY header; if it waits for the client's first octets, "
                "the sensor and the client wait for each other"
            )
        count["proxy_silent"] += 1


# The client's address is known


def _begin(connection: Connection, local: bytes | None) -> None:
    reception = connection.reception
    if local is None:
        host: str = connection.transport.getHandle().getsockname()[0]
        local = pack_address(host.partition("%")[0])
    persona = reception.personas.at(local)
    if reception.ignore and connection.ip in reception.ignore:
        reception.count["connections_ignored"] += 1
        connection.recorded = False
    if not reception.limits.enter(connection.ip):
        _refuse(connection, "refused_source", persona)
        return
    connection.target = reception.target(local)
    connection.dialogue = Dialogue(
        persona,
        reception.rules,
        connection.count,
        reception.names(local, persona),
        reception.tls_free,
    )
    if reception.banner_delay_s:
        connection.state = AWAITING_BANNER
        reception.reactor.callLater(reception.banner_delay_s, connection.banner_due)
    else:
        connection.state = IN_SESSION
        reply(connection, persona.banner)


def _refuse(connection: Connection, counter: str, persona: Persona) -> None:
    connection.count[counter] += 1
    reply(connection, persona.too_many_connections)
    close(connection)


# Waiting for its banner


def _receive_early(connection: Connection, octets: Octets) -> None:
    """Handle early octets: their replies, a handshake and the end wait for the banner."""
    dialogue = connection.dialogue
    assert dialogue is not None
    dialogue.note_early()
    replies = receive(connection, dialogue, octets)
    if dialogue.heard and record(connection, dialogue):
        connection.state = AWAITING_BANNER_AND_COMMIT
    if dialogue.closing != OPEN and not replies and not connection.held:
        close(connection)  # a TLS handshake: it gets no reply
    else:
        hold(connection, replies)


def _wait_for_banner_alone(connection: Connection) -> None:
    connection.state = AWAITING_BANNER


def _send_banner(connection: Connection) -> None:
    _put_banner_first(connection)
    connection.state = IN_SESSION
    send_held(connection)


def _hold_banner(connection: Connection) -> None:
    _put_banner_first(connection)
    connection.state = HOLDING


def _put_banner_first(connection: Connection) -> None:
    assert connection.dialogue is not None
    connection.held = connection.dialogue.persona.banner + connection.held


NEW: Final = State(connected=_accept)
AWAITING_HEADER: Final = State(
    octets=_read_header,
    timed_out=_give_up_on_header,
    stopping=close,
    disconnected=_disconnected_without_header,
)
AWAITING_BANNER: Final = State(
    octets=_receive_early,
    banner_due=_send_banner,
    timed_out=reply_too_slow,
    stopping=reply_stopping,
    disconnected=finish,
)
AWAITING_BANNER_AND_COMMIT: Final = State(
    octets=_receive_early,
    banner_due=_hold_banner,
    committed=_wait_for_banner_alone,
    timed_out=reply_too_slow,
    stopping=reply_stopping,
    disconnected=finish,
)
