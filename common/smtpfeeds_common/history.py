"""Bits that age: the days on which an address was seen, and its recent behaviours. Pure.

Addresses change owners, so a row keeps behaviours and targets only for two epoch weeks: that of
its newest day and the week before. The days on which it was seen are one number: bit 0 is the
newest day, bit n is n days before. All bits are relative to ``day``, the newest day that was
folded in, so an idle row needs no update; a reader shifts the bits. The database moves a row to
the day of each write, so ``day`` may be later than its newest event.

Days are UTC days since 1970-01-01; a week is seven of them. Folding is commutative, associative
and idempotent, so neither the order nor the repetition of visits changes a row. The schema has
the same rules as SQL functions, and ``publish/columns.py`` has them for whole columns; property
tests compare all three. A spool does not need them: each of its rows covers one day.
"""

from datetime import datetime, timedelta
from functools import lru_cache
from typing import Final, NamedTuple

DAY_S: Final = 86_400
DAY_MS: Final = DAY_S * 1000
WEEK_DAYS: Final = 7
#: The most days that a row keeps, the newest included; they and ``OLDER`` fit in 63 bits.
DAYS_MAX: Final = 60
#: The bit after them. Ingest sets it if all days of an event are too old to be kept, because a row
#: without days holds only behaviours and no event.
OLDER: Final = 1 << DAYS_MAX
#: How long an address is new after it was first seen.
NEW_FOR: Final = timedelta(hours=24)


class History(NamedTuple):
    """The bits of one row that age; a row without events has day 0 and no bits."""

    #: The newest day that was folded in.
    day: int = 0
    #: Bit n: seen on ``day - n``.
    days: int = 0
    #: Behaviours and targets of the week of ``day``, and of the week before.
    flags_now: int = 0
    flags_before: int = 0
    targets_now: int = 0
    targets_before: int = 0


def day_of(time: datetime) -> int:
    """Return the UTC day of a time."""
    return int(time.timestamp()) // DAY_S


def days_kept(retention_days: int) -> int:
    """Return the mask of the days that are kept, within the retention and ``DAYS_MAX``.

    ``OLDER`` is part of the mask.
    """
    return (1 << min(retention_days + 1, DAYS_MAX)) - 1 | OLDER


def fold(one: History, other: History) -> History:
    """Merge two histories."""
    day = max(one.day, other.day)
    first, second = moved(one, day), moved(other, day)
    return History(day, *(a | b for a, b in zip(first[1:], second[1:], strict=True)))


def moved(history: History, day: int) -> History:
    """Return the history relative to a later day, without the bits that are then too old."""
    later = day - history.day
    if later <= 0:
        return history
    weeks = day // WEEK_DAYS - history.day // WEEK_DAYS
    days = history.days << later if later < DAYS_MAX else 0
    days &= (1 << DAYS_MAX) - 1
    if weeks == 0:
        return history._replace(day=day, days=days)
    if weeks == 1:
        return History(day, days, 0, history.flags_now, 0, history.targets_now)
    return History(day, days)


def clamped(history: History, today: int) -> History:
    """Return the history with ``today`` as its newest day; later events count for today."""
    ahead = history.day - today
    if ahead <= 0:
        return history
    days = history.days >> ahead
    # Without a mask of `ahead` bits, which would be millions for a day in the year 9999.
    if days << ahead != history.days:
        days |= 1
    _, _, flags, flags_before, targets, targets_before = history
    if history.day // WEEK_DAYS == today // WEEK_DAYS:
        return History(today, days, flags, flags_before, targets, targets_before)
    return History(today, days, flags | flags_before, 0, targets | targets_before, 0)


def masked(days: int, day: int, first_day: int, retention_days: int) -> int:
    """Return the days of a row between its first and its last day, with both set.

    Args:
        days: bit n is ``day - n``.
        day: the row's newest day.
        first_day: the day of its first_seen.
        retention_days: days further back are dropped, as are those past ``DAYS_MAX``.
    """
    oldest = min(day - first_day, retention_days, DAYS_MAX - 1)
    if oldest < 0:
        return 0
    days &= (1 << (oldest + 1)) - 1
    if day - first_day == oldest:
        days |= 1 << oldest
    return days | 1


def of_stored(
    stored: History, every_flag: int, first_day: int, last_day: int, retention_days: int = DAYS_MAX
) -> History:
    """Return the history of a stored row, even if version 0.1.0 wrote it.

    Version 0.1.0 updates first_seen, last_seen and one number of all flags, and no history.

    Args:
        stored: the columns; all 0 if only 0.1.0 has written the row.
        every_flag: all flags; those that neither week has count for the last day.
        first_day: the day of its first_seen.
        last_day: the day of its last_seen.
        retention_days: days further back are dropped.
    """
    of_last_day = every_flag & ~(stored.flags_now | stored.flags_before)
    row = fold(stored, History(last_day, 1, of_last_day))
    later = row.day - last_day
    days = masked(row.days >> later, last_day, first_day, retention_days)
    return row._replace(days=days << later & (1 << DAYS_MAX) - 1)


def recent_flags(history: History, today: int) -> int:
    """Return the behaviours of this epoch week and the week before."""
    now = moved(history, today)
    return now.flags_now | now.flags_before


@lru_cache(maxsize=1 << WEEK_DAYS)
def marks(days: int) -> str:
    """Write the last seven days, oldest first: ``#`` seen, ``.`` not."""
    return "".join("#" if days >> back & 1 else "." for back in reversed(range(WEEK_DAYS)))
