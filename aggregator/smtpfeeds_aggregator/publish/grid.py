"""The schedule of publications: every multiple of the interval since midnight UTC.

So all aggregators publish at the same times, and consumers know these times.
"""

from typing import Final

_DAY_S: Final = 86_400


def next_point(now_s: float, interval_s: int) -> int:
    """Return the next scheduled time after now; midnight is always one (seconds since 1970)."""
    midnight, since = divmod(int(now_s), _DAY_S)
    return midnight * _DAY_S + min((since // interval_s + 1) * interval_s, _DAY_S)


def this_point(now_s: float, interval_s: int) -> int:
    """Return the last scheduled time, including now."""
    now = int(now_s)
    return now - now % _DAY_S % interval_s


def expiry(now_s: float, interval_s: int) -> int:
    """Return when a generation made now expires: after one missed publication."""
    return next_point(next_point(now_s, interval_s), interval_s)
