"""What the command line asks: terms and times as people write them, rows as the feeds have them.

A term is an address, a prefix or an ASN. Rows come out as the feeds' own
entries, so that every format writes a found row as it writes a published one.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
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

from ..names import short_name
from ..publish.entries import Entry, entries, format_time
from ..publish.snapshot import LeftOut, Window, window_end, window_start
from ..settings import AggregatorSettings
from ..store.publication import PublicationStore
from ..store.reading import HIGHEST, LOWEST, Filter, ReadingStore, StoredRow

_ASN: Final = re.compile(r"(?:AS)?([0-9]{1,10})", re.IGNORECASE)
_DURATION: Final = re.compile(r"([0-9]{1,9})([smhdw])")
_SECONDS: Final = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}
MAX_ASN: Final = 2**32 - 1


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
        SettingsError: it is none of them.
    """
    match = _ASN.fullmatch(text)
    if match is not None:
        asn = int(match[1])
        if not 1 <= asn <= MAX_ASN:
            raise SettingsError(f"{text!r} is no ASN: they go from 1 to {MAX_ASN}")
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


def parse_duration(text: str) -> timedelta | None:
    """Read a duration such as 7d, 12h, 30m; None where the text is none.

    Raises:
        OverflowError: it is longer than Python's times.
    """
    match = _DURATION.fullmatch(text)
    return None if match is None else timedelta(seconds=int(match[1]) * _SECONDS[match[2]])


def parse_time(text: str, now: datetime) -> datetime:
    """Read an ISO 8601 time (UTC where it names no zone) or a duration back from now.

    Raises:
        SettingsError: it is neither.
    """
    try:
        duration = parse_duration(text)
        if duration is not None:
            return now - duration
        time = datetime.fromisoformat(text)
        return time.replace(tzinfo=UTC) if time.tzinfo is None else time.astimezone(UTC)
    except (ValueError, OverflowError) as exc:
        raise SettingsError(
            f"{text!r} is neither a time such as 2026-11-23T11:00Z nor a duration such as 7d, "
            "12h, 30m"
        ) from exc


def find(store: ReadingStore, terms: Sequence[Term], wanted: Filter) -> Iterator[Entry]:
    """The rows of all terms, each row once: term by term, by address and feed."""
    if not terms:
        yield from map(entry_of, store.in_range(LOWEST, HIGHEST, wanted))
    for place, term in enumerate(terms):
        before = terms[:place]
        for row in _rows_of(store, term, wanted):
            if not any(_matches(row, earlier) for earlier in before):
                yield entry_of(row)


def meets_a_crowded_prefix(store: ReadingStore, terms: Sequence[Term], wanted: Filter) -> bool:
    """Whether events that were asked for have no row: counted under a /64 past its bound."""
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


def entry_of(row: StoredRow) -> Entry:
    """A stored row as a feed's entry."""
    packed = pack_address(row.ip)
    return Entry(
        row.asn,
        short_name(row.name or ""),
        format_address(packed),
        4 if len(packed) == IPv4_BYTES else 6,
        _seconds(row.last_seen),
        row.feed,
        _seconds(row.first_seen),
        row.hits,
        row.sensors,
        row.flags,
    )


def empty_said(feed: str, left_out: Mapping[str, int]) -> str:
    """What is said of a feed without rows; whoever tries it at home is left out of it."""
    words = {
        "not_global": "not publicly routable (the setting publish_non_global publishes them)",
        "excluded": "excluded by the operator",
    }
    counts = [f"{count} {words.get(why, why)}" for why, count in left_out.items() if count]
    return f"{feed} is empty" + ("; left out: " + ", ".join(counts) if counts else "")


def _seconds(time: datetime) -> str:
    """Cut to the second, as in the feeds."""
    return format_time(int(time.timestamp() // 1))


@contextmanager
def feed_rows(
    settings: AggregatorSettings,
    store: PublicationStore,
    feed: str,
    *,
    since: datetime | None,
    until: datetime | None,
) -> Iterator[tuple[Iterator[Entry], Mapping[str, int]]]:
    """The rows that a publication would write now, in its order, from the stored origins.

    With them how many addresses it would leave out, by reason.

    Args:
        since: in place of the beginning of the window.
        until: rows last seen at that time or later are left out.
    """
    with TemporaryDirectory(prefix="smtpfeeds-") as folder:
        window = Window(Path(folder))
        try:
            since = since or window_start(window_end(store.now()))
            window.take(
                store, since, None, LeftOut.by_settings(settings, store.exclusions()), until
            )
            names = store.names_of(window.asns)
            yield entries(window.records[feed], feed, names), window.left_out[feed]
        finally:
            window.close()
