"""Reads the needed properties of a message, however malformed the others are.

RabbitMQ accepts header tables on which pika raises inside its read loop: a time out of
range, tables nested thousands deep. The connection would break, and the broker would
deliver the message again for ever. This module skips values that it does not need by
their length, and does not read nested tables. A value that it cannot skip ends its
table; the table's length tells where the next property begins.

AMQP 0-9-1, sections 4.2.5 (values) and 4.2.6.1 (properties), with the kinds of
value that RabbitMQ has: https://www.rabbitmq.com/amqp-0-9-1-errata#section_3
"""

import struct
from dataclasses import dataclass, field
from typing import Any, Final

from pika import BasicProperties
from pika.adapters.select_connection import SelectConnection
from pika.frame import Header
from pika.spec import FRAME_END, FRAME_HEADER, Basic

from smtpfeeds_common.errors import WireError

#: Only headers whose names begin with this are read.
OWN_HEADERS: Final = "x-smtpfeeds-"

#: Octets of each kind of value; the kinds in the second begin with their length.
_FIXED: Final = {
    **{ord(kind): 1 for kind in "tbB"},
    **{ord(kind): 2 for kind in "sUu"},
    **{ord(kind): 4 for kind in "Iif"},
    **{ord(kind): 8 for kind in "LldT"},
    ord("D"): 5,
    ord("V"): 0,
}
_WITH_LENGTH: Final = frozenset(b"SxAF")
_TEXT: Final = ord("S")

#: The properties in their order, bit 15 first. Each is a short string, except `headers` and those
#: of `_OCTETS`.
_NAMES: Final = (
    *("content_type", "content_encoding", "headers", "delivery_mode", "priority"),
    *("correlation_id", "reply_to", "expiration", "message_id", "timestamp", "type"),
    *("user_id", "app_id", "cluster_id"),
)
_OCTETS: Final = {"delivery_mode": 1, "priority": 1, "timestamp": 8}
#: Bit 0: more flags follow; AMQP 0-9-1 has no such properties.
_MORE_FLAGS: Final = 1

_FRAME: Final = struct.Struct(">BHL")
_CONTENT: Final = struct.Struct(">HHQ")


@dataclass(slots=True)
class Properties:
    """The properties of a message that are read."""

    user_id: str | None = None
    message_id: str | None = None
    #: Unix time as received: any number of 64 bits.
    timestamp: int | None = None
    headers: dict[str, str] = field(default_factory=dict)
    #: Why `user_id` cannot be read; empty if it can.
    problem: str = ""


class _CutShort(Exception):
    """The octets end before the value ends."""


class _Octets:
    """A read position in octets, with an end."""

    def __init__(self, data: bytes, start: int, end: int) -> None:
        self._data, self._at, self._end = data, start, end

    @property
    def left(self) -> int:
        return self._end - self._at

    def take(self, count: int) -> bytes:
        if count > self.left:
            raise _CutShort
        taken = self._data[self._at : self._at + count]
        self._at += count
        return taken

    def part(self, count: int) -> "_Octets":
        """Return a reader for the next octets, and skip them here."""
        if count > self.left:
            raise _CutShort
        part = _Octets(self._data, self._at, self._at + count)
        self._at += count
        return part

    def number(self, octets: int) -> int:
        return int.from_bytes(self.take(octets))

    def short_string(self) -> bytes:
        return self.take(self.number(1))


def read_properties(encoded: bytes) -> Properties:
    """Read the properties of a content header, beginning with its flags; never raises."""
    read = Properties()
    try:
        _read(_Octets(encoded, 0, len(encoded)), read)
    except _CutShort:
        read.problem = "its properties are truncated"
    return read


def _read(octets: _Octets, read: Properties) -> None:
    flags = octets.number(2)
    if flags & _MORE_FLAGS:
        read.problem = "its properties have flags that AMQP 0-9-1 does not know"
        return
    for bit, name in enumerate(_NAMES):
        if not flags & 1 << (15 - bit):
            continue
        if name == "headers":
            read.headers = _own_headers(octets.part(octets.number(4)))
        elif name == "timestamp":
            read.timestamp = octets.number(8)
        elif name in _OCTETS:
            octets.take(_OCTETS[name])
        else:
            _note_text(name, octets.short_string(), read)


def _note_text(name: str, value: bytes, read: Properties) -> None:
    if name not in {"user_id", "message_id"}:
        return
    try:
        setattr(read, name, value.decode())
    except UnicodeDecodeError:
        if name == "user_id":
            read.problem = "user_id is not UTF-8, so the sender is not known"


def _own_headers(table: _Octets) -> dict[str, str]:
    """Read the project's own headers, which are texts, as far as the table can be read."""
    headers: dict[str, str] = {}
    try:
        while table.left:
            name, kind = table.short_string(), table.number(1)
            value = _value(table, kind)
            if value is None:
                break
            if kind == _TEXT and name.startswith(OWN_HEADERS.encode()):
                headers[name.decode()] = value.decode()
    except (_CutShort, UnicodeDecodeError):
        return headers
    return headers


def _value(table: _Octets, kind: int) -> bytes | None:
    """Take a value's octets unparsed; None if its kind, and so its length, is unknown."""
    if kind in _WITH_LENGTH:
        return table.take(table.number(4))
    if kind in _FIXED:
        return table.take(_FIXED[kind])
    return None


class TolerantConnection(SelectConnection):  # type: ignore[misc] # pika has no types
    """A pika connection that reads the properties of messages with `read_properties`.

    It overrides the private method in which pika turns octets into frames. If a later pika renames
    it, a test with a real broker fails.
    """

    def _read_frame(self) -> tuple[int, Any]:
        """Return the next complete frame in the buffer, and its length in octets."""
        frame: bytes = vars(self)["_frame_buffer"]
        if len(frame) < _FRAME.size or frame[0] != FRAME_HEADER:
            return super()._read_frame()  # type: ignore[no-any-return] # pika has no types
        _, channel, size = _FRAME.unpack_from(frame)
        end = _FRAME.size + size
        complete = len(frame) > end and frame[end] == FRAME_END
        if not complete or size < _CONTENT.size:
            return super()._read_frame()  # type: ignore[no-any-return] # pika has no types
        class_id, _, body_octets = _CONTENT.unpack_from(frame, _FRAME.size)
        if class_id != Basic.INDEX:
            return super()._read_frame()  # type: ignore[no-any-return] # pika has no types
        read = read_properties(frame[_FRAME.size + _CONTENT.size : end])
        return end + 1, Header(channel, body_octets, _for_pika(read))


def _for_pika(read: Properties) -> BasicProperties:
    properties = BasicProperties(
        user_id=read.user_id,
        message_id=read.message_id,
        timestamp=read.timestamp,
        headers=read.headers,
    )
    vars(properties)["problem"] = read.problem
    return properties


def problem_of(properties: BasicProperties) -> WireError | None:
    """Return why the sender's `user_id` cannot be read; None if it can."""
    problem = str(getattr(properties, "problem", ""))
    return WireError(problem, code="no_account") if problem else None
