"""Where the newest RIB lies in an archive laid out as Route Views' is.

RIPE RIS calls a RIB ``bview.YYYYMMDD.HHMM.gz``.

Pure: names and dates. ``BASE/YYYY.MM/RIBS/rib.YYYYMMDD.HHMM.bz2``; a month's
folder is there before its first RIB, so an empty one sends us to the month before.
"""

import re
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Final

#: A RIB appears in the listing while it is still being written.
SETTLE: Final = timedelta(minutes=30)
#: A name from the future is a mistake of the archive's or of this host's clock.
_AHEAD: Final = timedelta(days=1)
_NAME: Final = re.compile(r"\b(?:rib|bview)\.(\d{8})\.(\d{4})\.(?:bz2|gz)\b")


def months(now: datetime) -> Iterator[str]:
    """The folders to look into: this month's, then the one before."""
    yield f"{now:%Y.%m}"
    yield f"{now.replace(day=1) - timedelta(days=1):%Y.%m}"


def listing_url(base: str, month: str) -> str:
    """The address of a month's folder."""
    return f"{base.rstrip('/')}/{month}/RIBS/"


def newest_rib(names: Iterable[str], now: datetime) -> str | None:
    """The newest RIB's file name; one that may still be written only where there is no other."""
    dated = sorted(
        {
            (at, match[0])
            for text in names
            for match in _NAME.finditer(text)
            if (at := rib_time(match[0])) is not None and at <= now + _AHEAD
        }
    )
    settled = [name for at, name in dated if at <= now - SETTLE]
    if settled:
        return settled[-1]
    return dated[-1][1] if dated else None


def rib_time(name: str) -> datetime | None:
    """The time in a RIB's file name."""
    match = _NAME.search(name)
    if match is None:
        return None
    try:
        return datetime.strptime(match[1] + match[2], "%Y%m%d%H%M").replace(tzinfo=UTC)
    except ValueError:
        return None
