"""The week in numbers: addresses and events by class, AS, actor, prefix, day, hour and sensor.

They are computed once at each publication and stored as one row, so that a query scans nothing.
`window_of` creates the same columns from published rows, so that there is one way of counting.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import msgspec
import numpy as np

from smtpfeeds_common.addresses import (
    IPv4_BYTES,
    IPv6_BYTES,
    format_address,
    pack_address,
    sort_key,
)
from smtpfeeds_common.feeds import FEED_NAMES
from smtpfeeds_common.history import DAY_S, WEEK_DAYS
from smtpfeeds_common.times import row_seconds

from ..classification.classes import Class, Judgement
from ..names import NOT_KNOWN, short_name
from ..store.rows import MAX_COUNT
from .columns import FeedColumns, Rows, Window
from .entries import Entry
from .judgements import Judgements

#: Of a kind without a bound, so many rows are kept: those with the most addresses.
TOP: Final = 200
_IPV4_PREFIX: Final = 24
_IPV6_PREFIX: Final = 48
#: The parts of an overview, in order.
KINDS: Final = ("feed", "class", "asn", "name", "actor", "prefix", "day", "hour", "sensor")

Hours = Sequence[tuple[datetime, str, int]]


class Statistic(msgspec.Struct, frozen=True):
    """One row; null if unknown: hours and sensors have only events."""

    by: str
    key: str
    name: str | None
    smtpgreet: int | None
    smtpdata: int | None
    new: int | None
    greet_events: int | None
    data_events: int | None


class Summary(msgspec.Struct, frozen=True):
    """The statistics of one edition; times are UTC."""

    generated: datetime
    expires: datetime | None
    rows: list[Statistic]

    def by(self, kind: str) -> list[Statistic]:
        """Return the rows of one kind, in order."""
        return [row for row in self.rows if row.by == kind]


def encode(summary: Summary) -> str:
    """Encode the statistics for the database."""
    return msgspec.json.encode(summary).decode()


def decode(text: str) -> Summary:
    """Decode stored statistics.

    Raises:
        ValueError: it is not a summary, or a later version wrote it.
    """
    return msgspec.json.decode(text, type=Summary)


def summarise(
    window: Window,
    judgements: Judgements,
    names: Mapping[int, str],
    *,
    generated: datetime,
    expires: datetime | None,
    hours: Hours = (),
    sensors: Sequence[tuple[str, str, int]] = (),
) -> Summary:
    """Count an edition.

    Args:
        window: what is published.
        judgements: the class of each address.
        names: of autonomous systems.
        generated: when the edition was made.
        expires: when the edition expires.
        hours: events by hour and feed.
        sensors: events by sensor and feed.
    """
    count = _Counting(window, int(generated.timestamp()))
    kinds = judgements.kinds
    classes = [str(cls) for cls in Class]
    of_class = np.array([classes.index(str(kind.cls)) for kind in kinds] or [0])
    actors = sorted({kind.actor for kind in kinds if kind.actor is not None})
    of_actor = np.array([actors.index(k.actor) if k.actor else -1 for k in kinds] or [0])
    asns, of_asn = np.unique(window.asn, return_inverse=True)
    labels = [short_name(names.get(asn, "")) if asn else NOT_KNOWN for asn in asns.tolist()]
    every_name = sorted(set(labels))
    places = {name: place for place, name in enumerate(every_name)}
    of_name = np.array([places[label] for label in labels] or [0])[of_asn]
    rows = [
        *_feeds(window, count),
        *count.rows("class", classes, of_class[judgements.which]),
        *_top(
            count.rows(
                "asn",
                [str(asn) if asn else NOT_KNOWN for asn in asns.tolist()],
                of_asn,
                [None if label == NOT_KNOWN else label for label in labels],
                most=True,
            )
        ),
        *_top(count.rows("name", every_name, of_name, most=True)),
        *_top(count.rows("actor", actors, of_actor[judgements.which])),
        *_top(_prefixes(window, count)),
        *count.days(generated),
        *_events(
            "hour", ((f"{hour.astimezone(UTC):%Y-%m-%dT%H:00Z}", f, n) for hour, f, n in hours)
        ),
        *_events("sensor", sensors),
    ]
    return Summary(generated, expires, rows)


class _Counting:
    """Counts the addresses and events of groups of a window's addresses."""

    def __init__(self, window: Window, now_s: int) -> None:
        self._window = window
        self._feeds = window.feeds
        is_held, is_old = np.zeros(len(window), bool), np.zeros(len(window), bool)
        for feed in self._feeds:
            is_held[feed.address] = True
            is_old[feed.address[feed.first_s <= now_s - DAY_S]] = True
        #: First seen within a day, in each feed that has it.
        self.is_new: Rows = is_held & ~is_old

    def rows(
        self,
        by: str,
        keys: Sequence[str],
        groups: Rows,
        names: Sequence[str | None] | None = None,
        *,
        most: bool = False,
    ) -> list[Statistic]:
        """One row for each key, or only those that `_top` may keep; a group of -1 has no key."""
        size = len(keys)
        if not size:
            return []
        addresses, events = [], []
        for feed in self._feeds:
            of_row = groups[feed.address]
            wanted = of_row >= 0
            addresses.append(np.bincount(of_row[wanted], minlength=size))
            events.append(_sums(of_row[wanted], feed.hits[wanted], size))
        new = np.bincount(groups[self.is_new & (groups >= 0)], minlength=size)
        places = _most(*addresses) if most else np.arange(size)
        columns = (column[places].tolist() for column in (*addresses, new, *events))
        return [
            Statistic(by, keys[at], names[at] if names else None, *counts)
            for at, counts in zip(places.tolist(), zip(*columns, strict=True), strict=True)
        ]

    def days(self, generated: datetime) -> Iterator[Statistic]:
        """Yield the counts of the past seven days by UTC, oldest first."""
        for back in reversed(range(WEEK_DAYS)):
            greet, data = (
                int(np.count_nonzero(feed.days >> np.uint8(back) & 1)) for feed in self._feeds
            )
            day = (generated.astimezone(UTC) - timedelta(days=back)).date()
            yield Statistic("day", day.isoformat(), None, greet, data, None, None, None)


def _sums(groups: Rows, hits: Rows, size: int) -> Rows:
    """Add up the hits of each group; a sum ends at `MAX_COUNT`, as those in the database do.

    The sums are floats, which are exact up to 2**53: one sensor can report hits of which three rows
    overflow 64 bits.
    """
    sums = np.bincount(groups, hits, minlength=size)
    # 2**62 is the float next to MAX_COUNT.
    return np.minimum(np.minimum(sums, 2.0**62).astype(np.int64), MAX_COUNT)


def _feeds(window: Window, count: _Counting) -> Iterator[Statistic]:
    """Yield a row for each feed, from a count over all addresses."""
    for place, (name, feed) in enumerate(zip(FEED_NAMES, window.feeds, strict=True)):
        (events,) = _sums(np.zeros(len(feed), np.uint8), feed.hits, 1).tolist()
        yield Statistic(
            "feed",
            name,
            None,
            len(feed) if place == 0 else None,
            len(feed) if place == 1 else None,
            int(np.count_nonzero(count.is_new[feed.address])),
            events if place == 0 else None,
            events if place == 1 else None,
        )


def _most(greet: Rows, data: Rows) -> Rows:
    """Return the indexes of the `TOP` keys with the most addresses, and of their equals."""
    order = np.lexsort((data, greet))[::-1]
    if len(order) <= TOP:
        return order
    last = order[TOP - 1]
    is_more = (greet > greet[last]) | ((greet == greet[last]) & (data >= data[last]))
    return np.flatnonzero(is_more)


def _top(rows: list[Statistic]) -> list[Statistic]:
    """Return the rows with the most addresses."""
    held = [row for row in rows if row.smtpgreet or row.smtpdata]
    held.sort(key=lambda row: (-(row.smtpgreet or 0), -(row.smtpdata or 0), row.key))
    return held[:TOP]


def _events(by: str, rows: Iterable[tuple[str, str, int]]) -> Iterator[Statistic]:
    """Rows of events alone."""
    held: dict[str, dict[str, int]] = {}
    for key, feed, events in rows:
        held.setdefault(key, {})[feed] = events
    for key, of in list(held.items())[: max(TOP, 24 * (WEEK_DAYS + 1))]:
        yield Statistic(
            by, key, None, None, None, None, of.get("smtpgreet", 0), of.get("smtpdata", 0)
        )


def _prefixes(window: Window, count: "_Counting") -> list[Statistic]:
    """Yield the /24s and /48s with the most addresses; only these are converted to text."""
    four, of_four = np.unique(window.ipv4 >> np.uint32(32 - _IPV4_PREFIX), return_inverse=True)
    six, of_six = np.unique(window.high >> np.uint64(64 - _IPV6_PREFIX), return_inverse=True)
    groups = np.concatenate((of_four, of_six + len(four))).astype(np.intp)
    sizes = np.bincount(groups, minlength=len(four) + len(six))
    best = np.argsort(-sizes, kind="stable")[:TOP]
    texts = [
        _prefix(int(four[at]), IPv4_BYTES, _IPV4_PREFIX)
        if at < len(four)
        else _prefix(int(six[at - len(four)]), IPv6_BYTES, _IPV6_PREFIX)
        for at in best.tolist()
    ]
    places = np.full(len(sizes), -1, np.intp)
    places[best] = np.arange(len(best))
    return count.rows("prefix", texts, places[groups])


def _prefix(number: int, octets: int, length: int) -> str:
    return f"{format_address((number << octets * 8 - length).to_bytes(octets))}/{length}"


def window_of(entries: Iterable[Entry]) -> tuple[Window, Judgements, dict[int, str]]:
    """Return columns of published rows, with their classes and the names of their origins.

    Hits of published rows are lower bounds, unless the publisher publishes exact counts.
    """
    by_feed: dict[str, dict[bytes, Entry]] = {name: {} for name in FEED_NAMES}
    for entry in entries:
        by_feed[entry.category][pack_address(entry.address)] = entry
    greet, data = by_feed.values()
    order = sorted(greet.keys() | data.keys(), key=sort_key)
    places = {packed: place for place, packed in enumerate(order)}
    one = [greet.get(packed) or data[packed] for packed in order]
    four = [int.from_bytes(packed) for packed in order if len(packed) == IPv4_BYTES]
    six = [packed for packed in order if len(packed) != IPv4_BYTES]
    window = Window(
        np.array(four, np.uint32),
        np.array([int.from_bytes(packed[:8]) for packed in six], np.uint64),
        np.array([int.from_bytes(packed[8:]) for packed in six], np.uint64),
        np.array([entry.asn or 0 for entry in one], np.uint32),
        (_columns(greet, places), _columns(data, places)),
    )
    kinds: dict[Judgement, int] = {}
    which = [kinds.setdefault(entry.judgement, len(kinds)) for entry in one]
    names = {entry.asn: entry.name for entry in one if entry.asn and entry.name != NOT_KNOWN}
    return window, Judgements(np.array(which, np.intp), tuple(kinds)), names


def _columns(entries: Mapping[bytes, Entry], places: Mapping[bytes, int]) -> FeedColumns:
    held = sorted(entries.items(), key=lambda item: places[item[0]])
    rows = [entry for _, entry in held]

    def column(kind: str, values: Iterable[Any]) -> Rows:
        return np.fromiter(values, kind, len(rows))

    return FeedColumns(
        column("intp", (places[packed] for packed, _ in held)),
        column("u4", (row_seconds(row.last_seen) for row in rows)),
        column("u4", (row_seconds(row.first_seen) for row in rows)),
        column("i8", (row.hits for row in rows)),
        column("u4", (row.flags for row in rows)),
        column("u1", (row.days for row in rows)),
        column("u4", (row.sensors for row in rows)),
        column("u4", (row.targets for row in rows)),
    )
