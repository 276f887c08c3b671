"""Stored rows as the feeds show them: class, reasons, days and flags, as of one moment. Pure.

A publication judges a window in columns, a question row by row; both ask `judge` with
the same evidence, and a test holds them together.
"""

from datetime import UTC, date, datetime
from functools import lru_cache
from typing import Any, Final, NamedTuple

from smtpfeeds_common.addresses import pack_address
from smtpfeeds_common.history import NEW_FOR

from ..meaning.classes import HITS_FROM, Evidence, Judgement, Listing, judge
from ..meaning.listings import is_fresh, listings_of
from ..meaning.recent import recent
from ..store.asked import AskedRow, Moment

_DAY_S: Final = 86_400
_NEW_S: Final = int(NEW_FOR.total_seconds())
#: Sensors beyond this make no difference to a class.
_SENSORS: Final = 2


class FeedRow(NamedTuple):
    """One address in one feed; counts are exact."""

    ip: str
    packed: bytes
    feed: str
    #: Seconds since 1970-01-01 UTC.
    first_s: int
    last_s: int
    hits: int
    sensors: int
    targets: int
    #: Behaviours of the last two weeks; the last seven days, bit n: seen n days ago.
    flags: int
    days: int
    new: bool
    asn: int | None
    name: str | None
    judgement: Judgement
    #: As stored: kind, actor, day of the list, whether it is a single address, list, prefix.
    entries: list[list[Any]]


class View:
    """Makes rows of stored ones, as of one moment."""

    def __init__(self, moment: Moment) -> None:
        self.moment = moment
        self._today = moment.now_s // _DAY_S
        self._date = datetime.fromtimestamp(moment.now_s, UTC).date()

    def row(self, asked: AskedRow) -> FeedRow:
        """A stored row as a feed would show it."""
        days, flags = recent(
            asked.day,
            asked.days,
            (asked.flags, asked.flags_now, asked.flags_before),
            asked.last_s // _DAY_S,
            asked.first_s // _DAY_S,
            self._today,
        )
        return FeedRow(
            asked.ip,
            pack_address(asked.ip),
            asked.feed,
            asked.first_s,
            asked.last_s,
            asked.hits,
            asked.sensors,
            asked.targets,
            flags,
            days,
            asked.first_s > self.moment.now_s - _NEW_S,
            asked.asn,
            asked.name,
            self._judgement(asked, flags),
            asked.entries or [],
        )

    def _judgement(self, asked: AskedRow, flags: int) -> Judgement:
        """By the rows within the window of the feeds; by all where none is in it."""
        window_s = self.moment.window_s
        hits, sensors, both = asked.hits, asked.sensors, flags
        if asked.other_last_s is not None:
            is_in, other_is_in = asked.last_s >= window_s, asked.other_last_s >= window_s
            if is_in == other_is_in:
                both |= self._other_flags(asked)
                hits = max(hits, asked.other_hits or 0)
            elif other_is_in:
                both, hits = self._other_flags(asked), asked.other_hits or 0
            if is_in or other_is_in:
                sensors = max(asked.recent * is_in, asked.other_recent * other_is_in)
        elif asked.last_s >= window_s:
            sensors = asked.recent
        return _judged(
            both,
            _hits_range(hits),
            min(sensors, _SENSORS),
            self.moment.sensors_alive,
            self._listings(asked.entries) if asked.entries else (),
        )

    def _other_flags(self, asked: AskedRow) -> int:
        last_day = (asked.other_last_s or 0) // _DAY_S
        aged = (asked.other_flags or 0, asked.other_flags_now or 0, asked.other_flags_before or 0)
        return recent(asked.other_day or 0, 0, aged, last_day, last_day, self._today)[1]

    def _listings(self, entries: list[list[Any]]) -> tuple[Listing, ...]:
        return listings_of(
            (
                kind,
                actor,
                is_fresh(date.fromisoformat(day), self._date, is_single=is_single),
            )
            for kind, actor, day, is_single, *_ in entries
        )


def _hits_range(hits: int) -> int:
    """The least of the range of hits that the rules tell apart."""
    return next(least for least in reversed(HITS_FROM) if hits >= least)


@lru_cache(maxsize=20_000)
def _judged(
    flags: int, hits: int, sensors: int, sensors_alive: int, listings: tuple[Listing, ...]
) -> Judgement:
    """Most addresses did what a few thousand others did."""
    return judge(
        Evidence(
            flags=flags, hits=hits, sensors=sensors, sensors_alive=sensors_alive, listings=listings
        )
    )
