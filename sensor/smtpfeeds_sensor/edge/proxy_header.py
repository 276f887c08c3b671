"""Read PROXY protocol headers, versions 1 and 2: the address of the client behind a proxy.

Pure; it follows haproxy's proxy-protocol.txt. A header may arrive in any number of pieces; it is
refused as soon as it is not valid. Only the octets with the addresses are held, at most 107: the
optional fields of version 2, up to 64 KiB, are skipped as they arrive. A bare LF also ends a
version 1 header. ``UNKNOWN`` and ``LOCAL`` (the proxy's own connections) have no client: such a
connection is answered and never recorded.
"""

import socket
from typing import Final, NamedTuple

from smtpfeeds_common.addresses import pack_address
from smtpfeeds_common.errors import AddressError

from ..smtp.erase import Octets, erase

_V1_START: Final = b"PROXY "
_V1_LONGEST: Final = 107
_V2_START: Final = b"\r\n\r\n\0\r\nQUIT\n"
_V2_FIXED: Final = 16
_V2_LOCAL, _V2_PROXY = 0, 1
#: Octets of an address by address family; other families (none, Unix sockets) have no client.
_V2_ADDRESS_BYTES: Final = {0x1: 4, 0x2: 16}
#: The two ports after the two addresses.
_V2_PORT_BYTES: Final = 4


class ProxyHeader(NamedTuple):
    """A complete header."""

    #: The client's packed address, or None if the header has none.
    source: bytes | None
    #: The packed address that the client connected to, or None.
    destination: bytes | None


class NotAProxyHeader(Exception):
    """What arrived is not, and cannot become, a PROXY protocol header."""


class ProxyHeaderReader:
    """Reads the header at the start of one connection."""

    __slots__ = ("_header", "_held", "_left")

    def __init__(self) -> None:
        #: The beginning of a header that is not complete yet.
        self._held = bytearray()
        #: A version 2 header whose addresses are known, and how many octets of it are missing.
        self._header: ProxyHeader | None = None
        self._left = 0

    @property
    def started(self) -> bool:
        """Whether any octet has arrived."""
        return bool(self._held) or self._header is not None

    def feed(self, arrived: Octets) -> tuple[ProxyHeader, bytearray] | None:
        """Read the octets that arrived.

        Returns:
            The header and a copy of the client's octets after it, or None while more is needed.

        Raises:
            NotAProxyHeader: it is not a header.
        """
        octets = bytearray().join((self._held, arrived))
        self._held = bytearray()
        try:
            if self._header is None:
                self._header, self._left = _read(octets)
                if self._header is None:
                    self._held = octets[:]
                    return None
            if len(octets) < self._left:
                self._left -= len(octets)
                return None
            return self._header, octets[self._left :]
        finally:
            erase(octets)


def _read(octets: bytearray) -> tuple[ProxyHeader | None, int]:
    """Return the addresses of a header, or None; and the header's size."""
    return _read_v1(octets) if octets[:1] == b"P" else _read_v2(octets)


def _read_v1(octets: bytearray) -> tuple[ProxyHeader | None, int]:
    if not _V1_START.startswith(octets[: len(_V1_START)]):
        raise NotAProxyHeader
    end = octets.find(b"\n", 0, _V1_LONGEST)
    if end < 0:
        if len(octets) >= _V1_LONGEST:
            raise NotAProxyHeader
        return None, 0
    words = octets[:end].removesuffix(b"\r").split(b" ")
    if words[1] == b"UNKNOWN":
        return ProxyHeader(None, None), end + 1
    if len(words) != 6 or bytes(words[1]) not in {b"TCP4", b"TCP6"}:
        raise NotAProxyHeader
    if not all(_is_port(word) for word in words[4:]):
        raise NotAProxyHeader
    colon = words[1] == b"TCP6"
    return ProxyHeader(_v1_address(words[2], colon), _v1_address(words[3], colon)), end + 1


def _v1_address(word: bytearray, colon: bool) -> bytes:  # noqa: FBT001 - the family, TCP4 or TCP6
    try:
        text = word.decode("ascii")
        packed = pack_address(text)
    except (UnicodeDecodeError, AddressError) as exc:
        raise NotAProxyHeader from exc
    if (":" in text) != colon:
        raise NotAProxyHeader
    return packed


def _is_port(word: bytearray) -> bool:
    return word.isdigit() and len(word) <= 5 and int(word) <= 65_535


def _read_v2(octets: bytearray) -> tuple[ProxyHeader | None, int]:
    if not _V2_START.startswith(octets[: len(_V2_START)]):
        raise NotAProxyHeader
    if len(octets) < _V2_FIXED:
        return None, 0
    version, command = octets[12] >> 4, octets[12] & 0xF
    if version != 2 or command not in {_V2_LOCAL, _V2_PROXY}:
        raise NotAProxyHeader
    length = int.from_bytes(octets[14:16])
    width = _V2_ADDRESS_BYTES.get(octets[13] >> 4)
    if command == _V2_LOCAL or width is None:
        return ProxyHeader(None, None), _V2_FIXED + length
    if length < 2 * width + _V2_PORT_BYTES:
        raise NotAProxyHeader
    to, end = _V2_FIXED + width, _V2_FIXED + 2 * width
    if len(octets) < end:
        return None, 0
    return (
        ProxyHeader(_unmapped(octets[_V2_FIXED:to]), _unmapped(octets[to:end])),
        _V2_FIXED + length,
    )


def _unmapped(packed: bytearray) -> bytes:
    """Return the IPv4 address of an IPv4-mapped address, else the address."""
    if len(packed) == 4:
        return bytes(packed)
    return pack_address(socket.inet_ntop(socket.AF_INET6, packed))
