"""Read the rows of a feed's main text file back: each must be a row of this feed, and in order.

Blocks of lines are read as columns of octets. If the columns do not show that a block is correct,
its lines are read one by one: they decide, and a message can name the line. This module shares only
numbers with the formats' code, so that it reads like a consumer.
"""

import re
from collections.abc import Sequence
from itertools import repeat
from socket import AF_INET6, inet_ntop, inet_pton
from typing import Any, Final, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from smtpfeeds_common.addresses import IPv4_BYTES, IPv6_BYTES, format_address, pack_address
from smtpfeeds_common.errors import AddressError, PublishError

from ..names import NOT_KNOWN
from .files import FeedFile
from .formats.text import HEADER_LINES

_ASN: Final = re.compile(rb"NA|[1-9][0-9]{0,9}")
_NAME: Final = re.compile(rb"[!-~](?:[ -~]{0,28}[!-~])?")
_BAD_NAME: Final = re.compile(
    rb'["#|]|eval\(|,[^,]*,[^,]*,|[0-9]+\.[0-9]+\.[0-9]+\.[0-9]', re.IGNORECASE
)
_TIME: Final = re.compile(rb"20[0-9]{2}-[01][0-9]-[0-3][0-9] [0-2][0-9]:[0-5][0-9]:[0-5][0-9]")
#: The smallest and the largest octet of each place of a time.
_TIME_LEAST: Final = b"2000-00-00 00:00:00"
_TIME_MOST: Final = b"2099-19-39 29:59:59"
_DIVIDER: Final = b"  |  "
#: The fields of ASN and name, each with its separator.
_ORIGIN_OCTETS: Final = 11 + 5 + 30 + 5
_ADDRESS_WIDTH: Final = 15
_LF, _SPACE, _DOT, _ZERO, _COLON = b"\n .0:"

Octets = npt.NDArray[np.uint8]


class Digest(Protocol):
    """A hash that is being computed."""

    def update(self, data: "bytes | memoryview", /) -> None:
        """Add octets."""
        ...

    def hexdigest(self) -> str:
        """Return the hash of all octets."""
        ...


class _Keys(NamedTuple):
    """Keys of the order of rows: ASN, octets of the address, its upper and lower 64 bits."""

    asn: npt.NDArray[np.int64]
    octets: npt.NDArray[np.int64]
    high: npt.NDArray[np.uint64]
    low: npt.NDArray[np.uint64]


class _Unclear(Exception):
    """The columns of a block do not show that its rows are correct."""


class FamilyRows:
    """The counts of the rows of one family."""

    def __init__(self, digest: Digest) -> None:
        self.digest = digest
        self.rows = 0
        #: Those of its rows; 0 for none.
        self.asns: set[int] = set()


class RowReader:
    """Reads rows of the main file; most have the origin of the row before."""

    def __init__(self, file: FeedFile, families: dict[int, FamilyRows]) -> None:
        """Create the reader.

        Args:
            file: the main file of a feed.
            families: by the octets of an address.
        """
        self._file, self._families = file, families
        self._end = b"  |  %s\n" % file.frame.feed.name.encode()
        self._least = np.frombuffer(_DIVIDER + _TIME_LEAST + self._end, np.uint8)
        self._most = np.frombuffer(_DIVIDER + _TIME_MOST + self._end, np.uint8)
        self._origins: dict[bytes, int] = {}
        self._before = (-1, 0, 0, 0)
        self.rows = 0

    def read(self, block: bytes) -> None:
        """Check some lines.

        Raises:
            PublishError: one is not a row of this file, or not in order.
        """
        octets = np.frombuffer(block, np.uint8)
        ends = np.flatnonzero(octets == _LF) + 1
        try:
            if not len(ends) or ends[-1] != len(block):
                raise _Unclear
            keys = self._keys_of_columns(block, octets, ends)
        except _Unclear:
            lines = block.splitlines(keepends=True)
            keys = self._keys_of_lines(lines)
            ends = np.cumsum([len(line) for line in lines])
        self._check_order(keys)
        self._count(block, ends, keys)

    def _keys_of_columns(self, block: bytes, octets: Octets, ends: Any) -> _Keys:
        starts = np.concatenate(([0], ends[:-1]))
        behind = len(self._least)
        fields = ends - starts - _ORIGIN_OCTETS - behind
        if fields.min() < _ADDRESS_WIDTH:
            raise _Unclear
        tails = _slices(octets, ends - behind, behind)
        if not ((tails >= self._least) & (tails <= self._most)).all():
            raise _Unclear
        asns = self._asns_of_columns(_slices(octets, starts, _ORIGIN_OCTETS))
        texts = _slices(octets, starts + _ORIGIN_OCTETS, _ADDRESS_WIDTH)
        ipv6 = (fields > _ADDRESS_WIDTH) | (texts == _COLON).any(axis=1)
        high = np.zeros(len(ends), np.uint64)
        low = high.copy()
        low[~ipv6] = _ipv4_numbers(texts[~ipv6])
        at, widths = (starts[ipv6] + _ORIGIN_OCTETS).tolist(), fields[ipv6].tolist()
        numbers = _ipv6_numbers([block[a : a + n] for a, n in zip(at, widths, strict=True)])
        high[ipv6], low[ipv6] = numbers[:, 0], numbers[:, 1]
        sizes = np.where(ipv6, np.int64(IPv6_BYTES), np.int64(IPv4_BYTES))
        return _Keys(asns, sizes, high, low)

    def _asns_of_columns(self, fields: Octets) -> npt.NDArray[np.int64]:
        is_first = np.ones(len(fields), bool)
        wholes = fields.view(f"S{_ORIGIN_OCTETS}")[:, 0]
        is_first[1:] = wholes[1:] != wholes[:-1]
        try:
            asns = [self._asn(each.tobytes()) for each in fields[is_first]]
        except ValueError:
            raise _Unclear from None
        of_rows: npt.NDArray[np.int64] = np.array(asns, np.int64)[np.cumsum(is_first) - 1]
        return of_rows

    def _asn(self, octets: bytes) -> int:
        asn = self._origins.get(octets)
        if asn is None:
            asn = self._origins[octets] = _origin(octets)
        return asn

    def _keys_of_lines(self, lines: Sequence[bytes]) -> _Keys:
        keys = []
        for place, line in enumerate(lines):
            try:
                asn, packed = self._key(line)
            except ValueError as exc:
                raise self._bad(place, str(exc)) from exc
            number = int.from_bytes(packed)
            keys.append((asn, len(packed), number >> 64, number & 0xFFFF_FFFF_FFFF_FFFF))
        asns, sizes, highs, lows = zip(*keys, strict=True)
        return _Keys(
            np.array(asns, np.int64),
            np.array(sizes, np.int64),
            np.array(highs, np.uint64),
            np.array(lows, np.uint64),
        )

    def _key(self, line: bytes) -> tuple[int, bytes]:
        """Return the row's ASN and address."""
        asn = self._asn(line[:_ORIGIN_OCTETS])
        address, divider, rest = line[_ORIGIN_OCTETS:].partition(_DIVIDER)
        text = address.rstrip(b" ").decode("ascii", "replace")
        try:
            packed = pack_address(text)
        except AddressError:
            raise ValueError("not an address") from None
        if format_address(packed) != text or len(address) != max(len(text), _ADDRESS_WIDTH):
            raise ValueError("an address in another spelling")
        if not divider or rest[19:] != self._end or not _TIME.fullmatch(rest[:19]):
            raise ValueError("not a row of this feed")
        return asn, packed

    def _check_order(self, keys: _Keys) -> None:
        is_after = np.zeros(len(keys.asn), bool)
        is_equal = np.ones(len(keys.asn), bool)
        for column, before in zip(keys, self._before, strict=True):
            earlier = np.concatenate((np.array([before], column.dtype), column[:-1]))
            is_after |= is_equal & (column > earlier)
            is_equal &= column == earlier
        if not is_after.all():
            raise self._bad(int(np.argmin(is_after)), "rows are not in order")
        asn, octets, high, low = (int(column[-1]) for column in keys)
        self._before = (asn, octets, high, low)

    def _count(self, block: bytes, ends: Any, keys: _Keys) -> None:
        view = memoryview(block)
        changes = np.flatnonzero(np.diff(keys.octets)).tolist()
        first = 0
        for last in [*changes, len(ends) - 1]:
            start = int(ends[first - 1]) if first else 0
            self._families[int(keys.octets[first])].digest.update(view[start : int(ends[last])])
            first = last + 1
        for octets, family in self._families.items():
            asns = keys.asn[keys.octets == octets]
            family.rows += len(asns)
            family.asns.update(np.unique(asns).tolist())
        self.rows += len(ends)

    def _bad(self, place: int, what: str) -> PublishError:
        return bad_line(self._file, HEADER_LINES + self.rows + place + 1, what)


def bad_line(file: FeedFile, number: int, what: str) -> PublishError:
    """Return the error about a line of a file."""
    return PublishError(f"{file.name}, line {number}: {what}; the generation is not published")


def _slices(octets: Octets, starts: Any, width: int) -> Octets:
    """Return this number of octets from each place on, one row for each."""
    slices: Octets = np.lib.stride_tricks.sliding_window_view(octets, width)[starts]
    return slices


def _ipv4_numbers(texts: Octets) -> npt.NDArray[np.uint64]:
    """Parse dotted quads, padded with spaces: four numbers up to 255 without leading zeros."""
    places = np.ascontiguousarray(texts.T)
    digits = places - np.uint8(_ZERO)
    is_digit, is_dot, is_space = digits <= 9, places == _DOT, places == _SPACE
    is_start = np.ones_like(is_dot)
    is_start[1:] = is_dot[:-1]
    four_digits = is_digit[:-3] & is_digit[1:-2] & is_digit[2:-1] & is_digit[3:]
    leading_zero = is_start[:-1] & (digits[:-1] == 0) & is_digit[1:]
    # Each part begins with a digit, and spaces stand only behind the last part.
    is_wrong = (is_start & ~is_digit).any() or (is_space[:-1] & ~is_space[1:]).any()
    is_wrong |= four_digits.any() or leading_zero.any() or is_dot[-1].any()
    is_wrong |= not (is_digit | is_dot | is_space).all()
    if is_wrong or (is_dot.sum(axis=0, dtype=np.uint8) != 3).any():
        raise _Unclear
    number, part, most = (np.zeros(len(texts), np.uint32) for _ in range(3))
    for digit, dot, space, value in zip(is_digit, is_dot, is_space, digits, strict=True):
        number = np.where(dot, number << np.uint32(8) | part, number)
        part = np.where(digit, part * np.uint32(10) + value, np.where(space, part, np.uint32(0)))
        np.maximum(most, part, out=most)
    if (most > 255).any():
        raise _Unclear
    return (number << np.uint32(8) | part).astype(np.uint64)


def _ipv6_numbers(fields: list[bytes]) -> npt.NDArray[np.uint64]:
    """Return the halves of addresses, each in canonical form and padded to the column's width."""
    texts = [field.rstrip(b" ").decode("ascii", "replace") for field in fields]
    try:
        packed = list(map(inet_pton, repeat(AF_INET6), texts))
    except (OSError, ValueError):
        raise _Unclear from None
    widths = [max(len(text), _ADDRESS_WIDTH) for text in texts]
    if list(map(len, fields)) != widths or "." in "".join(texts):
        raise _Unclear
    if list(map(inet_ntop, repeat(AF_INET6), packed)) != texts:
        raise _Unclear
    return np.frombuffer(b"".join(packed), ">u8").astype(np.uint64).reshape(-1, 2)


def _origin(octets: bytes) -> int:
    """Return the ASN of a row's first two fields; 0 for none."""
    fields = octets.split(_DIVIDER)
    if len(fields) != 3 or (len(fields[0]), len(fields[1]), fields[2]) != (11, 30, b""):
        raise ValueError("not an ASN and a name, padded to 11 and 30")
    number, name = fields[0].rstrip(b" "), fields[1].rstrip(b" ")
    if not _ASN.fullmatch(number):
        raise ValueError("not an ASN and a name, padded to 11 and 30")
    if not _NAME.fullmatch(name) or _BAD_NAME.search(name):
        raise ValueError("not a name that every consumer can read")
    return 0 if number == NOT_KNOWN.encode() else int(number)
