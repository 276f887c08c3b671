"""Query the rows of terms: each row once, or one answer for each term.

Nothing here is quadratic. Terms become ranges; parts of a range that an earlier term has covered
are removed before the query. So each row comes once, with the first term that it belongs to,
however many terms there are.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import TYPE_CHECKING, Final, NamedTuple

from smtpfeeds_common.addresses import IPv6_BYTES, pack_address

from ..store.query_rows import Bounds, RowFilter
from .rows import FeedRow, View
from .summary import Summary
from .terms import EVERYTHING_IPV4, EVERYTHING_IPV6, Range, Term

if TYPE_CHECKING:
    from ..store.query import QueryStore

#: Addresses of an autonomous system in one query.
_ADDRESSES_AT_ONCE: Final = 5_000
_ALL: Final = (EVERYTHING_IPV4, EVERYTHING_IPV6)


@dataclass(frozen=True, slots=True, kw_only=True)
class QueryFilter:
    """Selects rows: by what the server filters, and by what is computed here."""

    stored: RowFilter
    classes: frozenset[str] = frozenset()
    actor: str | None = None
    new: bool = False
    min_sensors: int = 0

    def __contains__(self, row: FeedRow) -> bool:
        """Return whether a row that the server sent is selected."""
        return (
            (not self.classes or row.judgement.cls in self.classes)
            and (self.actor is None or (row.judgement.actor or "").lower() == self.actor.lower())
            and (row.new or not self.new)
            and row.sensors >= self.min_sensors
        )


class Resolved(NamedTuple):
    """What a term means: ranges and autonomous systems."""

    ranges: tuple[Range, ...] = ()
    asns: tuple[int, ...] = ()


class TermQuery:
    """Runs the queries of terms on one connection."""

    def __init__(self, store: "QueryStore", wanted: QueryFilter) -> None:
        self._store, self._wanted = store, wanted
        self._view = View(store.moment)
        self._doubtful: set[int] = set()

    def resolve(self, term: Term) -> Resolved:
        """Resolve a word to an actor's ranges and to systems whose name contains it."""
        if term.range is not None:
            return Resolved((term.range,))
        if term.asn is not None:
            return Resolved(asns=(term.asn,))
        assert term.word is not None
        ranges = tuple(
            Range(pack_address(low), pack_address(high))
            for low, high in self._store.ranges_of_actor(term.word)
        )
        return Resolved(ranges, tuple(self._store.asns_named(term.word)))

    def everything(self) -> Iterator[FeedRow]:
        """Yield all rows, by address and feed."""
        for _, row in self._of_ranges(_ALL):
            yield row

    def rows(self, terms: Sequence[Term]) -> Iterator[tuple[int, FeedRow]]:
        """Yield the rows of all terms, each with the number of the first term that it belongs to.

        Rows are in the order of the terms, then by address and feed.
        """
        covered = _Covered()
        yield from self._rows_of(terms, covered)
        self._doubtful = covered.overlapped

    def _rows_of(self, terms: Sequence[Term], covered: "_Covered") -> Iterator[tuple[int, FeedRow]]:
        waiting: list[tuple[int, Range]] = []
        for place, term in enumerate(terms):
            what = self.resolve(term)
            waiting += [(place, part) for each in what.ranges for part in covered.add(each, place)]
            if what.asns or covered.asns:
                # Its rows may have come before, with a range or a system.
                covered.overlapped.add(place)
            asns = [asn for asn in what.asns if asn not in covered.asns]
            if asns:
                yield from self._without(covered, waiting)
                waiting = []
                yield from ((place, row) for row in self._of_asns(asns, covered))
                covered.asns.update(asns)
        yield from self._without(covered, waiting)

    def _without(
        self, covered: "_Covered", waiting: Sequence[tuple[int, Range]]
    ) -> Iterator[tuple[int, FeedRow]]:
        """Yield the rows of ranges, without those that came with an earlier address or system."""
        for number, row in self._of_ranges([each for _, each in waiting]):
            place = waiting[number][0]
            if covered.points.get(row.packed, place) < place:
                covered.overlapped.add(place)
            elif row.asn not in covered.asns:
                yield place, row

    def _of_asns(self, asns: Sequence[int], covered: "_Covered") -> Iterator[FeedRow]:
        wanted_asns = frozenset(asns)
        for part in _parts(self._store.addresses_of_asns(asns), _ADDRESSES_AT_ONCE):
            for _, row in self._stored([(ip, ip) for ip in part]):
                # The origin may have changed since.
                if row.asn in wanted_asns and row.packed not in covered:
                    yield row

    def _of_ranges(self, ranges: Sequence[Range]) -> Iterator[tuple[int, FeedRow]]:
        """Yield the rows of ranges, each with the number of its range."""
        return self._stored([each.bounds for each in ranges])

    def _stored(self, ranges: Sequence[Bounds]) -> Iterator[tuple[int, FeedRow]]:
        view, wanted = self._view, self._wanted
        for stored in self._store.rows_of(ranges, wanted.stored):
            row = view.row(stored)
            if row in wanted:
                yield stored.place - 1, row

    def answers(self, terms: Sequence[Term]) -> Iterator[tuple[Term, Summary]]:
        """Yield the answer to each term, in order; a repeated term is answered again."""
        start = 0
        while start < len(terms):
            end = start
            while end < len(terms) and terms[end].range is not None:
                end += 1
            if end > start:
                yield from self._answers_of_ranges(terms[start:end])
            if end < len(terms):
                summary, covered = Summary(), _Covered()
                for _, row in self._rows_of([terms[end]], covered):
                    summary.add(row)
                yield terms[end], summary
                end += 1
            start = end

    def _answers_of_ranges(self, terms: Sequence[Term]) -> Iterator[tuple[Term, Summary]]:
        ranges = [term.range for term in terms if term.range is not None]
        number, summary = 0, Summary()
        for place, row in self._of_ranges(ranges):
            while number < place:
                yield terms[number], summary
                number, summary = number + 1, Summary()
            summary.add(row)
        while number < len(terms):
            yield terms[number], summary
            number, summary = number + 1, Summary()

    def not_seen(self, terms: Sequence[Term], seen: set[int]) -> list[Term]:
        """Return the terms of `rows` without any row, also counting rows that came with other
        terms.

        Args:
            terms: the terms given to `rows`, after it has ended.
            seen: the numbers of terms that came with rows.
        """
        missing = [place for place in range(len(terms)) if place not in seen]
        doubtful = [place for place in missing if place in self._doubtful]
        answers = self.answers([terms[place] for place in doubtful])
        came = {place for place, (_, one) in zip(doubtful, answers, strict=True) if one.addresses}
        return [terms[place] for place in missing if place not in came]


@dataclass(slots=True)
class _Covered:
    """What earlier terms have covered: addresses, ranges that do not overlap, systems."""

    #: Single addresses, with the number of their term.
    points: dict[bytes, int] = field(default_factory=dict)
    asns: set[int] = field(default_factory=set)
    _lows: dict[int, list[bytes]] = field(default_factory=lambda: {4: [], 16: []})
    _highs: dict[int, list[bytes]] = field(default_factory=lambda: {4: [], 16: []})
    #: Numbers of terms that overlap with an earlier one.
    overlapped: set[int] = field(default_factory=set)

    def __contains__(self, packed: bytes) -> bool:
        return packed in self.points or self._in_range(packed)

    def add(self, wanted: Range, place: int) -> Iterator[Range]:
        """Add a range; yield its parts that no earlier range or equal address has covered."""
        if wanted.is_single:
            if wanted.low in self:
                self.overlapped.add(place)
            else:
                self.points[wanted.low] = place
                yield wanted
            return
        lows, highs = self._lows[len(wanted.low)], self._highs[len(wanted.low)]
        first = bisect_left(highs, wanted.low)
        last = bisect_right(lows, wanted.high)
        if last > first:
            self.overlapped.add(place)
        at = int.from_bytes(wanted.low)
        end, octets = int.from_bytes(wanted.high), len(wanted.low)
        merged_low, merged_high = wanted.low, wanted.high
        for low, high in zip(lows[first:last], highs[first:last], strict=True):
            if at < int.from_bytes(low):
                yield Range(at.to_bytes(octets), (int.from_bytes(low) - 1).to_bytes(octets))
            at = int.from_bytes(high) + 1
            merged_low, merged_high = min(merged_low, low), max(merged_high, high)
        if at <= end:
            yield Range(at.to_bytes(octets), wanted.high)
        lows[first:last], highs[first:last] = [merged_low], [merged_high]

    def _in_range(self, packed: bytes) -> bool:
        lows = self._lows[len(packed)]
        place = bisect_right(lows, packed) - 1
        return place >= 0 and packed <= self._highs[len(packed)][place]


def ipv6_bounds(terms: Iterable[Term]) -> list[Bounds]:
    """Return the IPv6 ranges among terms, which a crowded prefix can be in."""
    return [
        term.range.bounds
        for term in terms
        if term.range is not None and len(term.range.low) == IPv6_BYTES
    ]


def _parts(each: Iterator[str], most: int) -> Iterator[list[str]]:
    while part := list(islice(each, most)):
        yield part
