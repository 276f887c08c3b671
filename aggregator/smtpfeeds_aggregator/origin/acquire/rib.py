"""Fetches the newest RIB of the first archive that has one."""

from pathlib import Path
from typing import Any, NamedTuple

from smtpfeeds_common.errors import OriginError

from ...datasets.directory import Generation
from . import route_views
from .steps import Steps

#: A month's listing has about 400 lines, far below this.
_MAX_LISTING_BYTES = 5_000_000


class Rib(NamedTuple):
    """A RIB or a table to convert."""

    path: Path
    #: A URL or a path, for the manifest.
    source: str
    #: Validators, so that the next fetch notices that the archive has nothing newer.
    fetched: dict[str, Any]


def fetch_newest(steps: Steps, current: Generation | None) -> Rib | None:
    """Fetch the newest RIB of the first archive that has one; `None` if it is in use already.

    Raises:
        OriginError: no archive has one; the message has the reason of each archive.
    """
    reasons = []
    for base in steps.settings.origin_rib_urls:
        try:
            url = _newest(steps, base)
            validators = {}
            if current is not None and current.manifest.get("source") == url and not steps.force:
                validators = current.manifest.get("fetched", {})
            steps.progress(f"fetching {url}")
            target = steps.incoming / f"fetched-{url.rpartition('/')[2]}"
            _remove_stale(steps.incoming, target.name)
            fetched = steps.fetch(
                url,
                target,
                max_bytes=steps.settings.origin_max_download_bytes,
                validators=validators,
            )
        except OriginError as exc:
            if steps.is_stopped():
                raise
            reasons.append(exc.message)
            continue
        if fetched.get("unchanged"):
            return None
        kept = {key: fetched[key] for key in ("etag", "last_modified", "bytes")}
        return Rib(target, url, kept)
    raise OriginError("; ".join(reasons) or "origin_rib_urls is empty: set an archive")


def _remove_stale(incoming: Path, name: str) -> None:
    """Remove partial files of other RIBs; only one of the same file can be resumed."""
    for stale in incoming.glob("fetched-*"):
        if not stale.name.startswith(name):
            stale.unlink(missing_ok=True)


def _newest(steps: Steps, base: str) -> str:
    """Return the URL of an archive's newest RIB in this month's folder or the one before."""
    reason = "no RIB in this month's folder or the one before"
    for month in route_views.months(steps.now):
        url = route_views.listing_url(base, month)
        target = steps.incoming / "listing.html"
        for stale in steps.incoming.glob("listing.html*"):
            stale.unlink(missing_ok=True)
        try:
            steps.fetch(url, target, max_bytes=_MAX_LISTING_BYTES)
        except OriginError as exc:
            reason = exc.message
            continue
        name = route_views.newest_rib([target.read_text("utf-8", errors="replace")], steps.now)
        if name:
            return url + name
    raise OriginError(f"{base} offers no RIB: {reason}")
