"""One TCP connection of a simulated client.

asyncio's stream reader discards unread data when the connection is reset, and a connection is reset
when a sensor closes it while the client still sends. This class keeps all data that arrived before
the end.
"""

import asyncio
import socket
import time
from collections.abc import Callable
from typing import Final, cast

from smtpfeeds_common.errors import SingleHostError

#: How long a client waits for a reply; a sensor on a busy machine may be slow.
ANSWER_LIMIT_S: Final = 30.0
#: The most unread data that a client keeps; a sensor never sends this much.
_MAX_UNREAD_BYTES: Final = 65_536

Now = Callable[[], int]


def now_ms() -> int:
    """Read the host's clock, in milliseconds since 1970-01-01 UTC."""
    return time.time_ns() // 1_000_000


class ClientTrouble(SingleHostError):
    """A simulated client got an unexpected answer."""


class ClosedBySensor(ClientTrouble):
    """The sensor closed the connection instead of sending a reply."""


class Talk(asyncio.Protocol):
    """A client's connection to a sensor."""

    def __init__(self) -> None:
        self._unread = bytearray()
        self._changed = asyncio.Event()
        self.closed = False
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport, and set TCP_NODELAY so that each write is sent at once."""
        self._transport = cast("asyncio.Transport", transport)
        connection = transport.get_extra_info("socket")
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def data_received(self, data: bytes) -> None:
        """Keep the data up to a bound; past it, reset the connection."""
        self._unread += data
        if len(self._unread) > _MAX_UNREAD_BYTES:
            self.abort()
        self._changed.set()

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - asyncio's signature
        """Note the end; data that arrived before stays readable."""
        self.closed = True
        self._changed.set()

    @property
    def local_address(self) -> str:
        """The address of this end."""
        assert self._transport is not None
        return str(self._transport.get_extra_info("sockname")[0])

    def send(self, data: bytes) -> None:
        """Send data, usually in one segment; do nothing if the sensor has closed."""
        if self._transport is not None and not self.closed:
            self._transport.write(data)

    def end_of_sending(self) -> None:
        """Half-close the connection, so that the sensor reads end of file."""
        if self._transport is not None and not self.closed:
            self._transport.write_eof()

    def abort(self) -> None:
        """Reset the connection."""
        if self._transport is not None and not self.closed:
            connection = self._transport.get_extra_info("socket")
            linger = (1).to_bytes(4, "little") + (0).to_bytes(4, "little")
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
            self._transport.abort()

    def close(self) -> None:
        """Close the connection after all data is sent."""
        if self._transport is not None:
            self._transport.close()

    async def reply(self) -> int:
        """Read one reply, of one or several lines, and return its code.

        Raises:
            ClosedBySensor: the sensor has closed the connection.
            ClientTrouble: nothing arrived within the limit, or no SMTP reply.
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
        """Read and discard data until the sensor closes.

        Raises:
            ClientTrouble: the connection is still open after the limit.
        """
        while not self.closed:
            self._unread.clear()
            await self._wait("not closed")

    async def _wait(self, failure: str) -> None:
        self._changed.clear()
        try:
            await asyncio.wait_for(self._changed.wait(), ANSWER_LIMIT_S)
        except TimeoutError as exc:
            raise ClientTrouble(f"{failure} within {ANSWER_LIMIT_S:g} s") from exc
