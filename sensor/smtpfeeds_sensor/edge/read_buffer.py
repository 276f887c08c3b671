"""Read octets into one buffer of the process, which the connection overwrites.

Twisted reads into a new ``bytes`` object each time. That cannot be overwritten, so a message's
text would stay in freed memory for as long as shorter reads use its beginning only. The protocol
gets a view that is valid only during the call. The module is separate from the connection because
it replaces methods of Twisted's transport.
"""

import socket
from typing import Any, Final

from twisted.internet.address import IPv6Address
from twisted.internet.main import CONNECTION_DONE, CONNECTION_LOST
from twisted.internet.tcp import Connection, Server

#: Octets of one read, as in Twisted.
_READ_BYTES: Final = 65_536
#: One for the process: the octets of a read are used before the next read.
_arrived: Final = bytearray(_READ_BYTES)
_view: Final = memoryview(_arrived)


class ErasingServer(Server):
    """Twisted's side of an accepted connection."""

    #: Twisted's shutdown(2) before close(2) is for sockets that another process shares.
    _shouldShutdown = False  # noqa: N815 - Twisted's name
    #: Twisted composes two names of each connection for its log; the sensor's has neither.
    logstr = repstr = "connection"

    def __init__(
        self, sock: Any, protocol: Any, client: Any, server: Any, sessionno: int, reactor: Any
    ) -> None:
        """Begin to read, as Twisted does."""
        Connection.__init__(self, sock, protocol, reactor)
        if ":" in client[0]:
            self._addressType = IPv6Address
        self.server, self.client, self.sessionno = server, client, sessionno
        self.hostname = client[0]
        reactor.addReader(self)
        self.connected = 1

    def doRead(self) -> Any:
        """Twisted's hook: octets can be read."""
        try:
            size = self.socket.recv_into(_arrived)
        except BlockingIOError:
            return None
        except OSError:
            return CONNECTION_LOST
        if not size:
            return CONNECTION_DONE
        protocol: Any = self.protocol
        protocol.dataReceived(_view[:size])
        return None


class ListeningSocket(socket.socket):
    """A listening socket, whose family and type are plain numbers.

    Python reads both at each accept; as enumerations they cost 2 % of a session.
    """

    __slots__ = ()
    family: Any = socket.SocketType.family  # pyright: ignore[reportIncompatibleMethodOverride]
    type: Any = socket.SocketType.type  # pyright: ignore[reportIncompatibleMethodOverride]


def read_with_erasure(port: Any) -> Any:
    """Make a listening port read its connections in this way."""
    port.transport = ErasingServer
    port.socket.__class__ = ListeningSocket
    return port
