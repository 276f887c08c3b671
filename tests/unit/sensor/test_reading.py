"""What the sensor changes in Twisted's listening sockets and accepted connections."""

import socket

from twisted.internet.protocol import Factory
from twisted.internet.tcp import Server
from twisted.python.failure import Failure

from smtpfeeds_sensor.edge.poll import SensorReactor
from smtpfeeds_sensor.edge.reading import ErasingServer, read_with_erasure
from smtpfeeds_sensor.edge.sending import Sender


class Echo(Sender):
    """Sends back what arrives, then ends."""

    is_over = False

    def makeConnection(self, transport: object) -> None:
        self.use(transport)
        self.peer, self.host = self.transport.getPeer(), self.transport.getHost()

    def dataReceived(self, data: memoryview) -> None:
        self.send(bytes(data), 1000)
        self.end()

    def connectionLost(self, reason: Failure) -> None:
        self.is_over = True


def test_a_client_is_accepted_read_answered_and_closed() -> None:
    """A client sees no difference from Twisted's own ways."""
    assert Server._shouldShutdown, "Twisted has renamed what the sensor switches off"
    assert not ErasingServer._shouldShutdown
    echo, factory, reactor = Echo(), Factory(), SensorReactor()
    factory.buildProtocol = lambda addr: echo  # type: ignore[method-assign, assignment, return-value]
    factory.noisy = False
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.setblocking(False)
        port = read_with_erasure(
            reactor.adoptStreamPort(listener.fileno(), listener.family, factory)
        )
        assert type(port.socket.family) is type(port.socket.type) is int
        assert (port.socket.family, port.socket.type) == (socket.AF_INET, socket.SOCK_STREAM)
        with socket.create_connection(listener.getsockname()) as client:
            client.settimeout(60)
            client.sendall(b"octets")
            while not echo.is_over:
                reactor.doPoll(60)
            assert client.recv(100) == b"octets"
            assert client.recv(100) == b""
            assert (echo.peer.host, echo.peer.port) == client.getsockname()
            assert (echo.host.host, echo.host.port) == client.getpeername()
    reactor.removeAll()
    port.socket.close()
