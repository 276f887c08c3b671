"""What the sensor changes in Twisted's listening sockets and accepted connections."""

import socket

import pytest
from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.protocol import Factory
from twisted.internet.tcp import Server
from twisted.python.failure import Failure

from smtpfeeds_sensor.edge.poll import SensorReactor
from smtpfeeds_sensor.edge.read_buffer import ErasingServer, read_with_erasure
from smtpfeeds_sensor.edge.sender import Sender


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


@pytest.mark.parametrize(
    ("client", "kind"),
    [(("192.0.2.1", 25), IPv4Address), (("2001:db8::1", 25, 0, 0), IPv6Address)],
)
def test_connection_has_the_attributes_of_twisteds_own(
    client: tuple[object, ...], kind: type
) -> None:
    """The sensor replaces Twisted's constructor: a later Twisted may set more attributes there."""
    made: list[dict[str, object]] = []
    for transport in (Server, ErasingServer):
        reactor = SensorReactor()
        ours, peer = socket.socketpair()
        with ours, peer:
            server = transport(ours, Echo(), client, None, 7, reactor)  # type: ignore[arg-type]
            assert server in reactor.getReaders()
            made.append(vars(server))
            reactor.removeAll()
    theirs, own = made
    assert set(theirs) - {"logstr"} == set(own)
    for name in ("client", "connected", "hostname", "server", "sessionno"):
        assert own[name] == theirs[name]
    assert own.get("_addressType", ErasingServer._addressType) is kind
