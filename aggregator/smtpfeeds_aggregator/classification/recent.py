"""The recent part of a stored row: the marks of seven days and two weeks' behaviours. Pure.

It applies the rules of ``smtpfeeds_common.history`` to one row of the database, written by
any version. ``publish/columns.py`` applies them to columns, the schema's functions apply
them in SQL; a test checks that the three agree.
"""

from typing import Final

from smtpfeeds_common.history import (
    DAYS_MAX,
    WEEK_DAYS,
    History,
    masked,
    moved,
    of_stored,
    recent_flags,
)

#: Behaviours that have a name.
FLAG_BITS: Final = 0x7FFF_FFFF
_MARKS: Final = (1 << WEEK_DAYS) - 1


def recent(
    day: int, days: int, flags: tuple[int, int, int], last_day: int, first_day: int, today: int
) -> tuple[int, int]:
    """Return the marks (bit n: seen n days ago) and the flags of this epoch week and the last.

    Args:
        day: the day that days and flags are relative to, since 1970-01-01; 0 if only 0.1.0
            has written the row.
        days: bit n: seen on ``day - n``.
        flags: all flags, those of the week of ``day``, and those of the week before.
        last_day: the day of the last event.
        first_day: the day of the first event.
        today: the day that counts as today.
    """
    every, now, before = flags
    if day == last_day and day <= today and not every & ~(now | before):
        # Fast path: a row of the current version needs no folding, and answers have thousands.
        marks = masked(days, day, first_day, DAYS_MAX) << (today - day)
        weeks = today // WEEK_DAYS - day // WEEK_DAYS
        known = now | before if weeks == 0 else now if weeks == 1 else 0
        return marks & _MARKS, known & FLAG_BITS
    row = of_stored(History(day, days, now, before), every, first_day, last_day)
    marks = moved(row, today).days >> max(row.day - today, 0)
    return marks & _MARKS, recent_flags(row, today) & FLAG_BITS
