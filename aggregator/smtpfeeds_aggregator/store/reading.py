"""The database as the command line sees it.

Answers come page by page, each its own statement: a pager that nobody closes
keeps no snapshot open, which would end HOT updates for everyone.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, NamedTuple

from smtpfeeds_common.history import DAY_MS, WEEK_DAYS

from .connection import Connection
from .errors import database_errors
from .sql import queries

PAGE_ROWS: Final = 5_000
#: Where few rows are wanted; some of them may have been an earlier answer.
PAGE_ROWS_MIN: Final = 1_000
#: Keys that are held of an autonomous system: some 15 MB. It is read whole for each so many.
KEYS_MAX: Final = 100_000
#: A sensor with nothing to tell sends an empty batch each minute; two may be on their way.
ALIVE_S: Final = 180
#: A flood is written every second or two while it lasts.
FLOOD_S: Final = 30
LOWEST: Final = "0.0.0.0"  # noqa: S104 - the first address in PostgreSQL's order
HIGHEST: Final = "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"


@dataclass(frozen=True, slots=True, kw_only=True)
class Filter:
    """Which rows are wanted: feeds, and last seen from `since` to before `until`."""

    feeds: Sequence[str]
    since: datetime | None = None
    until: datetime | None = None
    #: So many rows are expected to be read; None: all there are.
    rows: int | None = None


class StoredRow(NamedTuple):
    """One address in one feed as it is stored, with its AS name, and what its class rests on."""

    ip: str
    feed: str
    first_seen: datetime
    last_seen: datetime
    hits: int
    flags: int
    asn: int | None
    name: str | None
    #: All that have a sighting of it, and how many of their addresses it came to lately.
    sensors: int
    targets: int
    day: int
    days: int
    flags_now: int
    flags_before: int
    actor: str | None
    #: Of its row in the other feed; zeros where there is none.
    other_hits: int
    other_flags: int
    other_day: int
    other_flags_now: int
    other_flags_before: int


class FeedState(NamedTuple):
    """What a feed holds."""

    feed: str
    addresses: int
    newest: datetime


class CrowdedPrefix(NamedTuple):
    """An IPv6 prefix past its addresses of a day, and what was counted under it in a feed."""

    prefix: str
    feed: str
    sensors: int
    first_seen: datetime
    last_seen: datetime
    events: int


class SensorState(NamedTuple):
    """What is known of a sensor; skew is its clock less ours, with the delivery's delay in it."""

    name: str
    heard_at: datetime | None
    alive: bool | None
    version: str
    #: Which of its account; None: nothing was ever taken of it.
    epoch: int | None
    events_24h: int
    events: int
    skew_s: float | None
    spool_depth: int
    drops: int
    #: Events of new addresses past its bucket, counted under the account.
    past_bucket_24h: int
    #: Messages of its account that were refused, by whole hours.
    refused_24h: int
    #: None: the account does not flood now.
    flood_since: datetime | None
    flood_messages_per_s: float | None
    flood_reason: str | None


class RefusalRow(NamedTuple):
    """Refused messages of an account in an hour, for one reason."""

    account: str
    hour: datetime
    reason: str
    messages: int
    octets: int
    #: How many of them are in the queue of the refused.
    kept: int
    last_at: datetime
    detail: str


class ReadingStore:
    """Asks; one connection, in autocommit."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._sql = {name: sql.encode() for name, sql in queries("reading.sql").items()}

    def in_range(self, low: str, high: str, wanted: Filter) -> Iterator[StoredRow]:
        """Rows from one address to another, both included, by address and feed."""
        rows = _at_most(PAGE_ROWS, wanted)
        for page in self._pages("page_of_range", low, wanted, rows, low=low, high=high):
            yield from map(StoredRow._make, page)

    def of_asn(self, asn: int, wanted: Filter) -> Iterator[StoredRow]:
        """Rows of an autonomous system, by address and feed."""
        rows = _at_most(KEYS_MAX, wanted)
        for keys in self._pages("keys_of_asn", LOWEST, wanted, rows, asn=asn):
            for start in range(0, len(keys), PAGE_ROWS):
                part = keys[start : start + PAGE_ROWS]
                page = self._rows(
                    "page_of_keys",
                    key_ips=[ip for ip, _ in part],
                    key_feeds=[feed for _, feed in part],
                    asn=asn,
                    week=self._week(),
                )
                yield from map(StoredRow._make, page)

    def feeds(self, since: datetime) -> list[FeedState]:
        """What the feeds hold since a time."""
        return [FeedState(*row) for row in self._rows("feeds", since=since)]

    def sensors(self) -> list[SensorState]:
        """All sensors by name, and the accounts that were refused lately or flood."""
        return [
            SensorState(*row) for row in self._rows("sensors", alive_s=ALIVE_S, flood_s=FLOOD_S)
        ]

    def crowded(self, since: datetime | None, rows: int) -> list[CrowdedPrefix]:
        """The IPv6 prefixes past their addresses of a day, newest first, at most so many."""
        return [CrowdedPrefix(*row) for row in self._rows("crowded", since=since, rows=rows)]

    def is_crowded(self, low: str, high: str, wanted: Filter) -> bool:
        """Whether events of a range of IPv6 addresses were counted under a prefix."""
        asked = {"low": low, "high": high, "feeds": list(wanted.feeds), "since": wanted.since}
        return bool(self._rows("is_crowded", **asked)[0][0])

    def refusals(self, account: str | None, since: datetime | None, rows: int) -> list[RefusalRow]:
        """Refused messages of one account or of all, by hour, the newest first, at most so many."""
        asked = {"account": account, "since": since, "rows": rows}
        return [RefusalRow(*row) for row in self._rows("refusals", **asked)]

    def _pages(
        self, query: str, begin: str, wanted: Filter, rows: int, **parameters: Any
    ) -> Iterator[list[tuple[Any, ...]]]:
        """Pages of rows that begin with their key: address, feed."""
        after_ip, after_feed = begin, ""
        page: list[tuple[Any, ...]] = []
        while not page or len(page) == rows:
            page = self._rows(
                query,
                after_ip=after_ip,
                after_feed=after_feed,
                feeds=list(wanted.feeds),
                since=wanted.since,
                until=wanted.until,
                week=self._week(),
                rows=rows,
                **parameters,
            )
            if not page:
                return
            yield page
            after_ip, after_feed = page[-1][:2]

    def now(self) -> datetime:
        """The database's clock."""
        now = self._rows("now")[0][0]
        assert isinstance(now, datetime)
        return now

    def sensors_alive(self) -> int:
        """How many sensors were heard lately."""
        return int(self._rows("sensors_alive", alive_s=ALIVE_S)[0][0])

    def _week(self) -> int:
        """The epoch week of the database's clock."""
        return int(self.now().timestamp()) * 1000 // DAY_MS // WEEK_DAYS

    def _rows(self, query: str, **parameters: Any) -> list[tuple[Any, ...]]:
        with database_errors():
            return self._connection.execute(self._sql[query], parameters).fetchall()


def _at_most(rows: int, wanted: Filter) -> int:
    """A page's rows: not many more than wanted, nor so few that pages become many."""
    return rows if wanted.rows is None else min(rows, max(wanted.rows, PAGE_ROWS_MIN))
