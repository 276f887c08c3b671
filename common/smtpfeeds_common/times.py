"""One spelling of a time for readers of what a command prints: ``2026-11-23T15:24:31Z``."""

from datetime import UTC, datetime


def iso_utc(time: datetime) -> str:
    """A time in UTC, cut to the second; one without a zone is UTC already."""
    if time.tzinfo is not None:
        time = time.astimezone(UTC)
    return f"{time:%Y-%m-%dT%H:%M:%SZ}"
