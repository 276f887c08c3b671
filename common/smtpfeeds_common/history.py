"""Bits that age: on which days an address was seen, and what it did lately. Pure.

An address changes hands. So behaviours and targets are kept for two epoch weeks
only, that of the row's newest day and the one before, and the days on which it was
seen as a number whose bit 0 is the row's newest day and whose bit n is n days before
it. All of it is relative to ``day``, the newest day that was folded in: a row that
is idle needs no writer, and a reader shifts. The database moves a row to the day of
each write, so its ``day`` may be later than the day of its newest event.

Days are UTC days since 1970-01-01, weeks are seven of them. Folding is
commutative, associative and idempotent, so that neither order nor repetition of
visits changes a row. The schema has the same rules as functions of SQL, and
``publish/columns.py`` for columns; property tests compare all three. A spool needs
none: its rows lie within one day.
"""

from datetime import datetime, timedelta
from functools import lru_cache
from typing import Final, NamedTuple

DAY_MS: Final = 86_400_000
WEEK_DAYS: Final = 7
#: Days that are kept, the newest included, whatever the retention: 63 bits hold them.
DAYS_MAX: Final = 60
#: A bit past them. Ingest sets it where all days of an event are too old to be kept, because a
#: row without days is behaviours alone.
OLDER: Final = 1 << DAYS_MAX
#: An address is new for so long after it was first seen.
NEW_FOR: Final = timedelta(hours=24)


class History(NamedTuple):
    """What ages of one row; a row without events has day 0 and no bits."""

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
    """The UTC day of a time."""
    return int(time.timestamp()) // (DAY_MS // 1000)


def days_kept(retention_days: int) -> int:
    """The bits of the days that are kept: none past the retention, nor past ``DAYS_MAX``.

    ``OLDER`` is one of them.
    """
    return (1 << min(retention_days + 1, DAYS_MAX)) - 1 | OLDER


def fold(one: History, other: History) -> History:
    """Both histories as one."""
    day = max(one.day, other.day)
    first, second = moved(one, day), moved(other, day)
    return History(day, *(a | b for a, b in zip(first[1:], second[1:], strict=True)))


def moved(history: History, day: int) -> History:
    """The same history relative to a later day: what is older than its bits are kept is gone."""
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
    """The same history where no event is later than a day: a clock ahead counts as that day."""
    ahead = history.day - today
    if ahead <= 0:
        return history
    days = history.days >> ahead
    if history.days & (1 << ahead) - 1:
        days |= 1
    _, _, flags, flags_before, targets, targets_before = history
    if history.day // WEEK_DAYS == today // WEEK_DAYS:
        return History(today, days, flags, flags_before, targets, targets_before)
    return History(today, days, flags | flags_before, 0, targets | targets_before, 0)


def masked(days: int, day: int, first_day: int, retention_days: int) -> int:
    """The days of a row that was first seen on one day and last seen on another, both set.

    Args:
        days: bit n is ``day - n``.
        day: the row's newest day.
        first_day: the day of its first_seen.
        retention_days: no day further back is kept, nor one past ``DAYS_MAX``.
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
    """The history of a stored row, also where a program of 0.1.0 has written it.

    Such a program moves first_seen and last_seen, and ORs into one number of all flags.

    Args:
        stored: as the columns are; all 0 where no later program has written the row.
        every_flag: all flags; those of neither week are of the last day.
        first_day: the day of its first_seen.
        last_day: the day of its last_seen.
        retention_days: no day further back is kept.
    """
    of_last_day = every_flag & ~(stored.flags_now | stored.flags_before)
    row = fold(stored, History(last_day, 1, of_last_day))
    later = row.day - last_day
    days = masked(row.days >> later, last_day, first_day, retention_days)
    return row._replace(days=days << later & (1 << DAYS_MAX) - 1)


def recent_flags(history: History, today: int) -> int:
    """Behaviours of this epoch week and of the one before."""
    now = moved(history, today)
    return now.flags_now | now.flags_before


@lru_cache(maxsize=1 << WEEK_DAYS)
def marks(days: int) -> str:
    """The last seven days, the oldest first: ``#`` seen, ``.`` not."""
    return "".join("#" if days >> back & 1 else "." for back in reversed(range(WEEK_DAYS)))
