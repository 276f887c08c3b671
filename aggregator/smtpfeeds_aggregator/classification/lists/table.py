"""Turns lists into ranges, and looks up a million addresses at once.

Listed prefixes nest and overlap across lists. One pass turns them into disjoint ranges, each with
all entries that contain it, the most specific first; equal sets of entries share a number. A
look-up is one binary search for a column of addresses.
"""

from collections.abc import Iterable, Iterator, Sequence
from datetime import date
from itertools import groupby
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from ...store.listed import ListedEntry, ListedRange
from ..classes import Listing
from ..listings import is_fresh, listings_of
from .model import AddressList, Prefix

Numbers = npt.NDArray[np.unsignedinteger]
Ids = npt.NDArray[np.uint32]
_KEY6: Final = np.dtype("S16")


class Match(NamedTuple):
    """A list entry that contains an address."""

    prefix: Prefix
    list: AddressList

    def is_fresh(self, today: date) -> bool:
        """Whether the entry is young enough to decide."""
        return is_fresh(self.list.day, today, is_single=self.is_single)

    @property
    def is_single(self) -> bool:
        """Whether the entry is one address."""
        return self.prefix.length == self.prefix.bits


class _Ranges(NamedTuple):
    """The first address of each range, sorted, and the number of its set of entries."""

    starts: npt.NDArray[np.generic]
    ids: Ids


class ListTable:
    """Lists prepared for look-ups; immutable."""

    def __init__(self, lists: Sequence[AddressList], generation: str) -> None:
        self.lists = tuple(lists)
        #: The stable name of their content.
        self.generation = generation
        matches = sorted(
            (Match(prefix, each) for each in self.lists for prefix in each.prefixes),
            key=lambda match: (match.prefix, -match.list.day.toordinal(), match.list.name),
        )
        sets = _Sets()
        ipv4, ipv6 = (
            _flatten([(i, m.prefix) for i, m in enumerate(matches) if m.prefix.bits == bits], sets)
            for bits in (32, 128)
        )
        #: The entries of each set, by its number; set 0 is empty.
        self._sets = [tuple(matches[index] for index in each) for each in sets.members]
        self._ipv4 = _Ranges(np.array(ipv4.starts, np.uint32), np.array(ipv4.ids, np.uint32))
        packed = b"".join(start.to_bytes(16) for start in ipv6.starts)
        self._ipv6 = _Ranges(np.frombuffer(packed, _KEY6), np.array(ipv6.ids, np.uint32))
        self._high6 = np.array([start >> 64 for start in ipv6.starts], np.uint64)
        self._of_day: tuple[date, Sequence[tuple[Listing, ...]]] | None = None

    def find(self, packed: bytes) -> tuple[Match, ...]:
        """Return the entries that contain an address: longest prefix first, then newest list."""
        nothing = np.empty(0, np.uint64)
        if len(packed) == 4:
            ids = self.ids(np.frombuffer(packed, ">u4"), nothing, nothing)
        else:
            halves = np.frombuffer(packed, ">u8")
            ids = self.ids(nothing, halves[:1], halves[1:])
        return self._sets[int(ids[0])]

    def listings(self, packed: bytes, today: date) -> tuple[Listing, ...]:
        """Return the result of `find` as listings, one for each actor."""
        return _listings(self.find(packed), today)

    def on(self, today: date) -> "ListsOfDay":
        """Return the look-up for a publication on this day."""
        if self._of_day is None or self._of_day[0] != today:
            self._of_day = today, [_listings(matches, today) for matches in self._sets]
        return ListsOfDay(self, self._of_day[1])

    def ranges(self) -> Iterator[ListedRange]:
        """Yield every listed range with its entries, best first, for the database."""
        keys6 = [int.from_bytes(bytes(key).ljust(16, b"\0")) for key in self._ipv6.starts]
        for octets, starts, ids in (
            (4, self._ipv4.starts.tolist(), self._ipv4.ids.tolist()),
            (16, keys6, self._ipv6.ids.tolist()),
        ):
            ends = [*starts[1:], 1 << octets * 8]
            for start, end, number in zip(starts, ends, ids, strict=True):
                if number:
                    yield ListedRange(
                        int(start).to_bytes(octets),
                        (int(end) - 1).to_bytes(octets),
                        tuple(
                            ListedEntry(
                                match.list.kind,
                                match.list.actor,
                                match.list.day.isoformat(),
                                match.is_single,
                                match.list.name,
                                str(match.prefix),
                            )
                            for match in self._sets[number]
                        ),
                    )

    def ids(self, ipv4: Numbers, high: Numbers, low: Numbers) -> Ids:
        """Return the number of each address's set of entries, IPv4 first; 0: not listed.

        Args:
            ipv4: IPv4 addresses as numbers.
            high: the upper 64 bits of IPv6 addresses.
            low: their lower 64 bits.
        """
        four = _looked_up(self._ipv4, ipv4.astype(np.uint32))
        return np.concatenate([four, self._ids6(high.astype(np.uint64), low.astype(np.uint64))])

    def _ids6(self, high: Numbers, low: Numbers) -> Ids:
        """Search by the upper 64 bits, and by all 128 only where a range begins within a /64."""
        at = np.searchsorted(self._high6, high, side="right") - 1
        ids: Ids = self._ipv6.ids[at]
        inside = np.flatnonzero(self._high6[at] == high)
        octets = np.empty((len(inside), 2), ">u8")
        octets[:, 0], octets[:, 1] = high[inside], low[inside]
        ids[inside] = _looked_up(self._ipv6, np.frombuffer(octets.tobytes(), _KEY6))
        return ids


class ListsOfDay:
    """A table's look-up on one day, for publishing."""

    def __init__(self, table: ListTable, listings: Sequence[tuple[Listing, ...]]) -> None:
        self._table, self._listings = table, listings

    def of_window(
        self, ipv4: Numbers, high: Numbers, low: Numbers, /
    ) -> tuple[Ids, Sequence[tuple[Listing, ...]]]:
        """Return a number for each address, IPv4 first, and the listings by number; 0: none."""
        return self._table.ids(ipv4, high, low), self._listings


def _looked_up(ranges: _Ranges, keys: npt.NDArray[np.generic]) -> Ids:
    ids: Ids = ranges.ids[np.searchsorted(ranges.starts, keys, side="right") - 1]
    return ids


class _Sets:
    """Gives equal sets of entries the same number; an entry is an index."""

    def __init__(self) -> None:
        self.members: list[tuple[int, ...]] = [()]
        self._numbers: dict[tuple[int, ...], int] = {(): 0}

    def number(self, entries: tuple[int, ...]) -> int:
        """Return the number of a set."""
        number = self._numbers.setdefault(entries, len(self.members))
        if number == len(self.members):
            self.members.append(entries)
        return number


class _Flat(NamedTuple):
    starts: list[int]
    ids: list[int]


def _flatten(entries: Sequence[tuple[int, Prefix]], sets: _Sets) -> _Flat:
    """Turn sorted, nested prefixes of one family into disjoint ranges that begin at address 0."""
    flat = _Flat([0], [0])
    open_ends: list[int] = []
    open_sets: list[tuple[int, ...]] = [()]

    def begin(at: int) -> None:
        number = sets.number(open_sets[-1])
        if flat.starts[-1] == at:
            flat.ids[-1] = number
        else:
            flat.starts.append(at)
            flat.ids.append(number)

    def close_until(at: int, bits: int) -> None:
        while open_ends and open_ends[-1] <= at:
            end = open_ends.pop()
            open_sets.pop()
            if end < 1 << bits:
                begin(end)

    for prefix, group in groupby(entries, key=lambda entry: entry[1]):
        close_until(prefix.start, prefix.bits)
        open_sets.append((*(index for index, _ in group), *open_sets[-1]))
        open_ends.append(prefix.start + (1 << (prefix.bits - prefix.length)))
        begin(prefix.start)
    if entries:
        bits = entries[0][1].bits
        close_until(1 << bits, bits)
    return flat


def _listings(matches: Iterable[Match], today: date) -> tuple[Listing, ...]:
    return listings_of(
        (match.list.kind, match.list.actor, match.is_fresh(today)) for match in matches
    )
