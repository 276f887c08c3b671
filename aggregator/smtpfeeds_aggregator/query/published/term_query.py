"""Answer terms from published rows, as `query/term_query.py` does from the database.

All rows are held in memory, sorted by address; a term finds its rows by bisection.
"""

from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

from smtpfeeds_common.addresses import pack_address, sort_key
from smtpfeeds_common.times import row_seconds

from ...names import NOT_KNOWN
from ...publish.entries import Entry
from ...store.query_rows import RowFilter
from ..rows import FeedRow
from ..term_query import QueryFilter, Resolved, TermQuery
from ..terms import Range, Term

if TYPE_CHECKING:
    from ..term_query import _Covered


class PublishedTermQuery(TermQuery):
    """Queries rows of published files."""

    def __init__(self, entries: Iterable[Entry], wanted: QueryFilter) -> None:
        """Take the selected rows.

        Args:
            entries: of one feed or of both.
            wanted: selects them; published files do not name sensors.
        """
        self._wanted = wanted
        self._doubtful = set()
        rows = (_row(entry) for entry in entries)
        self._rows = [row for row in rows if _is_sent(row, wanted.stored) and row in wanted]
        self._rows.sort(key=lambda row: (*sort_key(row.packed), row.feed))
        self._keys = [sort_key(row.packed) for row in self._rows]

    def resolve(self, term: Term) -> Resolved:
        """Resolve a word to the addresses of an actor and to systems whose name contains it."""
        if term.word is None:
            return super().resolve(term)
        word = term.word.lower()
        ranges = dict.fromkeys(
            Range(row.packed, row.packed)
            for row in self._rows
            if (row.judgement.actor or "").lower() == word
        )
        asns = {row.asn for row in self._rows if row.asn and word in (row.name or "").lower()}
        return Resolved(tuple(ranges), tuple(sorted(asns)))

    def _of_ranges(self, ranges: Sequence[Range]) -> Iterator[tuple[int, FeedRow]]:
        for place, each in enumerate(ranges):
            last = sort_key(each.high)
            at = bisect_left(self._keys, sort_key(each.low))
            while at < len(self._keys) and self._keys[at] <= last:
                yield place, self._rows[at]
                at += 1

    def _of_asns(self, asns: Sequence[int], covered: "_Covered") -> Iterator[FeedRow]:
        wanted = frozenset(asns)
        for row in self._rows:
            if row.asn in wanted and row.packed not in covered:
                yield row


def _is_sent(row: FeedRow, wanted: RowFilter) -> bool:
    """Return whether the database's server would send the row."""
    since, until, first = (
        None if time is None else time.timestamp()
        for time in (wanted.since, wanted.until, wanted.first_since)
    )
    return (
        row.feed in wanted.feeds
        and (since is None or row.last_s >= since)
        and (until is None or row.last_s < until)
        and (first is None or row.first_s >= first)
        and row.hits >= wanted.min_hits
        and (wanted.family is None or (wanted.family == 6) == (":" in row.ip))
    )


def _row(entry: Entry) -> FeedRow:
    return FeedRow(
        ip=entry.address,
        packed=pack_address(entry.address),
        feed=entry.category,
        first_s=row_seconds(entry.first_seen),
        last_s=row_seconds(entry.last_seen),
        hits=entry.hits,
        sensors=entry.sensors,
        targets=entry.targets,
        flags=entry.flags,
        days=entry.days,
        new=entry.new,
        asn=entry.asn,
        name=None if entry.name == NOT_KNOWN else entry.name,
        judgement=entry.judgement,
        entries=[],
    )
