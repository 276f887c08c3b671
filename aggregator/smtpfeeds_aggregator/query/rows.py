"""Convert stored rows to rows of a feed: class, reasons, days and flags at one moment. Pure.

A publication classifies a window in columns, a query row by row; both call `judge` with the same
evidence, and a test compares them.
"""

from datetime import UTC, date, datetime
from functools import lru_cache
from typing import Any, Final, NamedTuple

from smtpfeeds_common.addresses import pack_address
from smtpfeeds_common.history import NEW_FOR

from ..classification.classes import HITS_FROM, Evidence, Judgement, Listing, judge
from ..classification.listings import is_fresh, listings_of
from ..classification.recent import recent
from ..store.query_rows import Moment, StoredRow

_DAY_S: Final = 86_400
_NEW_S: Final = int(NEW_FOR.total_seconds())
#: More sensors than this do not change a class.
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
    #: Behaviours of the last two weeks; in `days`, bit n means: seen n days ago.
    flags: int
    days: int
    new: bool
    asn: int | None
    name: str | None
    judgement: Judgement
    #: As stored: kind, actor, day of the list, whether it is a single address, list, prefix.
    entries: list[list[Any]]


class View:
    """Converts stored rows, for one moment."""

    def __init__(self, moment: Moment) -> None:
        self.moment = moment
        self._today = moment.now_s // _DAY_S
        self._date = datetime.fromtimestamp(moment.now_s, UTC).date()

    def row(self, stored: StoredRow) -> FeedRow:
        """Return a stored row as a feed would show it."""
        days, flags = recent(
            stored.day,
            stored.days,
            (stored.flags, stored.flags_now, stored.flags_before),
            stored.last_s // _DAY_S,
            stored.first_s // _DAY_S,
            self._today,
        )
        return FeedRow(
            stored.ip,
            pack_address(stored.ip),
            stored.feed,
            stored.first_s,
            stored.last_s,
            stored.hits,
            stored.sensors,
            stored.targets,
            flags,
            days,
            stored.first_s > self.moment.now_s - _NEW_S,
            stored.asn,
            stored.name,
            self._judgement(stored, flags),
            stored.entries or [],
        )

    def _judgement(self, stored: StoredRow, flags: int) -> Judgement:
        """Classify by the rows within the window of the feeds; by all rows if none is in it."""
        window_s = self.moment.window_s
        hits, sensors, both = stored.hits, stored.sensors, flags
        if stored.other_last_s is not None:
            is_in, other_is_in = stored.last_s >= window_s, stored.other_last_s >= window_s
            if is_in == other_is_in:
                both |= self._other_flags(stored)
                hits = max(hits, stored.other_hits or 0)
            elif other_is_in:
                both, hits = self._other_flags(stored), stored.other_hits or 0
            if is_in or other_is_in:
                sensors = max(stored.recent * is_in, stored.other_recent * other_is_in)
        elif stored.last_s >= window_s:
            sensors = stored.recent
        return _judged(
            both,
            _hits_range(hits),
            min(sensors, _SENSORS),
            self.moment.sensors_alive,
            self._listings(stored.entries) if stored.entries else (),
        )

    def _other_flags(self, row: StoredRow) -> int:
        last_day = (row.other_last_s or 0) // _DAY_S
        aged = (row.other_flags or 0, row.other_flags_now or 0, row.other_flags_before or 0)
        return recent(row.other_day or 0, 0, aged, last_day, last_day, self._today)[1]

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
    """Return the lower end of the range of hits that the rules distinguish."""
    return next(least for least in reversed(HITS_FROM) if hits >= least)


@lru_cache(maxsize=20_000)
def _judged(
    flags: int, hits: int, sensors: int, sensors_alive: int, listings: tuple[Listing, ...]
) -> Judgement:
    """Classify; cached, because most addresses behave like a few thousand others."""
    return judge(
        Evidence(
            flags=flags, hits=hits, sensors=sensors, sensors_alive=sensors_alive, listings=listings
        )
    )
