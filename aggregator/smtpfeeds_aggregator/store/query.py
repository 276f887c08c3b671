"""The queries of `smtpfeeds query`: rows of many ranges in one statement.

An answer is read in pages, each with its own statement, so that an open pager does not
keep a snapshot open, which would stop HOT updates for everyone. This module imports
only psycopg and the SQL, so that a query of one address starts fast.
"""

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from typing import Any, Final, NamedTuple

from .connection import Connection
from .errors import database_errors
from .query_rows import ALIVE_S, Bounds, Moment, RowFilter, StoredRow
from .sql import queries

#: Rows in one page of a long range.
PAGE_ROWS: Final = 5_000
#: Ranges in one statement, and rows that it reads of each; the rest of a range follows in pages.
RANGES_AT_ONCE: Final = 10_000
ROWS_OF_RANGE: Final = 2
WIDE_RANGES_AT_ONCE: Final = 200
ROWS_OF_WIDE_RANGE: Final = 100
#: Addresses of an AS in memory at once, about 10 MB. Each such page reads the whole AS.
KEYS_MAX: Final = 100_000
#: Most ASNs that a text in their names may select.
NAMES_MAX: Final = 2_000


class SensorSighting(NamedTuple):
    """What one sensor saw of an address in one feed."""

    sensor: str
    feed: str
    hits: int
    first_seen: datetime
    last_seen: datetime
    #: How many of the sensor's addresses it contacted lately, and how many the sensor has; 0 if
    #: not known.
    targets: int
    addresses: int


class Crowded(NamedTuple):
    """A prefix past its bound that meets one of the ranges."""

    place: int
    prefix: str
    events: int
    last_seen: datetime


class Exclusion(NamedTuple):
    """An exclusion that contains an address."""

    prefix: str
    reason: str
    until: datetime | None


class About(NamedTuple):
    """What is known of an address besides its rows."""

    #: What each sensor saw of it.
    sensors: list[SensorSighting]
    #: Those in force that contain it, longest prefix first.
    exclusions: list[Exclusion]
    #: The origin table of the last publication, and its time.
    origin: tuple[str, datetime | None] | None


class QueryStore:
    """Runs the queries on one connection in autocommit mode."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._sql = {name: sql.encode() for name, sql in queries("query.sql").items()}
        self.moment = Moment(*self._rows("moment", alive_s=ALIVE_S)[0])

    def rows_of(self, ranges: Sequence[Bounds], wanted: RowFilter) -> Iterator[StoredRow]:
        """Yield the rows of each range, in the order of the ranges, by address and feed.

        ``place`` is the number of the range.
        """
        start = 0
        while start < len(ranges):
            single = ranges[start][0] == ranges[start][1]
            most = RANGES_AT_ONCE if single else WIDE_RANGES_AT_ONCE
            limit = ROWS_OF_RANGE if single else ROWS_OF_WIDE_RANGE
            end = start + 1
            while (
                end < len(ranges)
                and end - start < most
                and (ranges[end][0] == ranges[end][1]) == single
            ):
                end += 1
            part = ranges[start:end]
            if len(part) == 1 and not single:
                yield from self._pages(part[0], start + 1, wanted)
            else:
                yield from self._of_part(part, start, wanted, limit)
            start = end

    def _of_part(
        self, part: Sequence[Bounds], start: int, wanted: RowFilter, limit: int
    ) -> Iterator[StoredRow]:
        rows = self._page(part, wanted, limit)
        count, place = 0, 0
        last: StoredRow | None = None
        for row in rows:
            if row.place != place:
                if last is not None and count >= limit > ROWS_OF_RANGE:
                    yield from self._rest(part[place - 1], start + place, wanted, last)
                count, place = 0, row.place
            count += 1
            last = row
            yield row._replace(place=start + row.place)
        if last is not None and count >= limit > ROWS_OF_RANGE:
            yield from self._rest(part[place - 1], start + place, wanted, last)

    def _rest(
        self, bounds: Bounds, place: int, wanted: RowFilter, last: StoredRow
    ) -> Iterator[StoredRow]:
        return self._pages((last.ip, bounds[1]), place, wanted, last.feed)

    def _pages(
        self, bounds: Bounds, place: int, wanted: RowFilter, after_feed: str = ""
    ) -> Iterator[StoredRow]:
        while True:
            page = self._page([bounds], wanted, PAGE_ROWS, after_feed)
            for row in page:
                yield row._replace(place=place)
            if len(page) < PAGE_ROWS:
                return
            bounds, after_feed = (page[-1].ip, bounds[1]), page[-1].feed

    def _page(
        self, ranges: Sequence[Bounds], wanted: RowFilter, rows: int, after_feed: str = ""
    ) -> list[StoredRow]:
        moment = self.moment
        answer = self._rows(
            "rows_of_ranges",
            **_arrays(ranges),
            after_feed=after_feed,
            feeds=list(wanted.feeds),
            since=wanted.since,
            until=wanted.until,
            first_since=wanted.first_since,
            min_hits=wanted.min_hits,
            family=wanted.family,
            sensor=wanted.sensor,
            rows=rows,
            week=moment.week,
            window=datetime.fromtimestamp(moment.window_s, UTC),
        )
        return list(map(StoredRow._make, answer))

    def addresses_of_asns(self, asns: Sequence[int]) -> Iterator[str]:
        """Yield the addresses whose stored origin is one of these ASNs, sorted."""
        after = "0.0.0.0/0"
        while True:
            keys = self._rows("keys_of_asns", asns=list(asns), after_ip=after, rows=KEYS_MAX)
            yield from (ip for (ip,) in keys)
            if len(keys) < KEYS_MAX:
                return
            after = keys[-1][0]

    def asns_named(self, text: str) -> list[int]:
        """Return the ASNs whose names contain this text, at most ``NAMES_MAX``."""
        return [asn for (asn,) in self._rows("asns_named", text=text, rows=NAMES_MAX)]

    def ranges_of_actor(self, actor: str) -> list[Bounds]:
        """Return the ranges that lists of scanners give to this actor."""
        return [(low, high) for low, high in self._rows("ranges_of_actor", actor=actor)]

    def crowded(self, ranges: Sequence[Bounds], wanted: RowFilter) -> list[Crowded]:
        """Return the newest prefix past its bound in each IPv6 range that meets one."""
        if not ranges:
            return []
        rows = self._rows(
            "crowded_of_ranges",
            **_arrays(ranges),
            feeds=list(wanted.feeds),
            since=wanted.since,
        )
        return list(map(Crowded._make, rows))

    def about(self, ip: str) -> About:
        """Return what is known of an address besides its rows, in one round trip."""
        execute = self._connection.execute
        parameters = {"ip": ip, "week": self.moment.week}
        with database_errors():
            with self._connection.pipeline():
                sensors, exclusions, origin = (
                    execute(self._sql[query], parameters, prepare=False)
                    for query in ("sensors_of", "exclusions_of", "origin_in_use")
                )
            return About(
                list(map(SensorSighting._make, sensors.fetchall())),
                list(map(Exclusion._make, exclusions.fetchall())),
                origin.fetchone(),
            )

    def _rows(self, query: str, **parameters: Any) -> list[tuple[Any, ...]]:
        with database_errors():
            return self._connection.execute(self._sql[query], parameters, prepare=False).fetchall()


def _arrays(ranges: Sequence[Bounds]) -> dict[str, str]:
    """Format both ends as array literals: addresses need no quotes, and adapting lists is slow."""
    lows = ",".join([low for low, _ in ranges])
    highs = ",".join([high for _, high in ranges])
    return {"lows": f"{{{lows}}}", "highs": f"{{{highs}}}"}
