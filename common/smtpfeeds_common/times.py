"""How times are written: ``2026-11-23T15:24:31Z``, and as the rows of the feeds have them."""

from datetime import UTC, datetime


def iso_utc(time: datetime) -> str:
    """A time in UTC, cut to the second; one without a zone is UTC already."""
    if time.tzinfo is not None:
        time = time.astimezone(UTC)
    return f"{time:%Y-%m-%dT%H:%M:%SZ}"


def row_time(seconds: float) -> str:
    """A time since 1970-01-01 UTC as a row of a feed has it: ``2026-11-23 15:24:31``."""
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%d %H:%M:%S}"
