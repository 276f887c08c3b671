"""Send replies: at once, through Twisted's buffer, or through TLS; within a bound.

A reply is written directly to the socket, which nearly always accepts it. The rest waits in
Twisted's buffer, like everything in TLS. A client that leaves more than the bound unread must be
dropped; octets that it has read no longer count. The module is separate from the connection because
it reads the length of Twisted's buffer, which is not a public interface.
"""

from typing import Any, Final

from twisted.internet.error import ConnectionDone
from twisted.python.failure import Failure

#: Results of sending: sent; the client has disconnected; it leaves too much unread.
SENT, GONE, UNREAD = range(3)
#: The reason of a connection that the sensor ends.
_DONE: Final = Failure(ConnectionDone())


def unsent_bytes(transport: Any) -> int:
    """Return the octets in a transport's buffer that the kernel has not accepted yet."""
    in_list: int = transport._tempDataLen  # noqa: SLF001 - Twisted has no other way to ask
    return len(transport.dataBuffer) - int(transport.offset) + in_list


class Sender:
    """The sending side of one connection."""

    __slots__ = ("_buffers", "_send_now", "in_tls", "transport")

    transport: Any

    def use(self, transport: Any) -> None:
        """Use this transport."""
        self.transport = transport
        self._send_now = transport.getHandle().send
        #: Whether octets go through the transport's buffer: some wait there, or the connection uses
        #: TLS.
        self._buffers = False
        self.in_tls = False

    def start_tls(self, context: Any) -> None:
        """Send through TLS from now on."""
        self._buffers = self.in_tls = True
        self.transport.startTLS(context)

    @property
    def has_unsent(self) -> bool:
        """Return whether octets are still unsent."""
        return self._buffers and unsent_bytes(self.transport) > 0

    def send(self, octets: bytes, max_unsent_bytes: int) -> int:
        """Send octets; return SENT, GONE or UNREAD."""
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

            # Bypass Twisted's collection of small writes: a reply is complete, and counts at once.
            TLSMemoryBIOProtocol.write(transport.protocol, octets)
        else:
            transport.write(octets)
        if unsent_bytes(transport) <= max_unsent_bytes:
            return SENT
        # The client may have read since: first offer the waiting octets to the kernel.
        if transport.doWrite() is not None:
            return GONE
        return SENT if unsent_bytes(transport) <= max_unsent_bytes else UNREAD

    def end(self) -> bool:
        """Close after the unsent octets; return True if that may take a while."""
        if self._buffers:
            self.transport.loseConnection()
            return True
        # loseConnection would wait until the socket can be written, one more turn of epoll,
        # and there is nothing to write.
        self.transport.connectionLost(_DONE)
        return False

    def end_sending(self) -> None:
        """Close only this side: a reset would destroy the reply to a client that still sends."""
        if self.in_tls:
            self.transport.loseConnection()
        else:
            self.transport.loseWriteConnection()
