"""When the next refresh of a data set is due. Pure: it takes the status and returns a time."""

import random
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

#: The shortest interval, whatever the setting is.
MIN_INTERVAL_S: Final = 3600
#: The wait after a failure; it doubles with each further one.
_RETRY_S: Final = 3600
#: A program that has just started waits this long, so that its other parts start first.
_FIRST_S: Final = 60


@dataclass(frozen=True, slots=True)
class Schedule:
    """How often a directory is refreshed."""

    directory: str
    #: 0: never.
    interval_s: float
    #: A random delay up to this, so that not all hosts fetch at the same time.
    jitter_s: float

    def is_due(self, status: dict[str, Any], begun: datetime, now: datetime) -> bool:
        """Return whether a refresh is due; the first two arguments are those of `next_refresh`.

        No wait is longer than the interval. A later time comes from a clock that was ahead, and
        would stop the refreshes for as long as it was ahead; a start in the future is taken for one
        of a minute ago.
        """
        if begun > now:
            begun = now - timedelta(seconds=_FIRST_S)
        due = self.next_refresh(status, begun)
        if due is None:
            return False
        longest = timedelta(seconds=self._interval_s + self.jitter_s)
        return not now < due <= now + longest

    @property
    def _interval_s(self) -> float:
        return max(MIN_INTERVAL_S, self.interval_s)

    def next_refresh(self, status: dict[str, Any], begun: datetime) -> datetime | None:
        """Return when the next refresh is due, the same for all programs that share a directory.

        Args:
            status: `last_attempt` and `failures` of `DatasetDirectory.status`.
            begun: when this program started; its first refresh is at least a minute later.
        """
        if not self.interval_s or not self.directory:
            return None
        interval = self._interval_s
        first = begun + timedelta(seconds=_FIRST_S)
        last = parse_time(status.get("last_attempt"))
        if last is None:
            return first
        failures = int(status.get("failures") or 0)
        wait = min(interval, _RETRY_S * 2 ** min(failures - 1, 10)) if failures else interval
        # The seed gives all programs of the directory the same delay, and each attempt another.
        jitter = random.Random(f"{self.directory}{last}").random()  # noqa: S311 - no secret
        return max(first, last + timedelta(seconds=wait + jitter * self.jitter_s))


def parse_time(text: object) -> datetime | None:
    """Parse a time from a status or manifest; `None` if it is not one."""
    try:
        return datetime.fromisoformat(str(text))
    except ValueError:
        return None
