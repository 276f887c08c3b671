"""Compiles prefixes with their origins into the flat arrays of an index. Pure.

Announced prefixes nest. One pass with a stack of open prefixes turns them into
disjoint ranges, each with the origin of the most specific prefix. All arrays for
look-ups are derived from those ranges.
"""

from array import array
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Mapping, MutableSequence, Sequence
from heapq import merge
from typing import Any, Final

from .index import DIRECT_SLOTS, NONE, SPLIT
from .prefixes import Prefix

_WHOLE4: Final = 1 << 32
#: The direct table is made in pieces of this many /24s, 4 MB each.
_PIECE_SLOTS: Final = 1 << 20
#: With fewer ranges, a binary search is as fast as the direct table of 64 MB.
DIRECT_FROM: Final = 4096


class Ranges:
    """Sorted, disjoint ranges of one family that begin at address 0."""

    __slots__ = ("asns", "lengths", "starts")

    def __init__(
        self, starts: MutableSequence[int], asns: "array[int]", lengths: bytearray
    ) -> None:
        self.starts = starts
        self.asns = asns
        self.lengths = lengths

    def covering(self, number: int) -> tuple[int, int]:
        """Return ASN and prefix length at an address."""
        position = bisect_right(self.starts, number) - 1
        return self.asns[position], self.lengths[position]


def flatten(prefixes: Iterable[Prefix], bits: int) -> Ranges:
    """Turn nested prefixes, sorted by first address, then length, into ranges."""
    starts, asns, lengths = _starts(bits), array("I", [NONE]), bytearray(1)
    open_ends, open_asns, open_lengths = [1 << bits], [NONE], [0]

    def begin(at: int, asn: int, length: int) -> None:
        if starts[-1] == at:
            asns[-1], lengths[-1] = asn, length
        else:
            starts.append(at)
            asns.append(asn)
            lengths.append(length)

    def close_until(at: int) -> None:
        while open_ends[-1] <= at and len(open_ends) > 1:
            end = open_ends.pop()
            open_asns.pop()
            open_lengths.pop()
            begin(end, open_asns[-1], open_lengths[-1])

    for start, length, asn in prefixes:
        if open_ends[-1] <= start:
            close_until(start)
        begin(start, asn, length)
        open_ends.append(start + (1 << (bits - length)))
        open_asns.append(asn)
        open_lengths.append(length)
    close_until((1 << bits) - 1)
    # A prefix that ends with the address space has no range after it.
    return Ranges(starts, asns, lengths)


def _starts(bits: int) -> MutableSequence[int]:
    """Return the list of first addresses, with address 0, in the smallest type that fits."""
    return array("I", [0]) if bits == 32 else array("Q", [0]) if bits == 64 else [0]


class DirectTable:
    """The answer for each IPv4 /24, made in pieces because all of it has 64 MB."""

    nbytes: Final = 4 * DIRECT_SLOTS

    def __init__(self, ranges: Ranges) -> None:
        self._ranges = ranges

    def pieces(self) -> Iterator["array[int]"]:
        """Yield pieces of equal size, in order; the part after the last one is all zeros."""
        piece, base = array("I", bytes(4 * _PIECE_SLOTS)), 0
        for first, last, value in self._runs():
            at = first
            while at <= last:
                while at >= base + _PIECE_SLOTS:
                    yield piece
                    piece, base = array("I", bytes(4 * _PIECE_SLOTS)), base + _PIECE_SLOTS
                end = min(last + 1, base + _PIECE_SLOTS)
                if end == at + 1:
                    piece[at - base] = value
                else:
                    piece[at - base : end - base] = array("I", [value]) * (end - at)
                at = end
        yield piece

    def _runs(self) -> Iterator[tuple[int, int, int]]:
        """Yield first and last /24 of each run with the same answer, in order, without gaps."""
        starts = self._ranges.starts
        for position, (start, asn) in enumerate(zip(starts, self._ranges.asns, strict=True)):
            end = starts[position + 1] if position + 1 < len(starts) else _WHOLE4
            first, last = start >> 8, (end - 1) >> 8
            if start & 0xFF:
                yield first, first, SPLIT
                first += 1
            ends_inside = bool(end & 0xFF)
            if asn and first <= last - ends_inside:
                yield first, last - ends_inside, asn
            if ends_inside and first <= last:
                yield last, last, SPLIT


def _ipv6_sections(prefixes: Iterable[Prefix]) -> dict[str, Any]:
    """Return ranges by the upper 64 bits, and ranges inside /64s that longer prefixes split.

    Args:
        prefixes: must be iterable several times.
    """
    longer = [prefix for prefix in prefixes if prefix[1] > 64]
    ranges = flatten(_upper(prefixes), 64)
    inside = Ranges([], array("I"), bytearray())
    if longer:
        blocks = sorted({start >> 64 for start, _, _ in longer})
        around = [(block << 64, 64, ranges.covering(block)[0]) for block in blocks]
        inside = flatten(sorted(around + longer), 128)
        _restore_lengths(inside, ranges)
        marks = {block: (block, 64, SPLIT) for block in blocks}
        kept = (p for p in _upper(prefixes) if not (p[1] == 64 and p[0] in marks))
        ranges = flatten(merge(kept, marks.values()), 64)
    return {
        "start6": ranges.starts,
        "asn6": ranges.asns,
        "length6": ranges.lengths,
        "first6": _first_by_top(ranges.starts),
        "startx": b"".join(start.to_bytes(16) for start in inside.starts),
        "asnx": inside.asns,
        "lengthx": inside.lengths,
    }


def _upper(prefixes: Iterable[Prefix]) -> Iterator[Prefix]:
    """Yield the prefixes of at most 64 bits, by their upper 64 bits."""
    return ((start >> 64, length, asn) for start, length, asn in prefixes if length <= 64)


def _restore_lengths(inside: Ranges, outer: Ranges) -> None:
    """Set the length of ranges beside the longer prefixes to that of the enclosing prefix."""
    for position, start in enumerate(inside.starts):
        if inside.lengths[position] == 64:
            inside.lengths[position] = outer.covering(start >> 64)[1]


def _first_by_top(starts: Sequence[int]) -> "array[int]":
    """Return, for each upper 16 bits, the index of the first range that starts in them."""
    first, position = array("I"), 0
    for top in range(1 << 16):
        while position < len(starts) and starts[position] < top << 48:
            position += 1
        first.append(position)
    first.append(len(starts))
    return first


def compile_sections(
    ipv4: Iterable[Prefix],
    ipv6: Iterable[Prefix],
    names: Mapping[int, str],
    *,
    direct_from: int = DIRECT_FROM,
) -> tuple[dict[str, Any], bool]:
    """Return all sections of an index, and whether any IPv4 /24 is split.

    Args:
        ipv4: distinct prefixes, sorted by first address, then length.
        ipv6: the same, as 128-bit numbers; must be iterable several times.
        names: cleaned AS names.
        direct_from: with fewer IPv4 ranges, no direct table is made.
    """
    ranges = flatten(ipv4, 32)
    direct: Any = array("I")
    if len(ranges.starts) >= direct_from:
        direct = DirectTable(ranges)
    split = any(start & 0xFF for start in ranges.starts)
    texts = [(asn, names[asn].encode()) for asn in sorted(names)]
    offsets, end = array("I", [0]), 0
    for _, text in texts:
        end += len(text)
        offsets.append(end)
    sections = {
        "direct4": direct,
        "start4": ranges.starts,
        "asn4": ranges.asns,
        "length4": ranges.lengths,
        **_ipv6_sections(ipv6),
        "name_asn": array("I", [asn for asn, _ in texts]),
        "name_at": offsets,
        "name_text": b"".join(text for _, text in texts),
    }
    return sections, split
