"""What a question to the database is made of, and its rows: types alone.

They stand apart from what asks, so that published files are asked without the database's client.
"""

from collections.abc import Sequence
from datetime import datetime
from typing import Any, Final, NamedTuple

#: A sensor with nothing to tell sends an empty batch each minute; two may be on their way.
ALIVE_S: Final = 180
_DAY_S: Final = 86_400
_WINDOW_S: Final = 7 * _DAY_S
_MINUTE_S: Final = 60

#: From and to, both included, as texts.
Bounds = tuple[str, str]


class RowFilter(NamedTuple):
    """Which rows the server sends."""

    feeds: Sequence[str]
    #: Last seen from `since` to before `until`.
    since: datetime | None = None
    until: datetime | None = None
    first_since: datetime | None = None
    min_hits: int = 0
    family: int | None = None
    #: Only rows that this sensor saw.
    sensor: str | None = None


class Moment(NamedTuple):
    """The time that counts as now, and what it was like then."""

    #: Seconds since 1970-01-01 UTC, by the database's clock.
    now_s: int
    sensors_alive: int

    @property
    def window_s(self) -> int:
        """When the window of a publication at this moment begins."""
        return -(-self.now_s // _MINUTE_S) * _MINUTE_S - _WINDOW_S

    @property
    def week(self) -> int:
        """The epoch week."""
        return self.now_s // _DAY_S // 7


class AskedRow(NamedTuple):
    """One address in one feed as it is stored, and what its class follows from."""

    #: Which of the ranges, from 1 on.
    place: int
    ip: str
    feed: str
    #: Seconds since 1970-01-01 UTC.
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
    #: All that have a sighting of it, and how many of their addresses it came to lately.
    sensors: int
    targets: int
    #: Sensors that saw it within the window of the feeds.
    recent: int
    #: Its row in the other feed; None where there is none.
    other_last_s: int | None
    other_hits: int | None
    other_flags: int | None
    other_day: int | None
    other_flags_now: int | None
    other_flags_before: int | None
    other_recent: int
    #: List entries: kind, actor, day of the list, whether it is a single address, list, prefix.
    entries: list[list[Any]] | None
