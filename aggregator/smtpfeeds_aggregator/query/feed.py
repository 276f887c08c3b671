"""Return the rows of a feed as a publication would write them now, in the same order.

All rows need a copy of both feeds, as a publication does. The first few rows need only their
addresses, in the order of publication, and a copy of those.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final, NamedTuple

from smtpfeeds_common.feeds import FEED_NAMES
from smtpfeeds_common.history import DAY_S, WEEK_DAYS

from ..classification.lists.in_use import ListSource
from ..publish.chunks import FeedRows
from ..publish.columns import Window
from ..publish.entries import Entry
from ..publish.judgements import Judgements, ListLookup, judge_window
from ..publish.snapshot import LeftOut, origins_in, window_end, window_start
from ..publish.statistics import TOP, Summary, summarise
from ..settings import AggregatorSettings
from ..store.publication import PublicationStore
from ..store.query_rows import ALIVE_S

#: For more rows than this, a copy of all rows is faster.
_FEW_ROWS: Final = 5_000
#: Additional addresses to read, because some may be left out.
_SPARE: Final = 1_000


@dataclass(frozen=True, slots=True, kw_only=True)
class FeedSelection:
    """Selects rows of a feed."""

    feed: str
    #: Replaces the start of the window.
    since: datetime | None = None
    #: Leaves out rows last seen at this time or later.
    until: datetime | None = None
    #: How many rows the caller expects to read; None: all.
    rows: int | None = None


class _Copied(NamedTuple):
    """A copy of the window, without the rows that are left out."""

    window: Window
    left_out: Mapping[str, Mapping[str, int]]
    judgements: Judgements
    names: dict[int, str]


class FeedNow:
    """A feed at this moment, with the stored origins."""

    def __init__(
        self, settings: AggregatorSettings, store: PublicationStore, wanted: FeedSelection
    ) -> None:
        """Read only the clock.

        Args:
            settings: what is left out.
            store: the database.
            wanted: selects the rows.
        """
        self._settings, self._store, self._wanted = settings, store, wanted
        now = store.now()
        self._now_s = int(now.timestamp())
        self._since = wanted.since or window_start(window_end(now))

    def rows(self) -> tuple[Iterator[Entry], Mapping[str, int]]:
        """Return the rows in the order of publication, and how many addresses are left out.

        The numbers are by reason. They may be of the first rows alone, if not all are read.
        """
        rows = self._wanted.rows
        if rows is not None and rows <= _FEW_ROWS:
            only = self._store.first_addresses(
                self._wanted.feed, self._since, self._wanted.until, rows + _SPARE
            )
            first, left_out = self._copied(only)
            if len(first) >= rows or len(only) < rows + _SPARE:
                return entries_of(first), left_out
        everything, left_out = self._copied(None)
        return entries_of(everything), left_out

    def every_feed(self, feeds: Sequence[str]) -> Iterator[Entry]:
        """Return the rows of several feeds, from one copy."""
        copied = self._copy(None)
        for feed in feeds:
            yield from entries_of(self._rows_of(copied, feed))

    def statistics(self) -> Summary:
        """Return the statistics of a publication made now."""
        copied = self._copy(None)
        return summarise(
            copied.window,
            copied.judgements,
            copied.names,
            generated=datetime.fromtimestamp(self._now_s, UTC),
            expires=None,
            hours=self._store.events_by_hour(self._since),
            sensors=self._store.events_by_sensor(self._since, TOP * len(FEED_NAMES)),
        )

    def _copied(self, only: Sequence[str] | None) -> tuple[FeedRows, Mapping[str, int]]:
        copied = self._copy(only)
        feed = self._wanted.feed
        return self._rows_of(copied, feed), copied.left_out[feed]

    def _copy(self, only: Sequence[str] | None) -> "_Copied":
        week = self._now_s // DAY_S // WEEK_DAYS
        with self._store.copy_window(self._since, self._wanted.until, week, only) as blocks:
            window = Window.read(blocks, self._now_s)
        leave_out = LeftOut.by_settings(self._settings, self._store.exclusions())
        window, left_out = leave_out.apply(window)
        judgements = judge_window(window, self._store.sensors_alive(ALIVE_S), self._lists())
        return _Copied(window, left_out, judgements, self._store.names_of(origins_in(window)))

    def _rows_of(self, copied: "_Copied", feed: str) -> FeedRows:
        return FeedRows(
            copied.window,
            feed,
            copied.judgements,
            copied.names,
            now_s=self._now_s,
            exact_counts=self._settings.publish_exact_counts,
        )

    def _lists(self) -> ListLookup:
        """Return the lists that the settings name, as of today."""
        source = ListSource(self._settings)
        source.load()
        return source.current.on(datetime.fromtimestamp(self._now_s, UTC).date())


def empty_feed(feed: str, left_out: Mapping[str, int]) -> str:
    """Return the message for a feed without rows, with the number of addresses left out."""
    words = {
        "not_global": "not publicly routable (the setting publish_non_global publishes them)",
        "excluded": "excluded by the operator",
    }
    counts = [f"{count} {words.get(why, why)}" for why, count in left_out.items() if count]
    return f"{feed} is empty" + ("; left out: " + ", ".join(counts) if counts else "")


def entries_of(rows: FeedRows) -> Iterator[Entry]:
    """Yield a feed's rows one by one."""
    for chunk in rows.chunks():
        for asn, is_ipv4, *fields in zip(
            chunk.asn,
            chunk.is_ipv4,
            chunk.name,
            chunk.address,
            chunk.last_seen,
            chunk.first_seen,
            chunk.hits,
            chunk.sensors,
            chunk.flags,
            chunk.targets,
            chunk.judgement,
            chunk.days,
            chunk.new,
            strict=True,
        ):
            name, address, last_seen, *others = fields
            yield Entry(
                asn or None, name, address, 4 if is_ipv4 else 6, last_seen, chunk.category, *others
            )
