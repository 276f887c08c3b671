"""The servers that the sensor is measured against, one a process: ``bench_servers.py KIND PORT``.

Each takes messages as its documentation says, throws them away, and does nothing else: no
recording, no bounds beyond its own.
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


if __name__ == "__main__":
    {"aiosmtpd": run_aiosmtpd, "stock": run_stock}[sys.argv[1]](int(sys.argv[2]))
