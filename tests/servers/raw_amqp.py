"""Publishes messages with properties as raw octets, which no AMQP library would write.

It implements only what that needs of AMQP 0-9-1 (sections 2.3.5, 4.2): a connection with a
password, a channel in confirm mode, basic.publish, and the broker's answer.
"""

from __future__ import annotations

import socket
import struct
from types import TracebackType
from typing import Final, Self
from urllib.parse import unquote, urlsplit

_METHOD, _HEADER, _BODY, _HEARTBEAT = 1, 2, 3, 8
_END: Final = b"\xce"
_LIMIT_S: Final = 60.0

# Class and method numbers.
_START, _START_OK, _TUNE, _TUNE_OK = (10, 10), (10, 11), (10, 30), (10, 31)
_OPEN, _OPEN_OK, _CLOSE, _CLOSE_OK = (10, 40), (10, 41), (10, 50), (10, 51)
_CHANNEL_OPEN, _CHANNEL_OPEN_OK, _CHANNEL_CLOSE = (20, 10), (20, 11), (20, 40)
_PUBLISH, _ACK, _NACK = (60, 40), (60, 80), (60, 120)
_CONFIRM_SELECT, _CONFIRM_OK = (85, 10), (85, 11)

# Property flags, section 4.2.6.1.
HEADERS, DELIVERY_MODE, MESSAGE_ID, TIMESTAMP = 1 << 13, 1 << 12, 1 << 7, 1 << 6
USER_ID, APP_ID, MORE_FLAGS = 1 << 4, 1 << 3, 1 << 0


class RefusedByBrokerError(Exception):
    """The broker closed the channel or the connection, or did not confirm."""


def short(text: bytes) -> bytes:
    """Encode a short string."""
    return bytes([len(text)]) + text


def long(data: bytes) -> bytes:
    """Encode a long string, or a table or an array from its contents."""
    return struct.pack(">I", len(data)) + data


def header(name: bytes, kind: bytes, value: bytes) -> bytes:
    """Encode an entry of a table."""
    return short(name) + kind + value


def properties(flags: int, *values: bytes) -> bytes:
    """Encode the flags, and the values in the order of their flags."""
    return struct.pack(">H", flags) + b"".join(values)


class RawPublisher:
    """A connection with one channel in confirm mode."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        self.user, password = unquote(parts.username or ""), unquote(parts.password or "")
        self._socket = socket.create_connection((parts.hostname, parts.port), timeout=_LIMIT_S)
        self._read = b""
        self._socket.sendall(b"AMQP\x00\x00\x09\x01")
        self._expect(_START)
        login = long(b"\0" + self.user.encode() + b"\0" + password.encode())
        self._send(0, _START_OK, long(b"") + short(b"PLAIN") + login + short(b"en_US"))
        tune = self._expect(_TUNE)
        self.frame_max = int(struct.unpack_from(">I", tune, 2)[0])
        self._send(0, _TUNE_OK, tune[:6] + struct.pack(">H", 0))
        vhost = unquote(parts.path.removeprefix("/")) or "/"
        self._send(0, _OPEN, short(vhost.encode()) + short(b"") + b"\0")
        self._expect(_OPEN_OK)
        self._send(1, _CHANNEL_OPEN, short(b""))
        self._expect(_CHANNEL_OPEN_OK)
        self._send(1, _CONFIRM_SELECT, b"\0")
        self._expect(_CONFIRM_OK)

    def publish(self, exchange: str, key: bytes, properties: bytes, body: bytes) -> None:
        """Publish and wait for the confirm.

        Raises:
            RefusedByBrokerError: the broker does not accept it.
        """
        target = short(exchange.encode()) + short(key)
        self._send(1, _PUBLISH, b"\0\0" + target + b"\0")
        self._frame(_HEADER, 1, struct.pack(">HHQ", 60, 0, len(body)) + properties)
        step = self.frame_max - 8
        for start in range(0, len(body), step):
            self._frame(_BODY, 1, body[start : start + step])
        self._expect(_ACK)

    def close(self) -> None:
        self._socket.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _frame(self, kind: int, channel: int, payload: bytes) -> None:
        self._socket.sendall(struct.pack(">BHI", kind, channel, len(payload)) + payload + _END)

    def _send(self, channel: int, method: tuple[int, int], arguments: bytes) -> None:
        self._frame(_METHOD, channel, struct.pack(">HH", *method) + arguments)

    def _expect(self, method: tuple[int, int]) -> bytes:
        """Return the arguments of the next method, which must be this one."""
        while True:
            kind, channel, size = struct.unpack(">BHI", self._take(7))
            payload = self._take(size + 1)[:-1]
            if kind != _METHOD:
                continue
            received = struct.unpack_from(">HH", payload)
            if received == method:
                return payload[4:]
            raise RefusedByBrokerError(f"channel {channel}: {received} {payload[4:200]!r}")

    def _take(self, octets: int) -> bytes:
        while len(self._read) < octets:
            more = self._socket.recv(65_536)
            if not more:
                raise RefusedByBrokerError("the broker closed the connection")
            self._read += more
        taken, self._read = self._read[:octets], self._read[octets:]
        return taken
