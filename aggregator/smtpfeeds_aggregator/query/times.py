"""Parse times as people write them: ISO 8601, or a duration such as 7d."""

import re
from datetime import UTC, datetime, timedelta
from typing import Final

from smtpfeeds_common.errors import SettingsError

_DURATION: Final = re.compile(r"([0-9]{1,9})([smhdw])")
_SECONDS: Final = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}


def parse_duration(text: str) -> timedelta | None:
    """Read a duration such as 7d, 12h, 30m; None if the text is not one.

    Raises:
        OverflowError: it is longer than Python's times.
    """
    match = _DURATION.fullmatch(text)
    return None if match is None else timedelta(seconds=int(match[1]) * _SECONDS[match[2]])


def parse_time(text: str, now: datetime) -> datetime:
    """Read an ISO 8601 time (UTC if it names no zone) or a duration before now.

    Raises:
        SettingsError: it is neither.
    """
    try:
        duration = parse_duration(text)
        if duration is not None:
            return now - duration
        time = datetime.fromisoformat(text)
        return time.replace(tzinfo=UTC) if time.tzinfo is None else time.astimezone(UTC)
    except (ValueError, OverflowError) as exc:
        raise SettingsError(
            f"{text!r} is neither a time such as 2026-11-23T11:00Z nor a duration such as 7d, "
            "12h, 30m"
        ) from exc
