"""Makes a new generation of lists: reads and checks every source, and puts all in use together.

A source that fails does not affect the others: its list keeps its previous state, or comes from
the list's next place.
"""

import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from smtpfeeds_common import __version__
from smtpfeeds_common.errors import ListsError
from smtpfeeds_common.times import iso_utc

from ...datasets.child_process import ChildProgram
from ...datasets.directory import DatasetDirectory, Generation, Kind, sha256_of
from ...datasets.schedule import Schedule
from ...settings import AggregatorSettings, missing
from .sources import Source, sources_of

KIND: Final = Kind("set of lists", "lists_dir", "smtpfeeds lists", ListsError)
CHILD: Final = ChildProgram(
    "smtpfeeds_aggregator.classification.lists.child", KIND.noun, ListsError
)
LISTS: Final = "lists.json"
#: A read that stalls for this long fails.
_STALL_S: Final = 20
#: Reading the files of this host takes about a second.
_LOCAL_LIMIT_S: Final = 120


@dataclass(frozen=True, slots=True)
class Outcome:
    """The result of a refresh."""

    generation: str
    #: The lists are the same as before, so no generation was added.
    unchanged: bool
    lists: int
    entries: int
    #: The reason, for each place that gave no list.
    refused: dict[str, str]


def directory_of(lists_dir: str) -> DatasetDirectory:
    """Return the directory of lists that the setting names."""
    return DatasetDirectory(KIND, Path(lists_dir))


def schedule_of(settings: AggregatorSettings) -> Schedule:
    """Return how often `lists_dir` is refreshed."""
    return Schedule(
        settings.lists_dir, settings.lists_refresh_interval_s, settings.lists_refresh_jitter_s
    )


def refresh(
    settings: AggregatorSettings,
    *,
    fetch: bool = True,
    force: bool = False,
    stop: threading.Event | None = None,
    progress: Callable[[str], None] = lambda _: None,
    now: datetime | None = None,
) -> Outcome:
    """Make a new generation in `lists_dir`.

    Args:
        fetch: fetch from URLs too; otherwise only read files and the package again, and leave
            the schedule alone.
        force: use lists that grew or became empty, and a generation that was rolled back.

    Raises:
        SettingsError: `lists_dir` is not set.
        ListsError: it failed; the lists in use stay, and `lists status` shows the reason.
    """
    if not settings.lists_dir:
        raise missing("lists_dir", "the directory for lists")
    sources = sources_of(settings)
    directory = directory_of(settings.lists_dir)
    at = now or datetime.now(UTC)
    with directory.refreshing(at, scheduled=fetch) as partial:
        current = directory.readable_current()
        result = CHILD.run(
            "read",
            {
                "sources": [source.as_json() for source in sources],
                "before": _before(current),
                "out": str(partial / LISTS),
                "today": at.astimezone(UTC).date().isoformat(),
                "force": force,
                "fetch": _fetch_options(settings, directory.incoming) if fetch else {},
            },
            timeout_s=settings.lists_fetch_timeout_s if fetch else _LOCAL_LIMIT_S,
            stop=stop,
            progress=progress,
        )
        directory.note(refused=result["refused"])
        outcome = _put(directory, partial, current, result, at, force=force)
        if fetch and not result["answered"] and _has_urls(sources):
            reason = next(iter(result["refused"].values()))
            raise ListsError(f"no source of lists answers; the lists in use stay: {reason}")
        return outcome


def _put(
    directory: DatasetDirectory,
    partial: Path,
    current: Generation | None,
    result: dict[str, Any],
    at: datetime,
    *,
    force: bool,
) -> Outcome:
    generation = result["generation"]
    unchanged = current is not None and generation == current.name
    if not result["lists"]:
        reasons = "; ".join(result["refused"].values()) or "no source is set"
        raise ListsError(f"there is no list to use: {reasons}")
    if not unchanged:
        if not force:
            directory.refuse_rolled_back(generation)
        manifest = {
            "generation": generation,
            "made_at": iso_utc(at),
            "lists": result["lists"],
            "entries": result["entries"],
            "sha256": {LISTS: sha256_of(partial / LISTS, ListsError)},
        }
        directory.put(partial, manifest, at)
    return Outcome(
        generation, unchanged, result["lists"], result["entries"], dict(result["refused"])
    )


def _has_urls(sources: Iterable[Source]) -> bool:
    return any(place.how == "url" for source in sources for place in source.places)


def _before(current: Generation | None) -> str:
    """Return the file of the lists in use; empty if it is missing or damaged."""
    if current is None:
        return ""
    try:
        return str(current.check(LISTS))
    except ListsError:
        return ""


def _fetch_options(settings: AggregatorSettings, folder: Path) -> dict[str, Any]:
    return {
        "folder": str(folder),
        "user_agent": settings.origin_user_agent or f"smtpfeeds/{__version__} (lists refresh)",
        "stall_s": _STALL_S,
        "allow_http": settings.lists_allow_http,
        "http_setting": "lists_allow_http",
    }
