"""When the next refresh of a data set is due. Pure: notes of the last attempts in, a time out."""

import random
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

#: A schedule never asks more often, whatever the setting says.
MIN_INTERVAL_S: Final = 3600
#: After a failure: again after this, twice as long after each further one.
_RETRY_S: Final = 3600
#: The first refresh of a program that has just begun lets the rest begin first.
_FIRST_S: Final = 60


@dataclass(frozen=True, slots=True)
class Schedule:
    """How often a directory is refreshed."""

    directory: str
    #: 0: never.
    interval_s: float
    #: Up to so much later, so that not every host asks at the same moment.
    jitter_s: float

    def next_refresh(self, status: dict[str, Any], begun: datetime) -> datetime | None:
        """When the next one is due: all programs of one directory come to the same answer.

        Args:
            status: `last_attempt` and `failures`, as `DatasetDirectory.status` has them.
            begun: when this program began; the first refresh is a while after it.
        """
        if not self.interval_s or not self.directory:
            return None
        interval = max(MIN_INTERVAL_S, self.interval_s)
        first = begun + timedelta(seconds=_FIRST_S)
        last = parse_time(status.get("last_attempt"))
        if last is None:
            return first
        failures = int(status.get("failures") or 0)
        wait = min(interval, _RETRY_S * 2 ** min(failures - 1, 10)) if failures else interval
        # The same for all who share the directory, another after each attempt.
        jitter = random.Random(f"{self.directory}{last}").random()  # noqa: S311 - no secret
        return max(first, last + timedelta(seconds=wait + jitter * self.jitter_s))


def parse_time(text: object) -> datetime | None:
    """A time as a status or manifest notes it; `None` where it is none."""
    try:
        return datetime.fromisoformat(str(text))
    except ValueError:
        return None
