"""One client's connection: its data and its state.

A connection is in exactly one state, which decides what each event does:

=====================  ==================================  ==============================
state                  until                               in
=====================  ==================================  ==============================
NEW                    Twisted gives it a transport        initiation
AWAITING_HEADER        a trusted proxy's header is whole   initiation
AWAITING_BANNER        ``banner_delay_s`` is over          initiation
AWAITING_BANNER_AND_   the same, or the commit of what it  initiation
COMMIT                 sent before the banner
IN_SESSION             its next event, STARTTLS, the end   session
HOLDING                events are committed                session
IN_HANDSHAKE           TLS is up                           session
CLOSING                the last reply is read              termination
CLOSED                                                     termination
=====================  ==================================  ==============================

Events of Twisted, of the recorder and of the timer arrive here and are passed to the state. A
connection is a small object with slots, so that 10,000 idle ones cost little.
"""

from collections.abc import Callable, MutableMapping
from typing import Any, NamedTuple

from twisted.internet.interfaces import IHandshakeListener, IProtocol
from twisted.python.failure import Failure
from zope.interface import implementer

from smtpfeeds_common.spool import Event

from ..smtp.dialogue import Dialogue
from ..smtp.erase import Octets
from .proxy_header import ProxyHeaderReader
from .reception import Reception
from .sender import Sender


def do_nothing(connection: "Connection") -> None:
    """Do nothing: the event has no effect in this state, or cannot occur."""


def discard_octets(connection: "Connection", octets: Octets) -> None:
    """Discard the octets."""


class State(NamedTuple):
    """The actions of a state, one for each event."""

    #: Octets arrive.
    octets: "Callable[[Connection, Octets], None]" = discard_octets
    #: The delay before the banner is over.
    banner_due: "Callable[[Connection], None]" = do_nothing
    #: Its events are in the spool, or in memory if the spool cannot be written.
    committed: "Callable[[Connection], None]" = do_nothing
    #: The TLS handshake is complete.
    tls_up: "Callable[[Connection], None]" = do_nothing
    #: A time limit is reached.
    timed_out: "Callable[[Connection], None]" = do_nothing
    #: The sensor stops.
    stopping: "Callable[[Connection], None]" = do_nothing
    #: The transport is closed.
    disconnected: "Callable[[Connection], None]" = do_nothing
    #: The transport is connected.
    connected: "Callable[[Connection], None]" = do_nothing
    #: Whether the time limit is that of the last reply, not those of idle time and session.
    lingers: bool = False


@implementer(IProtocol, IHandshakeListener)
class Connection(Sender):
    """One client. Attributes are for the states; only their modules change ``state``."""

    __slots__ = (
        "__weakref__",
        "_began",
        "dialogue",
        "due",
        "events",
        "header",
        "heard_at",
        "held",
        "ip",
        "local",
        "reception",
        "recorded",
        "state",
        "target",
    )

    def __init__(self, reception: Reception, ip: bytes, local: bytes | None, state: State) -> None:
        """Begin.

        Args:
            reception: what all connections share.
            ip: the client's packed address, or its proxy's.
            local: the packed address that the client connected to, or None if unknown yet.
            state: NEW.
        """
        self.reception, self.ip, self.local, self.state = reception, ip, local, state
        self.dialogue: Dialogue | None = None
        self.header: ProxyHeaderReader | None = None
        #: Replies that wait for the banner or for a commit.
        self.held = b""
        #: Whether its events are recorded and counted; monitors' events are not.
        self.recorded = True
        self.target = 0
        #: Its recorded events: behaviours may still follow.
        self.events: tuple[Event, ...] = ()
        self._began = self.heard_at = reception.deadlines.now
        #: Only ``Deadlines`` writes this.
        self.due = 0

    @property
    def count(self) -> MutableMapping[str, int]:
        """Return the counters of this connection."""
        reception = self.reception
        return reception.count if self.recorded else reception.uncounted

    # Events

    def makeConnection(self, transport: Any) -> None:
        """Twisted's hook: a client has connected."""
        self.use(transport)
        reception = self.reception
        reception.open.add(self)
        first = min(reception.idle_timeout_s, reception.session_timeout_s)
        reception.deadlines.add(self, self._began + first)
        self.state.connected(self)

    def dataReceived(self, data: Octets) -> None:
        """Twisted's hook: octets from the client; a view of a buffer is overwritten after use."""
        try:
            self.state.octets(self, data)
        finally:
            if isinstance(data, memoryview):
                data[:] = bytearray(len(data))

    def banner_due(self) -> None:
        """The delay before the banner is over."""
        self.state.banner_due(self)

    def release(self) -> None:
        """Send replies: the events are recorded."""
        self.state.committed(self)

    def handshakeCompleted(self) -> None:
        """Twisted's hook: TLS is up."""
        self.state.tls_up(self)

    def check_time(self, now: int) -> int:
        """Check the time limits; return the next tick at which to call this, or 0."""
        if not self.state.lingers:
            reception = self.reception
            session_end = self._began + reception.session_timeout_s
            idle_end = self.heard_at + reception.idle_timeout_s
            if now < session_end and now < idle_end:
                return min(session_end, idle_end)
            self.count["limit_session" if now >= session_end else "limit_idle"] += 1
        self.state.timed_out(self)
        return 0

    def stop(self) -> None:
        """The sensor stops."""
        self.state.stopping(self)

    def abort(self) -> None:
        """End the connection at once: the sensor has waited long enough for its client."""
        self.transport.abortConnection()

    def connectionLost(self, reason: Failure) -> None:  # noqa: ARG002 - why does not matter
        """Twisted's hook: the client has disconnected; its events still count."""
        reception = self.reception
        reception.open.discard(self)
        reception.deadlines.discard(self)
        if self.in_tls:
            reception.in_tls -= 1
        if self.dialogue is not None:
            reception.limits.leave(self.ip)
            self.dialogue.forget()
            flags = self.dialogue.flags
            for event in self.events:
                if flags != event.flags:
                    reception.recorder.note(event, flags)
            self.events = ()
        self.state.disconnected(self)

    @property
    def age_s(self) -> int:
        """Return the whole seconds since the connection began."""
        return self.reception.deadlines.now - self._began
