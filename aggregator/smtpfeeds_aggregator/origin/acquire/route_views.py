"""Finds the newest RIB in an archive with the layout of Route Views. Pure: names and dates.

``BASE/YYYY.MM/RIBS/rib.YYYYMMDD.HHMM.bz2``; RIPE RIS names a RIB
``bview.YYYYMMDD.HHMM.gz``. A month's folder exists before its first RIB, so the month
before is searched too.
"""

import re
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Final

#: A RIB appears in the listing while it is still being written.
SETTLE: Final = timedelta(minutes=30)
#: RIBs further in the future are ignored: the archive's or this host's clock is wrong.
_AHEAD: Final = timedelta(days=1)
_NAME: Final = re.compile(r"\b(?:rib|bview)\.(\d{8})\.(\d{4})\.(?:bz2|gz)\b")


def months(now: datetime) -> Iterator[str]:
    """Yield the folders to search: this month's, then the one before."""
    yield f"{now:%Y.%m}"
    yield f"{now.replace(day=1) - timedelta(days=1):%Y.%m}"


def listing_url(base: str, month: str) -> str:
    """Return the URL of a month's folder."""
    return f"{base.rstrip('/')}/{month}/RIBS/"


def newest_rib(names: Iterable[str], now: datetime) -> str | None:
    """Return the newest RIB's file name; take one that may be incomplete only if it is alone."""
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
    """Return the time in a RIB's file name."""
    match = _NAME.search(name)
    if match is None:
        return None
    try:
        return datetime.strptime(match[1] + match[2], "%Y%m%d%H%M").replace(tzinfo=UTC)
    except ValueError:
        return None
