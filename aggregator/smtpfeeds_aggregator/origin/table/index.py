"""The compiled form of an origin table: a flat file that is mapped, not loaded.

pyasn needs about a second and 250 MB for the tree of a full table, and holds the
interpreter lock meanwhile, so ingest would stop. A child process (`origin.child`)
builds the tree and writes this file instead; the running program maps it: no parsing,
no delay, and all processes of a host share the memory.

The file is a page of header (magic, then JSON: facts and sections) and, on page
boundaries, arrays in the machine's byte order:

    direct4          uint32[2**24]  ASN of each IPv4 /24; 0 none, SPLIT: see the ranges
                                    (empty in small tables, which use only the ranges)
    start4 asn4 length4             ranges of IPv4: first address, ASN, prefix length
    start6 asn6 length6             ranges of IPv6 by their upper 64 bits, SPLIT as above
    first6           uint32[2**16 + 1]  where the ranges of each upper 16 bits begin
    startx asnx lengthx             ranges inside an IPv6 /64 that longer prefixes split
    name_asn name_at name_text      cleaned AS names: sorted ASNs, offsets, text

A range extends to the next one's start; ASN 0 is a gap. A range has the length of
the prefix that it comes from, so the prefix is the address, masked.
"""

import json
import mmap
import os
import sys
import weakref
from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Final, Literal

from smtpfeeds_common.addresses import format_address
from smtpfeeds_common.errors import OriginError

MAGIC: Final = b"smtpfeeds-origin-index 1 " + sys.byteorder.encode() + b"\n"
PAGE: Final = 4096
#: No origin, as in a gap: AS 0 may not announce prefixes (RFC 7607).
NONE: Final = 0
#: Longer prefixes split this block. AS 4294967295 is reserved (RFC 7300), so it is not an origin.
SPLIT: Final = 0xFFFFFFFF
DIRECT_SLOTS: Final = 1 << 24

#: Each section's item type, as `memoryview.cast` names it.
SECTIONS: Final[Mapping[str, Literal["B", "I", "Q"]]] = {
    "direct4": "I",
    "start4": "I",
    "asn4": "I",
    "length4": "B",
    "start6": "Q",
    "asn6": "I",
    "length6": "B",
    "first6": "I",
    "startx": "B",
    "asnx": "I",
    "lengthx": "B",
    "name_asn": "I",
    "name_at": "I",
    "name_text": "B",
}

_MAPPED: Final = b"\0" * 10 + b"\xff\xff"
_SWAP: Final = sys.byteorder == "little"
_Answer = tuple[int, int]


class OriginIndex:
    """Look-ups in a mapped index file; immutable and thread-safe."""

    def __init__(self, file_number: int, *, name: str) -> None:
        """Map an open file; the descriptor may be closed afterwards.

        Raises:
            OriginError: the file is not an index that this program and machine can read.
        """
        try:
            self._map = mmap.mmap(file_number, 0, prot=mmap.PROT_READ)
        except (OSError, ValueError) as exc:
            raise OriginError(f"cannot map the origin index {name}: {exc}") from exc
        #: The mapped file, so that another process can map it; it may have no name any more.
        self.descriptor = os.dup(file_number)
        weakref.finalize(self, os.close, self.descriptor)
        header = _read_header(self._map, name)
        self.facts: dict[str, Any] = header["facts"]
        view = memoryview(self._map)
        parts: dict[str, Any] = {}
        for key, kind in SECTIONS.items():
            offset, length = header["sections"][key]
            parts[key] = view[offset : offset + length].cast(kind)
        #: The arrays of the file, by name.
        self.sections: Mapping[str, memoryview] = parts
        self._direct = parts["direct4"]
        self._start4, self._asn4, self._length4 = (parts[k] for k in ("start4", "asn4", "length4"))
        self._start6, self._asn6, self._length6 = (parts[k] for k in ("start6", "asn6", "length6"))
        self._first6 = parts["first6"]
        self._startx, self._asnx, self._lengthx = (parts[k] for k in ("startx", "asnx", "lengthx"))
        self._name_asn, self._name_at, self._name_text = (
            parts[k] for k in ("name_asn", "name_at", "name_text")
        )
        #: Without a split /24, answers of the direct table are final.
        self._split4 = bool(header["facts"]["split4"])

    def lookup_many(self, addresses: Sequence[bytes]) -> list[int | None]:
        """Return the origin ASN of each packed address (4 or 16 octets), `None` if it has none."""
        kinds = set(map(len, addresses))
        if kinds == {4}:
            return self._many4(addresses)
        if kinds == {16}:
            return self._many6(addresses)
        if not kinds:
            return []
        if kinds != {4, 16}:
            raise ValueError("a packed address has 4 or 16 octets")
        short = iter(self._many4([a for a in addresses if len(a) == 4]))
        long = iter(self._many6([a for a in addresses if len(a) == 16]))
        return [next(short) if len(a) == 4 else next(long) for a in addresses]

    def find(self, packed: bytes) -> tuple[int, str] | None:
        """Return the origin ASN and the announced prefix of one packed address.

        Raises:
            OriginError: the index is damaged.
        """
        if len(packed) == 16 and packed.startswith(_MAPPED):
            packed = packed[12:]
        asn, length = self._find4(packed) if len(packed) == 4 else self._find6(packed)
        if asn == NONE:
            return None
        bits = len(packed) * 8
        if length > bits:
            raise OriginError(f"the origin index is damaged: it has a prefix of {length} bits")
        network = int.from_bytes(packed) >> (bits - length) << (bits - length)
        return asn, f"{format_address(network.to_bytes(len(packed)))}/{length}"

    def name(self, asn: int) -> str | None:
        """Return the full cleaned name of an AS."""
        at = bisect_left(self._name_asn, asn)
        if at == len(self._name_asn) or self._name_asn[at] != asn:
            return None
        return str(self._name_text[self._name_at[at] : self._name_at[at + 1]], "utf-8")

    def starts6(self, count: int) -> list[bytes]:
        """Return up to `count` first addresses of IPv6 ranges with an origin, evenly spread."""
        starts, asns = self._start6, self._asn6
        step = max(1, len(starts) // max(1, count))
        starts_with_origin = [
            starts[i].to_bytes(8) + bytes(8) for i in range(0, len(starts), step) if asns[i]
        ]
        return starts_with_origin[:count]

    def _many4(self, addresses: Iterable[bytes]) -> list[int | None]:
        direct = self._direct
        numbers = _numbers("I", addresses)
        if not direct:
            return [self._range4(number)[0] or None for number in numbers]
        origins = [direct[number >> 8] or None for number in numbers]
        if self._split4:
            for at, asn in enumerate(origins):
                if asn == SPLIT:
                    origins[at] = self._range4(numbers[at])[0] or None
        return origins

    def _many6(self, addresses: Sequence[bytes]) -> list[int | None]:
        start, asns, first = self._start6, self._asn6, self._first6
        origins: list[int | None] = []
        for at, upper in enumerate(_numbers("Q", addresses)[::2]):
            top = upper >> 48
            position = bisect_right(start, upper, first[top], first[top + 1]) - 1
            asn = asns[position]
            if asn == SPLIT or not upper:
                asn = self._one6(addresses[at])
            origins.append(asn or None)
        return origins

    def _one6(self, packed: bytes) -> int:
        if packed.startswith(_MAPPED):
            return self._find4(packed[12:])[0]
        return self._find6(packed)[0]

    def _find4(self, packed: bytes) -> _Answer:
        return self._range4(int.from_bytes(packed))

    def _range4(self, number: int) -> _Answer:
        position = bisect_right(self._start4, number) - 1
        return self._asn4[position], self._length4[position]

    def _find6(self, packed: bytes) -> _Answer:
        position = bisect_right(self._start6, int.from_bytes(packed[:8])) - 1
        if self._asn6[position] != SPLIT:
            return self._asn6[position], self._length6[position]
        starts = self._startx
        position = bisect_right(
            range(len(self._asnx)), packed, key=lambda i: bytes(starts[16 * i : 16 * i + 16])
        )
        return self._asnx[position - 1], self._lengthx[position - 1]


def _numbers(kind: str, addresses: Iterable[bytes]) -> "array[int]":
    """Convert packed addresses to unsigned numbers, in bulk."""
    numbers = array(kind, b"".join(addresses))
    if _SWAP:
        numbers.byteswap()
    return numbers


def _read_header(mapped: mmap.mmap, name: str) -> dict[str, Any]:
    if mapped[: len(MAGIC)] != MAGIC:
        raise OriginError(
            f"{name} is not an origin index of this version and machine: it is compiled again "
            f"from its table"
        )
    try:
        header: dict[str, Any] = json.loads(mapped[len(MAGIC) : PAGE].rstrip(b"\0"))
        whole = header["size"] == len(mapped) and set(SECTIONS) <= set(header["sections"])
    except (ValueError, KeyError, TypeError) as exc:
        raise OriginError(f"the header of the origin index {name} is damaged") from exc
    if not whole:
        raise OriginError(f"the origin index {name} is truncated")
    return header


def write_index(out: Any, sections: Mapping[str, Any], facts: Mapping[str, Any]) -> None:
    """Write an index to an open, empty binary file; zero pages stay holes.

    Args:
        out: a seekable binary file.
        sections: for each of `SECTIONS` a buffer, or an object with `nbytes` and `pieces()`.
        facts: facts about the table, for `OriginIndex.facts`.
    """
    places: dict[str, tuple[int, int]] = {}
    offset = PAGE
    for key in SECTIONS:
        length = _size(sections[key])
        places[key] = (offset, length)
        offset = -(-(offset + length) // PAGE) * PAGE
    header = MAGIC + json.dumps({"size": offset, "sections": places, "facts": facts}).encode()
    if len(header) > PAGE:
        raise OriginError("the facts of an origin index exceed a page")
    out.truncate(offset)
    for key in SECTIONS:
        at = places[key][0]
        for piece in _pieces(sections[key]):
            _write_sparse(out, at, piece)
            at += len(piece)
    # Write the header last, so that a partial index is not mistaken for a complete one.
    out.seek(0)
    out.write(header)
    out.flush()


def _size(section: Any) -> int:
    return int(section.nbytes) if hasattr(section, "pieces") else memoryview(section).nbytes


def _pieces(section: Any) -> Iterator[memoryview]:
    for piece in section.pieces() if hasattr(section, "pieces") else (section,):
        yield memoryview(piece).cast("B")


def _write_sparse(out: Any, offset: int, content: memoryview) -> None:
    step = 64 * PAGE
    zeros = bytes(step)
    for at in range(0, len(content), step):
        piece = content[at : at + step]
        if piece != zeros[: len(piece)]:
            out.seek(offset + at)
            out.write(piece)
