"""Distinguishes rows that a sensor wrote from those that a damaged disk changed. Pure.

SQLite notices damage to the structure of its pages, and none to the values in them: a flipped bit
gives another feed, an address of another length or a text instead of a number. Such a row cannot be
put into a message, and must not stop the other rows.
"""

from typing import Any, Final

from ..addresses import IPv4_BYTES, IPv6_BYTES
from ..errors import SpoolDamaged
from ..feeds import FEED_NAMES
from ..wire import COUNT_MAX, MS_MAX, MS_MIN

#: What the conversion of an unsound row raises.
UNREADABLE: Final = (LookupError, TypeError, ValueError, ArithmeticError)
_COLUMNS: Final = {"observation": 7, "activity": 3, "overflow": 5}


def is_sound(table: str, row: tuple[Any, ...]) -> bool:
    """Return whether a row of this table can come from a sensor.

    Raises:
        SpoolDamaged: the table has other columns.
    """
    is_undated = table.startswith("undated")
    if len(row) != _COLUMNS[table.removeprefix("undated_")] + is_undated:
        raise SpoolDamaged(f"the spool's table {table} has other columns")
    feed, key, *numbers = row[1:] if is_undated else row
    if not all(isinstance(each, int) for each in (feed, *numbers)):
        return False
    if feed not in range(len(FEED_NAMES)):
        return False
    least = 0 if is_undated else MS_MIN
    if table.endswith("activity"):
        return isinstance(key, int) and least <= key < MS_MAX and numbers[0] > 0
    first_ms, last_ms, hits, *_ = numbers
    lengths = {IPv6_BYTES} if table.endswith("overflow") else {IPv4_BYTES, IPv6_BYTES}
    return (
        isinstance(key, bytes)
        and len(key) in lengths
        and least <= first_ms <= last_ms < MS_MAX
        # A note adds a row without hits; a prefix always has some.
        and hits >= (0 if table.endswith("observation") else 1)
    )


def count_of(value: Any) -> int:
    """Return a number of events, which may be damaged, within the bounds of one."""
    return min(max(value, 0), COUNT_MAX) if isinstance(value, int) else 0
