"""How replies leave: at once, through Twisted's buffer, or through TLS; within a bound.

A reply goes straight to the socket, which nearly always takes it. What it does
not take waits in Twisted's buffer, and so does everything in TLS. A client that
leaves more than the bound of that unread is to be dropped; what it has read
counts no more. Apart from the connection because it reads the length of
Twisted's buffer, which Twisted does not publish.
"""

from typing import Any, Final

from twisted.internet.error import ConnectionDone
from twisted.python.failure import Failure

#: What became of octets to send: on their way; the client is gone; it left too much unread.
SENT, GONE, UNREAD = range(3)
#: Why a connection ends that the sensor ends.
_DONE: Final = Failure(ConnectionDone())


def unsent_bytes(transport: Any) -> int:
    """Octets in a transport's buffer that the kernel has not taken yet."""
    in_list: int = transport._tempDataLen  # noqa: SLF001 - Twisted has no other way to ask
    return len(transport.dataBuffer) - int(transport.offset) + in_list


class Sender:
    """The sending side of one connection."""

    __slots__ = ("_buffers", "_send_now", "in_tls", "transport")

    transport: Any

    def use(self, transport: Any) -> None:
        """Send to this transport."""
        self.transport = transport
        self._send_now = transport.getHandle().send
        #: Whether octets go through the transport's buffer: some wait there, or TLS does it.
        self._buffers = False
        self.in_tls = False

    def start_tls(self, context: Any) -> None:
        """Send through TLS from here on."""
        self._buffers = self.in_tls = True
        self.transport.startTLS(context)

    @property
    def has_unsent(self) -> bool:
        """Whether the client has left something unread."""
        return self._buffers and unsent_bytes(self.transport) > 0

    def send(self, octets: bytes, max_unsent_bytes: int) -> int:
        """Send octets: SENT, GONE or UNREAD."""
        if self._buffers and not self.in_tls:
            self._buffers = unsent_bytes(self.transport) > 0
        if not self._buffers:
            try:
                sent = self._send_now(octets)
            except BlockingIOError:
                sent = 0
            except OSError:
                return GONE
            if sent == len(octets):
                return SENT
            octets = octets[sent:]
            self._buffers = True
        return self._send_buffered(octets, max_unsent_bytes)

    def _send_buffered(self, octets: bytes, max_unsent_bytes: int) -> int:
        transport = self.transport
        if self.in_tls:
            # Without STARTTLS this is not installed.
            from twisted.protocols.tls import TLSMemoryBIOProtocol

            # Past Twisted's gathering of small writes: a reply is whole, and counts at once.
            TLSMemoryBIOProtocol.write(transport.protocol, octets)
        else:
            transport.write(octets)
        if unsent_bytes(transport) <= max_unsent_bytes:
            return SENT
        # The client may have read meanwhile: offer the kernel what waits before judging.
        if transport.doWrite() is not None:
            return GONE
        return SENT if unsent_bytes(transport) <= max_unsent_bytes else UNREAD

    def end(self) -> bool:
        """Close, after what is still unsent; True where that may take a while."""
        if self._buffers:
            self.transport.loseConnection()
            return True
        # loseConnection would wait until the socket can be written, one more turn of epoll,
        # and there is nothing to write.
        self.transport.connectionLost(_DONE)
        return False

    def end_sending(self) -> None:
        """Close this side alone: a reset would take the reply from a client that is sending."""
        if self.in_tls:
            self.transport.loseConnection()
        else:
            self.transport.loseWriteConnection()
