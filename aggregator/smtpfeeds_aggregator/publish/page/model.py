"""The content of the page, as plain data; times are seconds since 1970-01-01 UTC."""

from dataclasses import dataclass
from typing import Final, NamedTuple

#: The most addresses in the page's search: about 5 MB to load, compressed.
SEARCH_LIMIT: Final = 300_000


class Point(NamedTuple):
    """One bar of a chart."""

    label: str
    number: int


@dataclass(frozen=True, slots=True)
class Series:
    """A chart of one feed."""

    name: str
    points: tuple[Point, ...]

    @property
    def most(self) -> int:
        """Return the height of the highest bar."""
        return max((point.number for point in self.points), default=0)


class FeedSummary(NamedTuple):
    """The numbers of a feed."""

    name: str
    description: str
    addresses: int
    ipv4: int
    ipv6: int
    asns: int
    #: Addresses first seen within 24 hours.
    new: int


class ClassRow(NamedTuple):
    """A class: its addresses in each feed, in the feeds' order, and in either."""

    name: str
    meaning: str
    counts: tuple[int, ...]
    addresses: int


class RankingRow(NamedTuple):
    """One line of a ranking, and the search that shows its addresses."""

    name: str
    query: str
    addresses: int


@dataclass(frozen=True, slots=True)
class Ranking:
    """The first lines of a ranking, such as the origin ASes."""

    title: str
    head: str
    rows: tuple[RankingRow, ...]


class FileRow(NamedTuple):
    """A published file: its size in octets, what it is, and a line that loads it."""

    name: str
    size: int
    format: str
    load: str


class PolicyItem(NamedTuple):
    """A question that readers and networks ask, and the answer."""

    question: str
    answer: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """Everything on the page."""

    publisher: str
    contact: str
    licence: str
    version: str
    generated_s: int
    expires_s: int
    window_start_s: int
    window_end_s: int
    #: Addresses in either feed.
    addresses: int
    feeds: tuple[FeedSummary, ...]
    classes: tuple[ClassRow, ...]
    #: Events by hour, a series a feed.
    hours: tuple[Series, ...]
    #: Entries by the day of their last event.
    days: tuple[Series, ...]
    rankings: tuple[Ranking, ...]
    files: tuple[FileRow, ...]
    policy: tuple[PolicyItem, ...]
    #: The public key of the signatures; None without signatures.
    public_key: str | None = None
    search_limit: int = SEARCH_LIMIT

    @property
    def search_entries(self) -> int | None:
        """Return how many addresses the search has; None if there are too many."""
        return self.addresses if self.addresses <= self.search_limit else None
