"""Types of a query and of its rows.

They stand apart from `query.py`, so that queries of published files need no database client.
"""

from collections.abc import Sequence
from datetime import datetime
from typing import Any, Final, NamedTuple

#: A quiet sensor sends an empty batch each minute; two of them may be in transit.
ALIVE_S: Final = 180
_DAY_S: Final = 86_400
_WINDOW_S: Final = 7 * _DAY_S
_MINUTE_S: Final = 60

#: First and last address, as texts.
Bounds = tuple[str, str]


class RowFilter(NamedTuple):
    """Selects the rows that the server sends."""

    feeds: Sequence[str]
    #: Last seen at or after `since`, and before `until`.
    since: datetime | None = None
    until: datetime | None = None
    first_since: datetime | None = None
    min_hits: int = 0
    family: int | None = None
    #: Only rows that this sensor saw.
    sensor: str | None = None


class Moment(NamedTuple):
    """The time that counts as now, and the number of sensors alive at it."""

    #: Unix time, by the database's clock.
    now_s: int
    sensors_alive: int

    @property
    def window_s(self) -> int:
        """The beginning of the window of a publication at this moment."""
        return -(-self.now_s // _MINUTE_S) * _MINUTE_S - _WINDOW_S

    @property
    def week(self) -> int:
        """The epoch week."""
        return self.now_s // _DAY_S // 7


class StoredRow(NamedTuple):
    """The stored row of an address in a feed, with the data that its class depends on."""

    #: Number of the range, from 1.
    place: int
    ip: str
    feed: str
    #: Unix time.
    first_s: int
    last_s: int
    hits: int
    flags: int
    asn: int | None
    name: str | None
    day: int
    days: int
    flags_now: int
    flags_before: int
    #: Sensors that have a sighting of it, and how many of their addresses it contacted lately.
    sensors: int
    targets: int
    #: Sensors that saw it within the window of the feeds.
    recent: int
    #: Its row in the other feed; None if there is none.
    other_last_s: int | None
    other_hits: int | None
    other_flags: int | None
    other_day: int | None
    other_flags_now: int | None
    other_flags_before: int | None
    other_recent: int
    #: List entries: kind, actor, day of the list, whether it is a single address, list, prefix.
    entries: list[list[Any]] | None
