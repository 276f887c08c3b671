"""Makes a new origin table: fetches, converts and checks it before it is put in use.

Fetching, converting, reading names and compiling each run in a child process with a time
limit. If a step fails, the table in use stays, the reason is raised, and `origin status` shows
it. `force` overrides the checks of the finished table, but not errors in reading it.
"""

import threading
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from smtpfeeds_common.errors import OriginError
from smtpfeeds_common.times import iso_utc

from ...datasets.directory import DatasetDirectory, Generation, sha256_of
from ...datasets.schedule import Schedule, parse_time
from ...settings import AggregatorSettings, missing
from ..generation import INDEX, NAMES, TABLE, directory_of, generation_name, open_index, open_table
from ..table.in_memory import EMPTY, OriginTable
from . import local, validate
from .names_source import fetch_names, local_names
from .rib import Rib, fetch_newest
from .steps import Progress, Steps


@dataclass(frozen=True, slots=True)
class Outcome:
    """The result of a refresh."""

    generation: str
    #: Table and names are the same as before, so no generation was added.
    unchanged: bool
    manifest: dict[str, Any]
    #: The objections that `force` overrode.
    overridden: tuple[str, ...] = ()


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

    An import from local files does not affect the schedule of fetches, even if it fails.

    Args:
        source: a RIB or table, or a directory to find the newest one in; nothing is fetched.
        names: a list of AS names to use with it.
        force: put the table in use even if its checks fail.

    Raises:
        SettingsError: `origin_dir` is not set.
        OriginError: it failed; the table in use stays, and `origin status` shows the reason.
    """
    if not settings.origin_dir:
        raise missing("origin_dir", "the directory for origin tables")
    directory = directory_of(settings.origin_dir)
    bounds = validate.bounds_of(settings)
    at = now or datetime.now(UTC)
    with directory.refreshing(at, scheduled=source is None) as partial:
        steps = Steps(settings, directory.incoming, partial, at, force, stop, progress)
        current = directory.readable_current()
        return _Refresh(steps, directory, bounds, current).run(source, names)


def schedule_of(settings: AggregatorSettings) -> Schedule:
    """Return how often `origin_dir` is refreshed."""
    return Schedule(
        settings.origin_dir, settings.origin_refresh_interval_s, settings.origin_refresh_jitter_s
    )


@dataclass(frozen=True, slots=True)
class _Refresh:
    """The steps of a refresh, in order; the caller holds the lock."""

    steps: Steps
    directory: DatasetDirectory
    bounds: validate.Bounds
    current: Generation | None

    def run(self, source: Path | None, names: Path | None) -> Outcome:
        steps, current = self.steps, self.current
        if source is None:
            newest = fetch_newest(steps, current)
            if newest is None:
                assert current is not None
                return self._unchanged(current)
            rib = newest
        else:
            path, names_beside = local.find(source)
            names = names or names_beside
            rib = Rib(path, str(path), {})
        try:
            counts = self._convert(rib.path)
        finally:
            if source is None:
                rib.path.unlink(missing_ok=True)
        names_source = (
            fetch_names(steps, current) if source is None else local_names(steps, names, current)
        )
        return self._put(rib, counts, names_source)

    def _put(self, rib: Rib, counts: dict[str, Any], names_source: str) -> Outcome:
        """Compile and check the converted table; put it in use unless it is in use already."""
        partial, current = self.steps.partial, self.current
        shas = {name: sha256_of(partial / name, OriginError) for name in (TABLE, NAMES)}
        generation = generation_name(shas[TABLE], shas[NAMES])
        if current is not None and generation == current.name and not self.steps.force:
            return self._unchanged(current)
        if not self.steps.force:
            self.directory.refuse_rolled_back(generation)
        facts = {
            "source": rib.source,
            "table_time": counts["table_time"],
            "generation": generation,
        }
        table, compiled = self._compile(facts)
        objections = tuple(validate.objections(table, self._in_use(), self.bounds, self.steps.now))
        if objections and not self.steps.force:
            raise OriginError(
                f"the new table from {rib.source} is not used, the old one stays: "
                f"{'; '.join(objections)} (if this is right, put it into use with --force)"
            )
        shas[INDEX] = sha256_of(partial / INDEX, OriginError)
        manifest = {
            "made_at": iso_utc(self.steps.now),
            "names_source": names_source,
            "fetched": rib.fetched,
            "conversion": counts,
            "overridden": objections,
            "sha256": shas,
            **compiled,
        }
        self.directory.put(partial, manifest, self.steps.now)
        return Outcome(generation, unchanged=False, manifest=manifest, overridden=objections)

    def _unchanged(self, current: Generation) -> Outcome:
        """Return that nothing is new, or raise if the table in use has become too old."""
        at, max_age = parse_time(current.manifest.get("table_time")), self.bounds.max_age
        if at is not None and self.steps.now - at > max_age and not self.steps.force:
            raise OriginError(
                f"the archive has nothing newer than the table in use, which is from "
                f"{at:%Y-%m-%d}, more than {max_age.days} days old: check whether the archive is "
                f"still updated"
            )
        return Outcome(current.name, unchanged=True, manifest=current.manifest)

    def _convert(self, path: Path) -> dict[str, Any]:
        """Convert to the new generation's table; return the counts."""
        settings = self.steps.settings
        counts = self.steps.child(
            "convert",
            settings.origin_convert_timeout_s,
            source=str(path),
            out=str(self.steps.partial / TABLE),
            max_bytes=settings.origin_max_unpacked_bytes,
            allow_reserved=settings.origin_allow_reserved,
        )
        if counts["bad_records"] > settings.origin_max_bad_records:
            raise OriginError(
                f"{path.name}: {_unreadable(counts)}; origin_max_bad_records allows "
                f"{settings.origin_max_bad_records}"
            )
        if not counts["prefixes4"] + counts["prefixes6"]:
            raise OriginError(
                f"{path.name} has no usable prefix: {counts['records']} records were read"
                + _left_out(counts["left_out"])
                + (f"; {_unreadable(counts)}" if counts["bad_records"] else "")
                + _reserved_hint(counts["left_out"])
            )
        return counts

    def _compile(self, facts: dict[str, Any]) -> tuple[OriginTable, dict[str, Any]]:
        """Compile the index beside the table, and open it as a running program would."""
        partial = self.steps.partial
        with (partial / INDEX).open("w+b") as out:
            compiled = self.steps.child(
                "compile",
                self.steps.settings.origin_load_timeout_s,
                table=str(partial / TABLE),
                names=str(partial / NAMES),
                names_cleaned=True,
                fd=out.fileno(),
                facts=facts,
            )
        return open_index(partial / INDEX), compiled

    def _in_use(self) -> OriginTable:
        """Return the table in use, to compare with; empty if there is none."""
        if self.current is not None:
            try:
                return open_table(self.current)
            except OriginError as exc:
                self.steps.progress(f"the table in use cannot be compared with: {exc.message}")
        return EMPTY


def _unreadable(counts: Mapping[str, Any]) -> str:
    """Describe how many records could not be read, and why."""
    by_count = sorted(counts["unreadable"].items(), key=lambda item: -item[1])
    reasons = ", ".join(f"{count:,} {reason}" for reason, count in by_count)
    return (
        f"{counts['bad_records']:,} records could not be read ({reasons}; "
        f"the first is {counts['first_bad']})"
    )


def _left_out(left_out: Mapping[str, int]) -> str:
    counted = ", ".join(f"{count} {why}" for why, count in left_out.items() if count)
    return f", left out: {counted}" if counted else ""


def _reserved_hint(left_out: Mapping[str, int]) -> str:
    if not left_out.get("reserved_asn") and not left_out.get("bogon"):
        return ""
    return "; for the prefixes or ASNs of a private network set origin_allow_reserved = true"
