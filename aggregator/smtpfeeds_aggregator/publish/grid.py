"""When to publish: at every multiple of the interval since midnight UTC.

All aggregators so publish at the same moments, and a consumer knows when to come.
"""

from typing import Final

_DAY_S: Final = 86_400


def next_point(now_s: float, interval_s: int) -> int:
    """The first moment of the grid after now; midnight is always one (seconds since 1970)."""
    midnight, since = divmod(int(now_s), _DAY_S)
    return midnight * _DAY_S + min((since // interval_s + 1) * interval_s, _DAY_S)


def this_point(now_s: float, interval_s: int) -> int:
    """The last moment of the grid, now included."""
    now = int(now_s)
    return now - now % _DAY_S % interval_s


def expiry(now_s: float, interval_s: int) -> int:
    """When a generation made now is stale: one moment of the grid was missed altogether."""
    return next_point(next_point(now_s, interval_s), interval_s)
