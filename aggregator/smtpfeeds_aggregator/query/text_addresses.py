"""Find the addresses of a set in lines of text, such as a mail log, fast.

There are two stages. The first works on columns of octets (``plain_quads``): wherever three dots
are placed as in a dotted quad, it computes the number and looks it up in the set, for a whole block
of lines at once, and accepts quads that are delimited. The second applies the exact rule, with one
regular expression and the C library, to the other quads that the first found in the set, to all
that looks like IPv6, and to defanged forms. So the exact rule runs at few places, and the cost of a
line hardly depends on it.

The rule (docs/reference/addresses-in-text.md has it as a table):

* An address is not part of a longer word: ``1.2.3.4.5``, ``1.2.3.4.example.org``
  and ``v1.2.3.4`` are not. Brackets, quotes, ``=``, a port, a mask, a full stop
  and a colon behind it may stand around it.
* IPv6 in any spelling, also with ``IPv6:`` before it or ``%zone`` behind it. An
  IPv4-mapped address is the IPv4 address. A time of day is not an address.
* ``[.]``, ``(.)`` and ``[:]`` stand for a dot and a colon.
* JSON's ``\\n``, ``\\r`` and ``\\t`` are white space.
"""

import re
import socket
from collections.abc import Iterator
from typing import Final, NamedTuple

import numpy as np

from smtpfeeds_common.addresses import IPv4_BYTES, pack_address
from smtpfeeds_common.errors import AddressError

from .address_set import AddressSet
from .plain_quads import PADDING, Numbers, Octets, Places, PlainQuads

#: So many octets around a place contain any address and its neighbours.
_AROUND: Final = 96
#: An IPv6 address without ``::`` has seven colons, or six before a dotted quad.
_COLONS: Final = 6
_COLONS_SPAN: Final = (_COLONS - 1) * 5

_IN_ADDRESS: Final = b"0123456789abcdefABCDEF:.[]()"

_DOT: Final = rb"(?:\.|\[\.\]|\(\.\))"
_COLON: Final = rb"(?::|\[:\])"
_OCTET: Final = rb"(?:25[0-5]|2[0-4][0-9]|1[0-9][0-9]|[1-9]?[0-9])"
#: A JSON escape is not part of a word: before an address it is white space.
_ESCAPE: Final = rb"(?<=\\[nrt])"
_IPV4: Final = (
    rb"(?:" + _ESCAPE + rb"|(?<![0-9A-Za-z_%])(?<![0-9A-Za-z_]\.)"
    rb"(?<![0-9A-Za-z_][\[(]\.[\])]))"
    rb"(?P<ipv4>" + _OCTET + rb"(?:" + _DOT + _OCTET + rb"){3})"
    rb"(?![0-9A-Za-z_])(?!" + _DOT + rb"[0-9A-Za-z_])(?!-[A-Za-z])"
)
_IPV6: Final = (
    rb"(?:" + _ESCAPE + rb"|(?<![0-9A-Za-z_:.%]))(?:[Ii][Pp][Vv]6:)?"
    rb"(?=[0-9A-Fa-f]{0,4}" + _COLON + rb"[0-9A-Fa-f]{0,4}" + _COLON + rb")"
    rb"(?P<ipv6>(?:[0-9A-Fa-f.]|" + _COLON + rb")++)"
    rb"(?:%[0-9A-Za-z_]+)?(?![0-9A-Za-z_])"
)
_ADDRESS: Final = re.compile(_IPV6 + rb"|" + _IPV4)
_ONLY_IPV4: Final = re.compile(_IPV4)


class Match(NamedTuple):
    """An address of the set in a text: its place, and the packed address."""

    start: int
    end: int
    packed: bytes


class Matches(NamedTuple):
    """The addresses of the set in a text: plain ones as columns, and all others."""

    starts: Places
    ends: Places
    #: The addresses as numbers.
    quads: Numbers
    others: list[Match]


def addresses_in(text: bytes, start: int = 0, end: int | None = None) -> Iterator[Match]:
    """Yield all addresses in a text, by the exact rule alone, without a set.

    Args:
        text: the text to search.
        start: where to begin; the octet before it still counts as a neighbour.
        end: where to stop.
    """
    position, end = start, len(text) if end is None else end
    while (match := _ADDRESS.search(text, position, end)) is not None:
        position = match.end()
        if match["ipv6"] is None:
            yield Match(*match.span("ipv4"), _pack_ipv4(match["ipv4"]))
        elif (packed := _pack_ipv6(match["ipv6"])) is not None:
            yield Match(*match.span("ipv6"), packed)
        else:
            # A time or a word with colons; it may contain a dotted quad.
            inner = _ONLY_IPV4.search(text, match.start(), end)
            if inner is not None and inner.start() < position:
                position = inner.end()
                yield Match(*inner.span("ipv4"), _pack_ipv4(inner["ipv4"]))


def _pack_ipv4(text: bytes) -> bytes:
    plain = text.translate(None, b"[]()") if b"[" in text or b"(" in text else text
    return socket.inet_pton(socket.AF_INET, plain.decode("ascii"))


def _pack_ipv6(text: bytes) -> bytes | None:
    """Pack the address, without a colon or full stop that ends the phrase."""
    plain = text.translate(None, b"[]").decode("ascii")
    for candidate in (plain, plain[:-1] if plain[-1:] in {":", "."} else ""):
        try:
            if candidate:
                return pack_address(candidate)
        except AddressError:
            continue
    return None


class TextMatcher:
    """Finds the addresses of a set in text."""

    def __init__(self, addresses: AddressSet, *, ipv6_prefix_bits: int = 128) -> None:
        """Take the set.

        Args:
            addresses: the addresses to find; the first one of an IPv6 prefix represents it.
            ipv6_prefix_bits: how many bits of an IPv6 address must match, because clients change
                the rest; a multiple of 8.
        """
        self._ipv6_octets = ipv6_prefix_bits // 8
        #: The address, by the octets of an IPv6 address that must match.
        self._ipv6: dict[bytes, bytes] = {}
        for packed in addresses.ipv6:
            self._ipv6.setdefault(packed[: self._ipv6_octets], packed)
        self._quads = PlainQuads(addresses.quads)
        self._is_any = bool(addresses)

    def __bool__(self) -> bool:
        """Return whether the set has an address."""
        return self._is_any

    def lookup(self, packed: bytes) -> bytes | None:
        """Return the address of the set that matches this one, if any."""
        if len(packed) == IPv4_BYTES:
            return packed if packed in self._quads else None
        return self._ipv6.get(packed[: self._ipv6_octets])

    def search(self, text: bytes) -> list[Match]:
        """Yield every address of the set in a block of whole lines, by its place."""
        matches = self.find(text)
        plain = (
            Match(start, end, quad.to_bytes(IPv4_BYTES))
            for start, end, quad in zip(
                matches.starts.tolist(), matches.ends.tolist(), matches.quads.tolist(), strict=True
            )
        )
        return sorted([*plain, *matches.others])

    def find(self, text: bytes) -> Matches:
        """Return the same, with plain dotted quads as columns."""
        padded = np.frombuffer(b"".join((PADDING, text, PADDING)), dtype=np.uint8)
        octets = padded[len(PADDING) : -len(PADDING)]
        dots = np.flatnonzero(octets == ord("."))
        colons = np.flatnonzero(octets == ord(":"))
        quads = self._quads.find(padded, dots)
        places = (
            quads.doubtful,
            _bracketed(octets, dots),
            _bracketed(octets, colons),
            _ipv6_in(colons),
        )
        others: list[Match] = []
        judged_to = 0
        for place in sorted(set(np.concatenate(places).tolist())):
            if place < judged_to:
                continue
            match = _address_at(text, place)
            if match is not None:
                judged_to = match.end
                if self.lookup(match.packed) is not None:
                    others.append(match)
        return Matches(quads.starts, quads.ends, quads.numbers, others)


def _address_at(text: bytes, place: int) -> Match | None:
    """Return the address that covers a place."""
    before = text[max(0, place - _AROUND) : place]
    # "IPv" may precede an address, and has characters that no address has.
    start = place - (len(before) - len(before.rstrip(_IN_ADDRESS))) - len(b"IPv")
    for match in addresses_in(text, max(0, start), place + _AROUND):
        if match.end > place:
            return match if match.start <= place else None
    return None


def _bracketed(octets: Octets, separators: Places) -> Places:
    """Find dots or colons after a bracket: a defanged form, or IPv6 that begins with ``::``."""
    before = octets[separators - 1] if len(separators) else octets[:0]
    bracketed: Places = separators[(before == ord("[")) | (before == ord("("))]
    return bracketed


def _ipv6_in(colons: Places) -> Places:
    """Find colons that may be in an IPv6 address: two adjacent ones, or six close together."""
    if len(colons) < 2:
        return colons[:0]
    double: Places = colons[:-1][(colons[1:] - colons[:-1]) == 1]
    if len(colons) < _COLONS:
        return double
    span = colons[_COLONS - 1 :] - colons[: 1 - _COLONS]
    return np.concatenate((double, colons[: 1 - _COLONS][span <= _COLONS_SPAN]))
