"""How times are written: ``2026-11-23T15:24:31Z``, and as the rows of the feeds have them."""

from datetime import UTC, datetime
from typing import Final

_SECONDS_LENGTH: Final = len("2026-11-23T15:24:31")


def iso_utc(time: datetime) -> str:
    """A time in UTC, cut to the second; one without a zone is UTC already."""
    if time.tzinfo is not None and time.tzinfo is not UTC:
        time = time.astimezone(UTC)
    # Ten times as fast as strftime: answers have two times in each row.
    return time.isoformat(timespec="seconds")[:_SECONDS_LENGTH] + "Z"


def row_time(seconds: float) -> str:
    """A time since 1970-01-01 UTC as a row of a feed has it: ``2026-11-23 15:24:31``."""
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%d %H:%M:%S}"


def row_seconds(text: str) -> int:
    """The seconds since 1970-01-01 UTC of a time as a row of a feed has it."""
    return int(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp())
