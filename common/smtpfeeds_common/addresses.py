"""One form for every address: packed bytes in memory, RFC 5952 text outside.

Addresses arrive as text in many forms (upper case, leading zeros in IPv6,
IPv4-mapped). Programs pack an address once and write it with one formatter.
An IPv4-mapped IPv6 address is the IPv4 address. Text with a zone id, a prefix
length or white space is not a host address.
"""

import socket
from ipaddress import IPv4Network, IPv6Network, ip_network
from typing import Final

from .errors import AddressError

IPv4_BYTES: Final = 4
IPv6_BYTES: Final = 16
_MAPPED: Final = b"\0" * 10 + b"\xff\xff"
#: Longest text form of an address: an IPv6 address that ends in dotted IPv4.
MAX_TEXT: Final = 45

Network = IPv4Network | IPv6Network


def pack_address(text: str) -> bytes:
    """Pack the text of an address into 4 or 16 octets; an IPv4-mapped one into 4.

    Raises:
        AddressError: the text is not exactly one host address.
    """
    try:
        if ":" in text:
            packed = socket.inet_pton(socket.AF_INET6, text)
            return packed[12:] if packed.startswith(_MAPPED) else packed
        return socket.inet_pton(socket.AF_INET, text)
    except (OSError, ValueError) as exc:  # ValueError: an embedded NUL; UnicodeError is one
        raise AddressError(f"{text[: MAX_TEXT * 2]!r} is not an IPv4 or IPv6 address") from exc


def format_address(packed: bytes) -> str:
    """Write 4 or 16 octets as text, IPv6 in the form of RFC 5952.

    glibc prints an IPv4-compatible address (``::192.0.2.1``) in mixed notation.
    RFC 5952 section 5 reserves that for well-known prefixes, so this writes hex.
    """
    if len(packed) == IPv4_BYTES:
        return socket.inet_ntop(socket.AF_INET, packed)
    if packed.startswith(_MAPPED):
        return socket.inet_ntop(socket.AF_INET, packed[12:])
    text = socket.inet_ntop(socket.AF_INET6, packed)
    if "." in text:
        high, low = int.from_bytes(packed[12:14]), int.from_bytes(packed[14:])
        return f"::{high:x}:{low:x}"
    return text


def normalise_address(text: str) -> str:
    """Return the canonical text of an address."""
    return format_address(pack_address(text))


def prefix64(packed: bytes) -> bytes:
    """Return the /64 of a packed IPv6 address, as 16 octets."""
    return packed[:8] + b"\0" * 8


def sort_key(packed: bytes) -> tuple[int, bytes]:
    """Sort IPv4 before IPv6, then by the address as a number."""
    return (len(packed), packed)


def _why_no_network(text: str) -> str:
    try:
        network = ip_network(text, strict=False)
    except ValueError:
        return f"{text!r} is neither an address nor a prefix such as 192.0.2.0/24"
    address = text.partition("/")[0]
    return f"{text!r} is an address inside a prefix: write {network}, or {address} for the address"


def parse_network(text: str) -> Network:
    """Read a prefix such as ``192.0.2.0/24``; a bare address is its own /32 or /128.

    Raises:
        AddressError: the text is not a prefix, or host bits are set.
    """
    try:
        network = ip_network(text)
    except ValueError as exc:
        raise AddressError(_why_no_network(text)) from exc
    mapped = getattr(network.network_address, "ipv4_mapped", None)
    if mapped is not None and network.prefixlen >= 96:
        return IPv4Network((int(mapped), network.prefixlen - 96))
    return network
