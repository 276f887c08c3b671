"""From prefixes with their origins to the flat arrays of an index.

Pure: prefixes in, arrays out. Announced prefixes nest; one pass with a stack of
the open ones turns them into ranges that do not, each with the most specific
prefix's origin. Everything that answers a look-up follows from those ranges.
"""

from array import array
from bisect import bisect_right
from collections.abc import Iterable, Mapping
from typing import Any, Final

from .index import DIRECT_SLOTS, NONE, SPLIT

#: First address as a number, prefix length, origin ASN.
Prefix = tuple[int, int, int]
_WHOLE4: Final = 1 << 32
#: With fewer ranges a search is as fast as the 64 MB of the direct table.
DIRECT_FROM: Final = 4096


class Ranges:
    """Ranges of one family that do not overlap, in order, from address 0 on."""

    __slots__ = ("asns", "lengths", "starts")

    def __init__(self, starts: list[int], asns: "array[int]", lengths: bytearray) -> None:
        self.starts = starts
        self.asns = asns
        self.lengths = lengths

    def covering(self, number: int) -> tuple[int, int]:
        """ASN and prefix length at an address."""
        position = bisect_right(self.starts, number) - 1
        return self.asns[position], self.lengths[position]


def flatten(prefixes: Iterable[Prefix], bits: int) -> Ranges:
    """Turn nested prefixes, sorted by first address, then length, into ranges."""
    starts, asns, lengths = [0], array("I", [NONE]), bytearray(1)
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
    # What ends with the address space leaves no range behind it.
    return Ranges(starts, asns, lengths)


def direct_table(ranges: Ranges) -> tuple["array[int]", bool]:
    """The answer for each IPv4 /24, and whether longer prefixes split any of them."""
    table = array("I", bytes(4 * DIRECT_SLOTS))
    starts, split = ranges.starts, False
    for position, (start, asn) in enumerate(zip(starts, ranges.asns, strict=True)):
        end = starts[position + 1] if position + 1 < len(starts) else _WHOLE4
        first, last = start >> 8, (end - 1) >> 8
        if start & 0xFF or end & 0xFF:
            split = True
            if start & 0xFF:
                table[first] = SPLIT
                first += 1
            if end & 0xFF:
                table[last] = SPLIT
                last -= 1
        if asn and first <= last:
            if first == last:
                table[first] = asn
            else:
                table[first : last + 1] = array("I", [asn]) * (last + 1 - first)
    return table, split


def _ipv6_sections(prefixes: list[Prefix]) -> dict[str, Any]:
    """Ranges by the upper 64 bits, and ranges inside the /64s that longer prefixes split."""
    upper = [(start >> 64, length, asn) for start, length, asn in prefixes if length <= 64]
    longer = [prefix for prefix in prefixes if prefix[1] > 64]
    ranges = flatten(upper, 64)
    inside = Ranges([], array("I"), bytearray())
    if longer:
        blocks = sorted({start >> 64 for start, _, _ in longer})
        inside = flatten(
            sorted([(block << 64, 64, ranges.covering(block)[0]) for block in blocks] + longer),
            128,
        )
        _restore_lengths(inside, ranges)
        marked = set(blocks)
        kept = [p for p in upper if not (p[1] == 64 and p[0] in marked)]
        ranges = flatten(sorted(kept + [(block, 64, SPLIT) for block in blocks]), 64)
    return {
        "start6": array("Q", ranges.starts),
        "asn6": ranges.asns,
        "length6": ranges.lengths,
        "first6": _first_by_top(ranges.starts),
        "startx": b"".join(start.to_bytes(16) for start in inside.starts),
        "asnx": inside.asns,
        "lengthx": inside.lengths,
    }


def _restore_lengths(inside: Ranges, outer: Ranges) -> None:
    """Give what lies beside the longer prefixes the length of the prefix around the /64."""
    for position, start in enumerate(inside.starts):
        if inside.lengths[position] == 64:
            inside.lengths[position] = outer.covering(start >> 64)[1]


def _first_by_top(starts: list[int]) -> "array[int]":
    """For each upper 16 bits where to search: after the range that reaches into them."""
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
    """All sections of an index, and whether an IPv4 /24 is split.

    Args:
        ipv4: sorted by first address, then length; each prefix once.
        ipv6: the same, as 128-bit numbers.
        names: cleaned AS names.
        direct_from: with fewer IPv4 ranges than this, no direct table is made.
    """
    ranges = flatten(ipv4, 32)
    direct, split = array("I"), False
    if len(ranges.starts) >= direct_from:
        direct, split = direct_table(ranges)
    texts = [(asn, names[asn].encode()) for asn in sorted(names)]
    offsets, end = array("I", [0]), 0
    for _, text in texts:
        end += len(text)
        offsets.append(end)
    sections = {
        "direct4": direct,
        "start4": array("I", ranges.starts),
        "asn4": ranges.asns,
        "length4": ranges.lengths,
        **_ipv6_sections(list(ipv6)),
        "name_asn": array("I", [asn for asn, _ in texts]),
        "name_at": offsets,
        "name_text": b"".join(text for _, text in texts),
    }
    return sections, split
