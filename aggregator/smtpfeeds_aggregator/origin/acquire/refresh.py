"""A new origin table: found, fetched, converted, checked, and only then put in use.

Joins the parts. Fetching, converting, reading names and compiling each run in a
child process with a time limit. Whatever is off, the table in use stays, the
reason is raised once and kept for `origin status`; `force` overrides the checks
of the finished table, never those of whether it could be read at all.

Longer than a module should be: the steps of one refresh, each short, share one
folder, one lock and one report; parted, the order in which they undo each other
could not be read in one place.
"""

import contextlib
import logging
import random
import shutil
import threading
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

from smtpfeeds_aggregator.settings import AggregatorSettings
from smtpfeeds_common import __version__
from smtpfeeds_common.errors import OriginError
from smtpfeeds_common.logs import fields
from smtpfeeds_common.times import iso_utc

from ..shelf import INDEX, NAMES, TABLE, Generation, Shelf
from ..table.in_memory import EMPTY, OriginTable
from ..table.load import generation_name, sha256_of
from . import local, validate
from . import route_views as routeviews
from .children import run_child

logger: Final = logging.getLogger(__name__)

#: A month's listing has 400 lines.
_MAX_LISTING_BYTES: Final = 5_000_000
_MAX_NAMES_BYTES: Final = 100_000_000
#: A schedule never asks more often, whatever the setting says.
MIN_INTERVAL_S: Final = 3600
#: After a failure: again after this, twice as long after each further one.
_RETRY_S: Final = 3600
#: The first refresh of a program that has just begun lets the rest begin first.
_FIRST_S: Final = 60

Progress = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a refresh did."""

    generation: str
    #: The same table and names as before: nothing was put in use.
    unchanged: bool
    manifest: dict[str, Any]
    #: What spoke against the table and was overridden.
    overridden: tuple[str, ...] = ()


@dataclass
class _Work:
    """What the steps of one refresh share."""

    settings: AggregatorSettings
    shelf: Shelf
    bounds: validate.Bounds
    now: datetime
    force: bool
    stop: threading.Event | None
    progress: Progress
    made: Path = field(init=False)

    def __post_init__(self) -> None:
        self.made = self.shelf.incoming / "new"

    def child(self, command: str, timeout_s: float, **arguments: Any) -> dict[str, Any]:
        """Run a step in a child process."""
        fds = (arguments["fd"],) if "fd" in arguments else ()
        return run_child(
            command,
            arguments,
            timeout_s=timeout_s,
            pass_fds=fds,
            stop=self.stop,
            progress=self.progress,
        )

    def fetch(self, url: str, target: Path, **limits: Any) -> dict[str, Any]:
        """Fetch one file in a child process."""
        settings = self.settings
        return self.child(
            "fetch",
            settings.origin_fetch_timeout_s,
            url=url,
            target=str(target),
            user_agent=settings.origin_user_agent or f"smtpfeeds/{__version__} (origin refresh)",
            stall_s=settings.origin_stall_timeout_s,
            allow_http=settings.origin_allow_http,
            **limits,
        )


def refresh(
    settings: AggregatorSettings,
    *,
    source: Path | None = None,
    names: Path | None = None,
    force: bool = False,
    stop: threading.Event | None = None,
    progress: Progress = lambda _: None,
    now: datetime | None = None,
) -> Outcome:
    """Make a new generation in `origin_dir`, from the network or from local files.

    What is brought by hand leaves the schedule of what is fetched alone, whether it passes or not.

    Args:
        source: a RIB or table, or a directory to find the newest one in; nothing is fetched.
        names: a list of AS names to go with it.
        force: put it in use whatever the checks say.

    Raises:
        OriginError: the table in use stays; the reason is kept for `origin status`.
    """
    if not settings.origin_dir:
        raise OriginError("origin_dir is not set: name the directory where origin tables are kept")
    shelf = Shelf(Path(settings.origin_dir))
    bounds = validate.bounds_of(settings)
    at = now or datetime.now(UTC)
    with shelf.locked():
        if source is None:
            shelf.note(last_attempt=iso_utc(at))
        work = _Work(settings, shelf, bounds, at, force, stop, progress)
        try:
            shelf.clear_incoming()
            work.made.mkdir()
            outcome = _refresh(work, source, names)
        except OSError as exc:
            reason = f"cannot work in {shelf.incoming}: {exc.strerror}"
            _failed(shelf, at, reason, scheduled=source is None)
            raise OriginError(reason) from exc
        except OriginError as exc:
            _failed(shelf, at, exc.message, scheduled=source is None)
            raise
        finally:
            shutil.rmtree(work.made, ignore_errors=True)
        shelf.note(last_success=iso_utc(at))
        if source is None:
            shelf.note(failures=0)
        return outcome


def _refresh(work: _Work, source: Path | None, names: Path | None) -> Outcome:
    """The steps, in order; the lock is held."""
    current = _current(work.shelf)
    if source is None:
        got = _fetch_rib(work, current)
        if got is None:
            assert current is not None
            return _unchanged(work, current)
        path, origin, fetched = got
    else:
        path, found_names = local.find(source)
        names = names or found_names
        origin, fetched = str(path), {}
    try:
        counts = _convert(work, path)
    finally:
        if source is None:
            path.unlink(missing_ok=True)
    names_source = (
        _fetch_names(work, current) if source is None else _local_names(work, names, current)
    )
    table_sha, names_sha = sha256_of(work.made / TABLE), sha256_of(work.made / NAMES)
    generation = generation_name(table_sha, names_sha)
    if current is not None and generation == current.name and not work.force:
        return _unchanged(work, current)
    _refuse_rolled_back(work, generation)
    facts = {"source": origin, "table_time": counts["table_time"], "generation": generation}
    table, compiled = _compile(work, facts)
    against = tuple(_complaints(work, table, current))
    if against and not work.force:
        raise OriginError(
            f"the new table from {origin} is not used, the old one stays: {'; '.join(against)} "
            "(if this is right, put it in use with --force)"
        )
    manifest = {
        "made_at": iso_utc(work.now),
        "names_source": names_source,
        "fetched": fetched,
        "conversion": counts,
        "overridden": against,
        "sha256": {TABLE: table_sha, NAMES: names_sha, INDEX: sha256_of(work.made / INDEX)},
        **compiled,
    }
    work.shelf.put(work.made, manifest, work.now)
    work.shelf.note(rolled_back=None)
    return Outcome(generation, unchanged=False, manifest=manifest, overridden=against)


def _unchanged(work: _Work, current: Generation) -> Outcome:
    """Nothing new: fine, unless the archive has stood still for too long."""
    at = _time(current.manifest.get("table_time"))
    if at is not None and work.now - at > work.bounds.max_age and not work.force:
        raise OriginError(
            f"there is nothing newer than the table in use, which is of {at:%Y-%m-%d}, more than "
            f"{work.bounds.max_age.days} days old: check whether the archive is kept up"
        )
    return Outcome(current.name, unchanged=True, manifest=current.manifest)


def _fetch_rib(work: _Work, current: Generation | None) -> tuple[Path, str, dict[str, Any]] | None:
    """Fetch the newest RIB of the first archive that has one; `None`: it is the one in use."""
    reasons = []
    for base in work.settings.origin_rib_urls:
        try:
            url = _newest(work, base)
            validators = {}
            if current is not None and current.manifest.get("source") == url and not work.force:
                validators = current.manifest.get("fetched", {})
            work.progress(f"fetching {url}")
            target = work.shelf.incoming / f"fetched-{url.rpartition('/')[2]}"
            for stale in work.shelf.incoming.glob("fetched-*"):
                if not stale.name.startswith(target.name):
                    stale.unlink(missing_ok=True)
            got = work.fetch(
                url,
                target,
                max_bytes=work.settings.origin_max_download_bytes,
                validators=validators,
            )
        except OriginError as exc:
            if work.stop is not None and work.stop.is_set():
                raise
            reasons.append(exc.message)
            continue
        if got.get("unchanged"):
            return None
        return target, url, {key: got[key] for key in ("etag", "last_modified", "bytes")}
    raise OriginError("; ".join(reasons) or "origin_rib_urls is empty: name an archive")


def _newest(work: _Work, base: str) -> str:
    """The address of an archive's newest RIB; an empty month sends to the one before."""
    reason = "no RIB in this month's folder or the one before"
    for month in routeviews.months(work.now):
        url = routeviews.listing_url(base, month)
        target = work.shelf.incoming / "listing.html"
        for stale in work.shelf.incoming.glob("listing.html*"):
            stale.unlink(missing_ok=True)
        try:
            work.fetch(url, target, max_bytes=_MAX_LISTING_BYTES)
        except OriginError as exc:
            reason = exc.message
            continue
        name = routeviews.newest_rib([target.read_text("utf-8", errors="replace")], work.now)
        if name:
            return url + name
    raise OriginError(f"{base} offers no RIB: {reason}")


def _convert(work: _Work, path: Path) -> dict[str, Any]:
    """Convert to the new generation's table, and say how much of it could be read."""
    counts = work.child(
        "convert",
        work.settings.origin_convert_timeout_s,
        source=str(path),
        out=str(work.made / TABLE),
        max_bytes=work.settings.origin_max_unpacked_bytes,
        allow_reserved=work.settings.origin_allow_reserved,
    )
    if counts["bad_records"] > work.settings.origin_max_bad_records:
        raise OriginError(
            f"{path.name}: {counts['bad_records']} records give no prefix and origin, more than "
            f"origin_max_bad_records ({work.settings.origin_max_bad_records}) allows; "
            f"the first: {counts['first_bad']}"
        )
    if not counts["prefixes4"] + counts["prefixes6"]:
        raise OriginError(
            f"{path.name} holds no usable prefix: {counts['records']} records, left out: "
            + ", ".join(f"{why} {count}" for why, count in counts["left_out"].items())
            + _reserved_hint(counts["left_out"])
        )
    return counts


def _reserved_hint(left_out: Mapping[str, int]) -> str:
    if not left_out.get("reserved_asn") and not left_out.get("bogon"):
        return ""
    return "; for the prefixes or ASNs of a private network set origin_allow_reserved = true"


def _fetch_names(work: _Work, current: Generation | None) -> str:
    """Take the first list that is fit; else the names in use. Stale names stop no fresh table."""
    for url in work.settings.origin_names_urls:
        target = work.shelf.incoming / "names"
        try:
            work.progress(f"fetching {url}")
            work.fetch(url, target, max_bytes=_MAX_NAMES_BYTES)
            return _take_names(work, target, url, work.settings.origin_min_names)
        except OriginError as exc:
            if work.stop is not None and work.stop.is_set():
                raise
            logger.warning("list of AS names refused", extra=fields(reason=exc.message))
            work.progress(f"AS names refused: {exc.message}")
        finally:
            for stale in work.shelf.incoming.glob("names*"):
                stale.unlink(missing_ok=True)
    return _local_names(work, None, current)


def _local_names(work: _Work, names: Path | None, current: Generation | None) -> str:
    """Names of a file that was given, of the settings, or of the generation in use."""
    path = names or (Path(work.settings.as_names) if work.settings.as_names else None)
    if path is not None:
        return _take_names(work, path, str(path), 0)
    if current is not None:
        with contextlib.suppress(OriginError):
            shutil.copyfile(current.check(NAMES), work.made / NAMES)
            return str(current.manifest["names_source"])
    work.child("no_names", work.settings.origin_load_timeout_s, out=str(work.made / NAMES))
    return "none"


def _take_names(work: _Work, path: Path, source: str, least: int) -> str:
    timeout_s = work.settings.origin_load_timeout_s
    count = work.child("names", timeout_s, source=str(path), out=str(work.made / NAMES))["names"]
    if count < least:
        raise OriginError(f"{source} has {count} AS names, fewer than {least}: not used")
    return source


def _compile(work: _Work, facts: dict[str, Any]) -> tuple[OriginTable, dict[str, Any]]:
    """Compile the index beside the table, and open it as it will be opened in use."""
    with (work.made / INDEX).open("w+b") as out:
        compiled = work.child(
            "compile",
            work.settings.origin_load_timeout_s,
            table=str(work.made / TABLE),
            names=str(work.made / NAMES),
            names_cleaned=True,
            fd=out.fileno(),
            facts=facts,
        )
    shas = {INDEX: sha256_of(work.made / INDEX)}
    opened = Generation(work.made, {"generation": facts["generation"], "sha256": shas}).open()
    return opened, compiled


def _complaints(work: _Work, table: OriginTable, current: Generation | None) -> Iterable[str]:
    old = EMPTY
    if current is not None:
        try:
            old = current.open()
        except OriginError as exc:
            work.progress(f"the table in use cannot be compared with: {exc.message}")
    return validate.complaints(table, old, work.bounds, work.now)


def _refuse_rolled_back(work: _Work, generation: str) -> None:
    if not work.force and work.shelf.status().get("rolled_back") == generation:
        raise OriginError(
            f"the table {generation} was rolled back: it is taken again only with --force"
        )


def _current(shelf: Shelf) -> Generation | None:
    try:
        return shelf.current()
    except OriginError:
        return None


def _failed(shelf: Shelf, now: datetime, reason: str, *, scheduled: bool) -> None:
    shelf.note(last_failure={"time": iso_utc(now), "reason": reason})
    if scheduled:
        shelf.note(failures=int(shelf.status().get("failures") or 0) + 1)


def roll_back(settings: AggregatorSettings) -> Generation:
    """Put the generation before in use; the one in use is not taken again unless forced.

    Raises:
        OriginError: there is none.
    """
    shelf = Shelf(Path(settings.origin_dir))
    with shelf.locked():
        left = _current(shelf)
        generation = shelf.roll_back()
        shelf.note(rolled_back=left.name if left else None)
        return generation


def next_refresh(
    settings: AggregatorSettings, status: dict[str, Any], begun: datetime
) -> datetime | None:
    """When the next refresh is due: all programs of one directory come to the same answer.

    Args:
        begun: when this program began; the first refresh is a while after it.
    """
    if not settings.origin_refresh_interval_s or not settings.origin_dir:
        return None
    interval = max(MIN_INTERVAL_S, settings.origin_refresh_interval_s)
    first = begun + timedelta(seconds=_FIRST_S)
    last = _time(status.get("last_attempt"))
    if last is None:
        return first
    failures = int(status.get("failures") or 0)
    wait = min(interval, _RETRY_S * 2 ** min(failures - 1, 10)) if failures else interval
    # The same for all who share the directory, another after each attempt.
    jitter = random.Random(f"{settings.origin_dir}{last}").random()  # noqa: S311 - no secret
    due = last + timedelta(seconds=wait + jitter * settings.origin_refresh_jitter_s)
    return max(first, due)


def _time(text: object) -> datetime | None:
    try:
        return datetime.fromisoformat(str(text))
    except ValueError:
        return None
