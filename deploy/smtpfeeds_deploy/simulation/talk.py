"""One TCP connection of a simulated client: what is sent, what is read, and when.

Not asyncio's stream reader: that one throws away what it has read when the
connection is reset, and a sensor that closes on a client which talks on
resets. Here what came before the end can always be read.
"""

import asyncio
import socket
import time
from collections.abc import Callable
from typing import Final, cast

from smtpfeeds_common.errors import SingleHostError

#: A sensor on a busy machine answers later than on the Internet's patience allows.
ANSWER_LIMIT_S: Final = 30.0
#: What a client keeps unread at most; a sensor never sends this much.
_MAX_UNREAD_BYTES: Final = 65_536

Now = Callable[[], int]


def now_ms() -> int:
    """The host's clock, in milliseconds since 1970-01-01 UTC."""
    return time.time_ns() // 1_000_000


class ClientTrouble(SingleHostError):
    """A simulated client was answered otherwise than it must be."""


class ClosedBySensor(ClientTrouble):
    """The sensor closed the connection instead of sending a reply."""


class Talk(asyncio.Protocol):
    """A connection to a sensor, as a client has it."""

    def __init__(self) -> None:
        self._unread = bytearray()
        self._changed = asyncio.Event()
        self.closed = False
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport; verbs leave in the segments they are written in."""
        self._transport = cast("asyncio.Transport", transport)
        connection = transport.get_extra_info("socket")
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def data_received(self, data: bytes) -> None:
        """Keep what came, up to a bound; past it the connection is cut."""
        self._unread += data
        if len(self._unread) > _MAX_UNREAD_BYTES:
            self.abort()
        self._changed.set()

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - asyncio's signature
        """What was read before stays readable."""
        self.closed = True
        self._changed.set()

    @property
    def local_address(self) -> str:
        """The address of this end."""
        assert self._transport is not None
        return str(self._transport.get_extra_info("sockname")[0])

    def send(self, data: bytes) -> None:
        """Send, in one segment where the kernel lets it; nothing where the sensor has closed."""
        if self._transport is not None and not self.closed:
            self._transport.write(data)

    def end_of_sending(self) -> None:
        """Half-close: the sensor sees that nothing more will come."""
        if self._transport is not None and not self.closed:
            self._transport.write_eof()

    def abort(self) -> None:
        """Vanish: the sensor sees a reset."""
        if self._transport is not None and not self.closed:
            connection = self._transport.get_extra_info("socket")
            linger = (1).to_bytes(4, "little") + (0).to_bytes(4, "little")
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
            self._transport.abort()

    def close(self) -> None:
        """Close in order, after what is still to be sent."""
        if self._transport is not None:
            self._transport.close()

    async def reply(self) -> int:
        """Read one whole reply, of one or several lines; its code.

        Raises:
            ClosedBySensor: it is closed.
            ClientTrouble: nothing came within the limit, or what is no reply.
        """
        while True:
            line = await self._line()
            if len(line) < 3 or not line[:3].isdigit():
                raise ClientTrouble(f"answered {line[:80]!r}, which is not an SMTP reply")
            if line[3:4] != b"-":
                return int(line[:3])

    async def _line(self) -> bytes:
        while (end := self._unread.find(b"\n")) < 0:
            if self.closed:
                raise ClosedBySensor
            await self._wait("no reply")
        line = bytes(self._unread[:end])
        del self._unread[: end + 1]
        return line

    async def until_closed(self) -> None:
        """Read on until the sensor closes; what comes is of no interest.

        Raises:
            ClientTrouble: still open after the limit.
        """
        while not self.closed:
            self._unread.clear()
            await self._wait("not closed")

    async def _wait(self, what: str) -> None:
        self._changed.clear()
        try:
            await asyncio.wait_for(self._changed.wait(), ANSWER_LIMIT_S)
        except TimeoutError as exc:
            raise ClientTrouble(f"{what} within {ANSWER_LIMIT_S:g} s") from exc
