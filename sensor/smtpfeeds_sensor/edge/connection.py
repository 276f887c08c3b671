"""The edge between Twisted and the dialogue: octets, times, TLS, refusals.

A connection is a small object with slots: 10,000 that just sit there must cost
little. Plain replies go straight to the socket, which nearly always takes them
at once; what it does not take goes through Twisted's buffer, within a bound,
and a client that leaves more unread is dropped. PROXY headers are read first,
and the banner waits for them: before it the client is not known.
"""

import zlib
from collections.abc import Mapping, MutableMapping
from dataclasses import dataclass, field
from typing import Any, Final

from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import (
    IAddress,
    IHandshakeListener,
    IProtocol,
    IProtocolFactory,
)
from twisted.internet.ssl import CertificateOptions
from twisted.python.failure import Failure
from zope.interface import implementer

from smtpfeeds_common.addresses import pack_address

from ..delivery.recorder import Recorder
from ..smtp.dialogue import CLOSE, DATA, GREET, LINGER, OPEN, Dialogue, Rules
from ..smtp.personas import Persona, Personas
from .limits import Deadlines, Networks, SourceLimits
from .proxy_header import NotAProxyHeader, ProxyHeader, read_proxy_header
from .reactor import Timer

#: Feed indexes in ``feeds.FEEDS``.
_GREET_FEED, _DATA_FEED = 0, 1
#: A client that is still sending has this long to read the last reply.
_LINGER_S: Final = 5

_TLS_NONE, _TLS_BEGUN, _TLS_UP = range(3)

#: Why a connection ends that we end.
_DONE: Final = Failure(ConnectionDone())


@dataclass(kw_only=True)
class Reception:
    """What all connections of a sensor share."""

    reactor: Timer
    recorder: Recorder
    personas: Personas
    rules: Rules
    count: MutableMapping[str, int]
    limits: SourceLimits
    deadlines: Deadlines
    #: Bit of ``targets`` by packed local address.
    targets: Mapping[bytes, int] = field(default_factory=dict)
    trusted_proxies: Networks = field(default_factory=lambda: Networks(()))
    ignore: Networks = field(default_factory=lambda: Networks(()))
    idle_timeout_s: int = 60
    session_timeout_s: int = 180
    banner_delay_s: float = 0.0
    max_connections: int = 10_000
    max_unsent_bytes: int = 16_384
    max_tls_connections: int = 1000
    tls_context: CertificateOptions | None = None
    in_tls: int = 0
    open: "set[Connection]" = field(default_factory=set)

    def target(self, local: bytes) -> int:
        """The bit for a local address: its place in the list, or a stable hash."""
        bit = self.targets.get(local)
        return zlib.crc32(local) % 64 if bit is None else bit

    def tls_free(self) -> bool:
        """Whether one more connection may go to TLS."""
        return self.in_tls < self.max_tls_connections


@implementer(IProtocol, IHandshakeListener)
class Connection:
    """One client."""

    __slots__ = (
        "__weakref__",
        "_began",
        "_closing_at",
        "_dialogue",
        "_held",
        "_holding",
        "_ip",
        "_last",
        "_local",
        "_proxy_octets",
        "_reception",
        "_recorded",
        "_send_now",
        "_target",
        "_tls",
        "_unsent",
        "due",
        "transport",
    )

    transport: Any

    def __init__(self, reception: Reception, ip: bytes, local: bytes | None) -> None:
        self._reception, self._ip, self._local = reception, ip, local
        self._dialogue: Dialogue | None = None
        self._held = b""
        self._holding = self._recorded = False
        self._tls = _TLS_NONE
        self._proxy_octets = b""
        self._unsent = self._target = self._closing_at = 0
        self._began = self._last = reception.deadlines.now
        self.due = 0

    # Twisted's hooks

    def makeConnection(self, transport: Any) -> None:
        """A client is here; where it comes through a proxy, wait for who it is."""
        self.transport = transport
        self._send_now = transport.getHandle().send
        reception = self._reception
        full = len(reception.open) >= reception.max_connections
        reception.open.add(self)
        first = min(reception.idle_timeout_s, reception.session_timeout_s)
        reception.deadlines.add(self, self._began + first)
        if full:
            self._refuse("refused_total", reception.personas.default)
        elif not reception.trusted_proxies or self._ip not in reception.trusted_proxies:
            self._begin(self._local)

    def dataReceived(self, data: bytes) -> None:
        """Octets from the client."""
        dialogue = self._dialogue
        if dialogue is None:
            self._read_proxy_header(data)
            return
        if self._closing_at:
            return
        replies = dialogue.receive(data)
        if dialogue.heard:
            self._record(dialogue.take())
        if replies or dialogue.reads_content:
            self._last = self._reception.deadlines.now
        if self._holding:
            self._held += replies
            return
        if replies:
            self._send(replies)
        if dialogue.closing != OPEN or dialogue.wants_tls:
            self._after_reply(dialogue)

    def connectionLost(self, reason: Failure) -> None:  # noqa: ARG002 - how it ended is no matter
        """The client is gone; what it said is recorded all the same."""
        reception = self._reception
        reception.open.discard(self)
        reception.deadlines.discard(self)
        if self._tls:
            reception.in_tls -= 1
            reception.count["tls_failures"] += self._tls == _TLS_BEGUN
        if self._dialogue is not None:
            reception.limits.leave(self._ip)
        self._holding = False
        self._closing_at = 1

    def handshakeCompleted(self) -> None:
        """TLS is up."""
        self._tls = _TLS_UP
        self._reception.count["tls_handshakes"] += 1

    # Who it is

    def _begin(self, local: bytes | None) -> None:
        reception = self._reception
        if local is None:
            local = self._find_local()
        persona = reception.personas.at(local)
        if not reception.limits.enter(self._ip):
            self._refuse("refused_source", persona)
            return
        self._target = reception.target(local)
        self._dialogue = Dialogue(persona, reception.rules, reception.count, reception.tls_free)
        if reception.ignore and self._ip in reception.ignore:
            reception.count["connections_ignored"] += 1
        else:
            self._recorded = True
        if reception.banner_delay_s:
            reception.reactor.callLater(reception.banner_delay_s, self._open)
        else:
            self._send(self._dialogue.open())

    def _refuse(self, counter: str, persona: Persona) -> None:
        self._reception.count[counter] += 1
        self._send(persona.too_many_connections)
        self._close()

    def _find_local(self) -> bytes:
        return pack_address(self.transport.getHandle().getsockname()[0].partition("%")[0])

    def _open(self) -> None:
        """The banner, after a delay; the client may be gone."""
        dialogue = self._dialogue
        if dialogue is None or not self.due or self._closing_at:
            return
        said = dialogue.open()
        if self._holding:
            self._held = said + self._held
            return
        self._send(said)
        self._after_reply(dialogue)

    def _read_proxy_header(self, data: bytes) -> None:
        if self._closing_at:
            return
        octets = self._proxy_octets + data
        try:
            header = read_proxy_header(octets)
        except NotAProxyHeader:
            self._reception.count["proxy_invalid"] += 1
            self._close()
            return
        if header is None:
            self._proxy_octets = octets
            return
        self._proxy_octets = b""
        self._begin_behind_proxy(header)
        if self._dialogue is not None and len(octets) > header.size:
            self.dataReceived(octets[header.size :])

    def _begin_behind_proxy(self, header: ProxyHeader) -> None:
        if header.source is None:
            self._reception.count["proxy_unnamed"] += 1
        else:
            self._ip = header.source
        self._begin(header.destination or self._local)
        if header.source is None:
            self._recorded = False

    # Events and replies

    def _record(self, heard: int) -> None:
        """Hand events to the recorder; replies from here on wait for the commit."""
        dialogue, reception = self._dialogue, self._reception
        assert dialogue is not None
        if not self._recorded:
            return
        for bit, feed, counter in _FEEDS:
            if heard & bit:
                reception.count[counter] += 1
                if reception.recorder.hear(self, feed, self._ip, dialogue.flags, self._target):
                    self._holding = True

    def release(self) -> None:
        """What was held may go: its events are in the spool."""
        if not self._holding:
            return
        self._holding = False
        held, self._held = self._held, b""
        if held:
            self._send(held)
        if self._dialogue is not None:
            self._after_reply(self._dialogue)

    def _send(self, octets: bytes) -> None:
        if self._closing_at:
            return
        if self._tls or self._unsent:
            self._send_later(octets)
            return
        try:
            sent = self._send_now(octets)
        except BlockingIOError:
            sent = 0
        except OSError:
            self._abort()
            return
        if sent < len(octets):
            self._send_later(octets[sent:])

    def _send_later(self, octets: bytes) -> None:
        if not self._tls:
            self._unsent += len(octets)
            if self._unsent > self._reception.max_unsent_bytes:
                self._reception.count["limit_unsent"] += 1
                self._abort()
                return
        self.transport.write(octets)

    def _after_reply(self, dialogue: Dialogue) -> None:
        if dialogue.wants_tls:
            self._start_tls(dialogue)
        elif dialogue.closing == CLOSE:
            self._close()
        elif dialogue.closing == LINGER:
            self._linger()

    def _start_tls(self, dialogue: Dialogue) -> None:
        self._tls = _TLS_BEGUN
        self._reception.in_tls += 1
        dialogue.tls_started()
        self.transport.startTLS(self._reception.tls_context)

    # The end

    def _close(self) -> None:
        self._closing_at = self._reception.deadlines.now
        if self._tls or self._unsent:
            self._give_up_after_linger()
            self.transport.loseConnection()
        else:
            # loseConnection would wait until the socket can be written, one more turn of epoll,
            # and there is nothing to write.
            self.transport.connectionLost(_DONE)

    def _give_up_after_linger(self) -> None:
        self._reception.deadlines.discard(self)
        self._reception.deadlines.add(self, self._closing_at + _LINGER_S)

    def _abort(self) -> None:
        self._closing_at = self._reception.deadlines.now
        self.transport.abortConnection()

    def _linger(self) -> None:
        """Close our side only: a reset would take the reply from a client that is sending."""
        self._closing_at = self._reception.deadlines.now
        if self._tls:
            self.transport.loseConnection()
        else:
            self.transport.loseWriteConnection()
        self._give_up_after_linger()

    def check_time(self, now: int) -> int:
        """Called when a bound in time may be reached."""
        reception = self._reception
        if self._closing_at:
            self.transport.abortConnection()
            return 0
        session_end = self._began + reception.session_timeout_s
        idle_end = self._last + reception.idle_timeout_s
        if now < session_end and now < idle_end:
            return min(session_end, idle_end)
        reception.count["limit_session" if now >= session_end else "limit_idle"] += 1
        self.say_and_close("too_slow")
        return 0  # gone, or about to be, or asked again after the linger

    def say_and_close(self, reply: str) -> None:
        """End it with a reply of the persona, where the client knows that it speaks SMTP."""
        if self._closing_at:
            return
        if self._unsent:
            self._abort()
            return
        if self._dialogue is not None:
            persona = self._dialogue.persona
            self._send(getattr(persona, reply))
        self._close()

    def abort(self) -> None:
        """End it at once."""
        self._abort()


_FEEDS: Final = ((GREET, _GREET_FEED, "greets"), (DATA, _DATA_FEED, "datas"))


@implementer(IProtocolFactory)
class Listener:
    """Makes the connections of one listening socket."""

    #: Twisted says "Starting factory" otherwise.
    noisy = False

    def __init__(self, reception: Reception, local: bytes | None) -> None:
        """Begin.

        Args:
            reception: what all connections share.
            local: the packed address it listens on, or None for a wildcard.
        """
        self._reception, self._local = reception, local

    def buildProtocol(self, addr: IAddress) -> Any:
        """A connection; or none, and it is closed at once."""
        reception = self._reception
        if not reception.limits.may_accept(reception.reactor.seconds()):
            reception.count["refused_rate"] += 1
            return None
        reception.count["connections"] += 1
        assert isinstance(addr, IPv4Address | IPv6Address)
        return Connection(reception, pack_address(addr.host.partition("%")[0]), self._local)

    def doStart(self) -> None:
        """Twisted's hook: nothing to do."""

    def doStop(self) -> None:
        """Twisted's hook: nothing to do."""
