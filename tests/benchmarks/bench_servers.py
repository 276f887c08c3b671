"""The servers that the sensor is measured against, one a process: ``bench_servers.py KIND PORT``.

Each takes messages as its documentation says, throws them away, and does nothing else: no
recording, no bounds beyond its own. ``floor`` is no mail server: it has the sensor's sockets, and
gives fixed replies without looking at what arrives. No dialogue in Python costs less.
"""

import sys
from typing import Any


def run_aiosmtpd(port: int) -> None:
    import asyncio

    from aiosmtpd.smtp import SMTP

    class Discard:
        async def handle_DATA(self, server: object, session: object, envelope: object) -> str:
            return "250 OK"

    async def serve() -> None:
        loop = asyncio.get_running_loop()
        server = await loop.create_server(
            lambda: SMTP(Discard(), hostname="bench.example"), "127.0.0.1", port, backlog=1024
        )
        await server.serve_forever()

    asyncio.run(serve())


def run_stock(port: int) -> None:
    from twisted.internet import defer, protocol
    from twisted.internet import reactor as installed
    from twisted.mail import smtp
    from zope.interface import implementer

    @implementer(smtp.IMessage)
    class Discard:
        def lineReceived(self, line: bytes) -> None:
            pass

        def eomReceived(self) -> object:
            return defer.succeed(None)

        def connectionLost(self) -> None:
            pass

    @implementer(smtp.IMessageDelivery)
    class Delivery:
        def receivedHeader(self, helo: object, origin: object, recipients: object) -> bytes:
            return b""

        def validateFrom(self, helo: object, origin: object) -> object:
            return origin

        def validateTo(self, user: object) -> object:
            return Discard

    class Factory(protocol.ServerFactory):
        noisy = False

        def buildProtocol(self, addr: object) -> protocol.Protocol:
            esmtp = smtp.ESMTP()
            esmtp.factory = self
            esmtp.host = b"bench.example"
            esmtp.delivery = Delivery()
            return esmtp

    reactor: Any = installed
    reactor.listenTCP(port, Factory(), backlog=1024, interface="127.0.0.1")
    reactor.run()


def run_floor(port: int) -> None:
    from twisted.internet import protocol
    from twisted.internet.main import installReactor

    from smtpfeeds_sensor.edge.poll import SensorReactor
    from smtpfeeds_sensor.edge.read_buffer import read_with_erasure
    from smtpfeeds_sensor.edge.sender import Sender

    replies = [b"220 bench.example ESMTP\r\n", *[b"250 OK\r\n"] * 3, b"354 Go on\r\n"]
    replies += [b"250 OK\r\n", b"221 Bye\r\n"]
    content = replies.index(b"354 Go on\r\n")

    class Fixed(Sender):
        __slots__ = ("sent",)

        def makeConnection(self, transport: object) -> None:
            self.use(transport)
            self.sent = 0
            self.send(replies[0], 1000)

        def dataReceived(self, data: memoryview) -> None:
            if self.sent == content and bytes(data[-5:]) != b"\r\n.\r\n":
                return
            self.sent += 1
            self.send(replies[self.sent], 1000)
            if self.sent == len(replies) - 1:
                self.end()

        def connectionLost(self, reason: object) -> None:
            pass

    class Factory(protocol.ServerFactory):
        noisy = False

        def buildProtocol(self, addr: object) -> Any:
            return Fixed()

    reactor: Any = SensorReactor()
    installReactor(reactor)
    read_with_erasure(reactor.listenTCP(port, Factory(), 1024, "127.0.0.1"))
    reactor.run()


if __name__ == "__main__":
    kinds = {"aiosmtpd": run_aiosmtpd, "stock": run_stock, "floor": run_floor}
    kinds[sys.argv[1]](int(sys.argv[2]))
