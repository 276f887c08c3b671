"""Compare a publication's numbers with the previous edition's, and refuse a sudden change.

A database restored from an old dump, a purge of the wrong sensor, or a sensor that counts
everything twice gives files in a correct format. Addresses left out by settings or exclusions are
counted too, so leaving out a large network is not suspicious.
"""

from collections.abc import Mapping
from datetime import datetime, timedelta
from pathlib import Path
from typing import Final

import msgspec

from smtpfeeds_common.errors import PublishError
from smtpfeeds_common.feeds import FEED_NAMES, WINDOW_DAYS

from ..settings import AggregatorSettings

#: Feeds with fewer addresses, before and now, change by chance.
_MANY: Final = 100
#: The window of an older edition does not overlap with a window that ends now.
_COMPARED: Final = timedelta(days=WINDOW_DAYS)


class SuspiciousFeeds(PublishError):
    """The numbers are too far from those of the previous edition; nothing was published."""


class _Manifest(msgspec.Struct):
    generated: datetime
    files: dict[str, dict[str, object]]
    left_out: dict[str, dict[str, int]]


def check_change(
    settings: AggregatorSettings, before: Path, addresses: Mapping[str, int], now: datetime
) -> None:
    """Compare the addresses of each feed with those of the previous edition, if any.

    Args:
        settings: how much change is allowed.
        before: the manifest of the previous edition.
        addresses: how many addresses of each feed are in the window, including those left out.
        now: the time of this publication.

    Raises:
        SuspiciousFeeds: a feed fell or rose by more than allowed.
    """
    try:
        manifest = msgspec.json.decode(before.read_bytes(), type=_Manifest)
    except (FileNotFoundError, NotADirectoryError, ValueError):
        return  # nothing to compare with, or an edition of another version
    if now - manifest.generated > _COMPARED:
        return
    for feed in FEED_NAMES:
        reason = _suspicion(settings, _addresses(manifest, feed), addresses[feed])
        if reason:
            raise SuspiciousFeeds(
                f"{feed}: {reason}; the last good feeds stay. If the numbers are right, run "
                "`smtpfeeds publish now --force`"
            )


def _addresses(manifest: _Manifest, feed: str) -> int:
    published = manifest.files.get(f"{feed}.txt", {}).get("addresses", 0)
    assert isinstance(published, int)
    return published + sum(manifest.left_out.get(feed, {}).values())


def _suspicion(settings: AggregatorSettings, before: int, now: int) -> str:
    """Return why a number of addresses is suspicious after another; empty if it is not."""
    if max(before, now) < _MANY or not before:
        return ""
    if now == 0:
        return f"no address, after {before} in the previous edition"
    percent = 100 * (now - before) / before
    if -percent > settings.publish_max_drop_percent:
        return (
            f"{now} addresses after {before}, a drop of {-percent:.0f} percent; "
            f"publish_max_drop_percent allows {settings.publish_max_drop_percent:g}"
        )
    if before >= _MANY and percent > settings.publish_max_rise_percent:
        return (
            f"{now} addresses after {before}, a rise of {percent:.0f} percent; "
            f"publish_max_rise_percent allows {settings.publish_max_rise_percent:g}"
        )
    return ""
