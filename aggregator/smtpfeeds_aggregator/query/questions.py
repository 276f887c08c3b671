"""What the command line asks: terms and times as people write them, rows as the feeds have them.

A term is an address, a prefix or an ASN. Rows come out as the feeds' own
entries, so that every format writes a row of an answer as it writes a published one.
"""

import re
from bisect import bisect
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from typing import Final

from smtpfeeds_common.addresses import (
    IPv4_BYTES,
    IPv6_BYTES,
    Network,
    format_address,
    pack_address,
    parse_network,
)
from smtpfeeds_common.errors import AddressError, SettingsError
from smtpfeeds_common.history import (
    DAY_MS,
    DAYS_MAX,
    WEEK_DAYS,
    History,
    fold,
    masked,
    moved,
    recent_flags,
)

from ..meaning.classes import GUESSES_SENSORS, Evidence, Judgement, Listing, judge
from ..names import short_name
from ..publish.entries import Entry
from ..publish.judgements import HITS_FROM
from ..store.reading import HIGHEST, LOWEST, Filter, ReadingStore, StoredRow

_ASN: Final = re.compile(r"(?:AS)?([0-9]{1,10})", re.IGNORECASE)
MAX_ASN: Final = 2**32 - 1
_DAY_S: Final = DAY_MS // 1000


@dataclass(frozen=True, slots=True)
class Range:
    """Packed addresses of one family from one to another, both included."""

    low: bytes
    high: bytes

    def __contains__(self, packed: bytes) -> bool:
        """Whether an address is in it."""
        return len(packed) == len(self.low) and self.low <= packed <= self.high


_EVERY_IPV6: Final = Range(bytes(IPv6_BYTES), b"\xff" * IPv6_BYTES)

Term = Range | int
"""A range of addresses, or an ASN."""


def parse_term(text: str) -> Term:
    """Read an address, a prefix such as 192.0.2.0/24, or an ASN such as AS64496.

    Raises:
        SettingsError: it is not one of them.
    """
    match = _ASN.fullmatch(text)
    if match is not None:
        asn = int(match[1])
        if not 1 <= asn <= MAX_ASN:
            raise SettingsError(f"{text!r} is not an ASN: they go from 1 to {MAX_ASN}")
        return asn
    try:
        if "/" in text:
            return _range(parse_network(text))
        address = pack_address(text)
    except AddressError as exc:
        raise SettingsError(
            f"{text!r} is neither an address, nor a prefix such as 192.0.2.0/24, nor an ASN such "
            f"as AS64496 ({exc.message})"
        ) from exc
    return Range(address, address)


def _range(network: Network) -> Range:
    return Range(network.network_address.packed, network.broadcast_address.packed)


def find(store: ReadingStore, terms: Sequence[Term], wanted: Filter) -> Iterator[Entry]:
    """The rows of all terms, each row once: term by term, by address and feed."""
    view = View(int(store.now().timestamp()), store.sensors_alive())
    if not terms:
        yield from map(view.entry, store.in_range(LOWEST, HIGHEST, wanted))
    for place, term in enumerate(terms):
        before = terms[:place]
        for row in _rows_of(store, term, wanted):
            if not any(_matches(row, earlier) for earlier in before):
                yield view.entry(row)


def meets_a_crowded_prefix(store: ReadingStore, terms: Sequence[Term], wanted: Filter) -> bool:
    """Whether events that were asked for have no row: counted under a prefix past its bound."""
    ranges = [term for term in terms if isinstance(term, Range)] if terms else [_EVERY_IPV6]
    return any(
        store.is_crowded(format_address(term.low), format_address(term.high), wanted)
        for term in ranges
        if len(term.low) == IPv6_BYTES
    )


def _rows_of(store: ReadingStore, term: Term, wanted: Filter) -> Iterator[StoredRow]:
    if isinstance(term, int):
        return store.of_asn(term, wanted)
    return store.in_range(format_address(term.low), format_address(term.high), wanted)


def _matches(row: StoredRow, term: Term) -> bool:
    return row.asn == term if isinstance(term, int) else pack_address(row.ip) in term


@dataclass(frozen=True, slots=True)
class View:
    """Makes entries of stored rows, as of one moment."""

    #: Seconds since 1970-01-01 UTC.
    now_s: int
    sensors_alive: int

    def entry(self, row: StoredRow) -> Entry:
        """A stored row as a feed's entry, with exact counts."""
        packed = pack_address(row.ip)
        today = self.now_s // _DAY_S
        last_s, first_s = int(row.last_seen.timestamp()), int(row.first_seen.timestamp())
        history = _history(row, last_s // _DAY_S, first_s // _DAY_S)
        flags = recent_flags(history, today)
        return Entry(
            asn=row.asn,
            name=short_name(row.name or ""),
            address=format_address(packed),
            family=4 if len(packed) == IPv4_BYTES else 6,
            last_seen=_seconds(row.last_seen),
            category=row.feed,
            first_seen=_seconds(row.first_seen),
            hits=row.hits,
            sensors=row.sensors,
            flags=flags,
            targets=row.targets,
            judgement=self._judge(row, flags, today),
            days=_days(history, today, first_s // _DAY_S),
            new=first_s > self.now_s - _DAY_S,
        )

    def _judge(self, row: StoredRow, flags: int, today: int) -> Judgement:
        other = History(row.other_day, 0, row.other_flags_now, row.other_flags_before)
        both = flags | (recent_flags(other, today) if row.other_day else row.other_flags)
        listings = () if row.actor is None else (Listing("scanner", row.actor, fresh=True),)
        hits = max(row.hits, row.other_hits)
        return _judge_once(
            Evidence(
                flags=both,
                hits=HITS_FROM[bisect(HITS_FROM, hits) - 1],
                sensors=min(row.sensors, GUESSES_SENSORS),
                sensors_alive=self.sensors_alive,
                listings=listings,
            )
        )


@lru_cache(maxsize=20_000)
def _judge_once(evidence: Evidence) -> Judgement:
    """Most addresses did what a few thousand others did."""
    return judge(evidence)


def _days(history: History, today: int, first_day: int) -> int:
    """The marks of the past seven days, none before the first one."""
    oldest = min(max(today - first_day, 0), WEEK_DAYS - 1)
    return moved(history, today).days & (1 << oldest + 1) - 1


def _history(row: StoredRow, last_day: int, first_day: int) -> History:
    """A row's history; one that no program of this version has written has its two ends."""
    if row.day == 0:
        return History(last_day, masked(0, last_day, first_day, DAYS_MAX), row.flags)
    stored = History(row.day, row.days & (1 << DAYS_MAX) - 1, row.flags_now, row.flags_before)
    # A program of 0.1.0 may have moved last_seen and not the days.
    return fold(stored, History(last_day, 1))


def _seconds(time: datetime) -> str:
    """Cut to the second, as in the feeds."""
    return f"{time.astimezone(UTC):%Y-%m-%d %H:%M:%S}"
