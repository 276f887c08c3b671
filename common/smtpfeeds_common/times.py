"""Text forms of times: ``2026-11-23T15:24:31Z``, and ``2026-11-23 15:24:31`` in feed rows."""

from datetime import UTC, datetime
from typing import Final

_SECONDS_LENGTH: Final = len("2026-11-23T15:24:31")


def iso_utc(time: datetime) -> str:
    """Write a time in UTC, cut to the second; a time without a zone is UTC."""
    if time.tzinfo is not None and time.tzinfo is not UTC:
        time = time.astimezone(UTC)
    # Ten times as fast as strftime; answers have two times in each row.
    return time.isoformat(timespec="seconds")[:_SECONDS_LENGTH] + "Z"


def row_time(seconds: float) -> str:
    """Write Unix time in the form of a feed row: ``2026-11-23 15:24:31``."""
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%d %H:%M:%S}"


def row_seconds(text: str) -> int:
    """Read a time of a feed row and return Unix time."""
    return int(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp())
