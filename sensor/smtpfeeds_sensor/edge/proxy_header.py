"""PROXY protocol headers, version 1 and 2: who the client behind a proxy is.

Pure: octets in, a verdict out. Follows haproxy's proxy-protocol.txt. A header
may arrive in any number of pieces; it is judged as soon as it cannot become
one. ``UNKNOWN`` and ``LOCAL`` (the proxy speaking for itself) carry no client:
such a connection is answered and never recorded.
"""

import socket
from typing import Final, NamedTuple

from smtpfeeds_common.addresses import pack_address
from smtpfeeds_common.errors import AddressError

_V1_START: Final = b"PROXY "
_V1_LONGEST: Final = 107
_V2_START: Final = b"\r\n\r\n\0\r\nQUIT\n"
_V2_FIXED: Final = 16
#: Addresses take 36 octets at most; the rest are optional fields, skipped.
_V2_LONGEST: Final = 1024
_V2_ADDRESS_BYTES: Final = {0x1: 4, 0x2: 16}


class ProxyHeader(NamedTuple):
    """A whole header."""

    #: Octets of the header; what follows is the client's.
    size: int
    #: The client's packed address, or None where the header names none.
    source: bytes | None
    #: The packed address the client connected to, or None.
    destination: bytes | None


class NotAProxyHeader(Exception):
    """What arrived is not, and cannot become, a PROXY protocol header."""


def read_proxy_header(octets: bytes) -> ProxyHeader | None:
    """Read a header from the start of a connection.

    Returns:
        The header, or None while more octets are needed (1,040 at most).

    Raises:
        NotAProxyHeader: it is none.
    """
    if octets[:1] == b"P":
        return _read_v1(octets)
    return _read_v2(octets)


def _read_v1(octets: bytes) -> ProxyHeader | None:
    if not _V1_START.startswith(octets[: len(_V1_START)]):
        raise NotAProxyHeader
    end = octets.find(b"\r\n", 0, _V1_LONGEST)
    if end < 0:
        if len(octets) >= _V1_LONGEST:
            raise NotAProxyHeader
        return None
    words = octets[:end].split(b" ")
    if words[1] == b"UNKNOWN":
        return ProxyHeader(end + 2, None, None)
    if len(words) != 6 or words[1] not in {b"TCP4", b"TCP6"}:
        raise NotAProxyHeader
    if not all(_is_port(word) for word in words[4:]):
        raise NotAProxyHeader
    colon = words[1] == b"TCP6"
    return ProxyHeader(end + 2, _v1_address(words[2], colon), _v1_address(words[3], colon))


def _v1_address(word: bytes, colon: bool) -> bytes:  # noqa: FBT001 - the family, said by TCP4/TCP6
    try:
        text = word.decode("ascii")
        packed = pack_address(text)
    except (UnicodeDecodeError, AddressError) as exc:
        raise NotAProxyHeader from exc
    if (":" in text) != colon:
        raise NotAProxyHeader
    return packed


def _is_port(word: bytes) -> bool:
    return word.isdigit() and len(word) <= 5 and int(word) <= 65_535


def _read_v2(octets: bytes) -> ProxyHeader | None:
    if not _V2_START.startswith(octets[: len(_V2_START)]):
        raise NotAProxyHeader
    if len(octets) < _V2_FIXED:
        return None
    version, command = octets[12] >> 4, octets[12] & 0xF
    length = int.from_bytes(octets[14:16])
    if version != 2 or command > 1 or length > _V2_LONGEST:
        raise NotAProxyHeader
    size = _V2_FIXED + length
    if len(octets) < size:
        return None
    width = _V2_ADDRESS_BYTES.get(octets[13] >> 4)
    if command == 0 or width is None:
        return ProxyHeader(size, None, None)
    if length < 2 * width + 4:
        raise NotAProxyHeader
    source = octets[_V2_FIXED : _V2_FIXED + width]
    destination = octets[_V2_FIXED + width : _V2_FIXED + 2 * width]
    return ProxyHeader(size, _unmapped(source), _unmapped(destination))


def _unmapped(packed: bytes) -> bytes:
    """An IPv4-mapped address is the IPv4 address."""
    if len(packed) == 4:
        return packed
    return pack_address(socket.inet_ntop(socket.AF_INET6, packed))
