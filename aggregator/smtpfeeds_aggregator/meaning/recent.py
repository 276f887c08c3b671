"""What is recent of a stored row: the marks of seven days, and two weeks' behaviours. Pure.

The rules of ``smtpfeeds_common.history`` for one row of the database, whichever version
has written it. ``publish/columns.py`` has them for columns, the schema's functions for
statements; a test holds the three together.
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
    """The marks (bit n: seen n days ago), and the flags of this epoch week and the one before.

    Args:
        day: what days and flags are relative to, in days since 1970-01-01; 0: no program later
            than 0.1.0 has written the row.
        days: bit n: seen on ``day - n``.
        flags: all of them, of the week of ``day``, and of the week before.
        last_day: of its last event.
        first_day: of its first event.
        today: the day that counts as today.
    """
    every, now, before = flags
    if day == last_day and day <= today and not every & ~(now | before):
        # A row as today's writers leave it: nothing to fold, and ten thousand of them in an answer.
        marks = masked(days, day, first_day, DAYS_MAX) << (today - day)
        weeks = today // WEEK_DAYS - day // WEEK_DAYS
        known = now | before if weeks == 0 else now if weeks == 1 else 0
        return marks & _MARKS, known & FLAG_BITS
    row = of_stored(History(day, days, now, before), every, first_day, last_day)
    marks = moved(row, today).days >> max(row.day - today, 0)
    return marks & _MARKS, recent_flags(row, today) & FLAG_BITS
