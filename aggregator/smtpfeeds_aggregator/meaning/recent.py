"""What is recent of a stored row: the marks of seven days, and two weeks' behaviours. Pure.

The rules of ``smtpfeeds_common.history`` for one row of the database, with what older
programs wrote: a row of day 0 has the days of its first and last event and flags without
an age, and one that 0.1.0 wrote to has moved its last_seen and not its day.
``publish/columns.py`` has them for columns.
"""

from typing import Final

from smtpfeeds_common.history import WEEK_DAYS

#: Behaviours that have a name.
FLAG_BITS: Final = 0x7FFF_FFFF
_MARKS: Final = (1 << WEEK_DAYS) - 1


def recent(
    day: int, days: int, flags: tuple[int, int, int], last_day: int, first_day: int, today: int
) -> tuple[int, int]:
    """The marks (bit n: seen n days ago), and the flags of this epoch week and the one before.

    Args:
        day: the newest day that was folded in, in days since 1970-01-01; 0: none.
        days: bit n: seen on ``day - n``.
        flags: without an age, of the week of ``day``, and of the week before.
        last_day: of its last event.
        first_day: of its first event.
        today: the day that counts as today.
    """
    ever, now, before = flags
    if day == 0:
        day, days, now, before = last_day, 1 | 1 << last_day - first_day, ever, 0
    newest = max(day, last_day)
    seen = days << newest - day | 1 << newest - last_day
    seen = seen << today - newest if today > newest else seen
    oldest = (2 << today - first_day) - 1 if today > first_day else 1
    weeks = today // WEEK_DAYS - day // WEEK_DAYS
    kept = now | before if weeks <= 0 else now if weeks == 1 else 0
    return seen & oldest & _MARKS, kept & FLAG_BITS
