"""Where lists come from, and how they are read into one state.

A list may be in several places: an operator's file, a URL, the package. The reader tries them in
this order. If a URL fails, the list keeps the state that came from it before; without one, the
next place is tried. So the packaged lists are in use from the start, until there is a newer one.
"""

import hashlib
import importlib.metadata
import importlib.util
import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any, Final, Literal
from urllib.parse import urlsplit

from smtpfeeds_common.errors import DatasetError, ListsError, SettingsError

from ...settings import AggregatorSettings, missing
from .catalogue import MISP_NAMES, OPENFILTERS_NAMES, actor_of, is_wanted_of_misp
from .check import check
from .content import MAX_BYTES, Content, parse, version_day
from .model import AddressList, DateRule, ListKind

PACKAGE: Final = "pymispwarninglists"
_PACKAGED: Final = Path("data", "misp-warninglists", "lists")
_LIST_FILE: Final = "list.json"
_GENERATION_DIGITS: Final = 12
#: After this many consecutive failures the rest of an archive is not tried.
MAX_FAILURES: Final = 3

How = Literal["file", "url", "package"]
#: Fetches a URL, given the validators of the known copy; returns the content, or `None` if it
#: is unchanged, and its validators.
Fetch = Callable[[str, Mapping[str, str]], tuple[bytes | None, dict[str, str]]]


@dataclass(frozen=True, slots=True)
class Place:
    """A place that a list can be read from."""

    how: How
    #: A path or a URL.
    at: str
    #: The archive that the list belongs to; see `MAX_FAILURES`.
    archive: str = ""


@dataclass(frozen=True, slots=True)
class Source:
    """A list, and the places to read it from, best first."""

    name: str
    places: tuple[Place, ...]

    def as_json(self) -> dict[str, Any]:
        """Return it as JSON for a child process."""
        return asdict(self)

    @classmethod
    def from_json(cls, content: dict[str, Any]) -> "Source":
        """Read what `as_json` returned."""
        return cls(content["name"], tuple(Place(**place) for place in content["places"]))


def sources_of(settings: AggregatorSettings) -> list[Source]:
    """Return all lists that the settings name.

    Raises:
        SettingsError: two of the operator's files have the same name, or URLs are set without
            a directory to keep what is fetched.
    """
    places: dict[str, list[Place]] = {}
    for path in map(Path, settings.lists_files):
        if path.stem in places:
            raise SettingsError(
                f"lists_files: two files have the name {path.stem}; each list needs a name of its "
                f"own"
            )
        places[path.stem] = [Place("file", str(path))]
    urls = list(_urls(settings))
    if urls and not settings.lists_dir:
        raise missing("lists_dir", "the directory for fetched lists")
    for name, place in urls:
        places.setdefault(name, []).append(place)
    if settings.lists_packaged:
        for path in packaged():
            places.setdefault(path.parent.name, []).append(Place("package", str(path)))
    return [Source(name, tuple(at)) for name, at in sorted(places.items())]


def _urls(settings: AggregatorSettings) -> Iterable[tuple[str, Place]]:
    for url in settings.lists_urls:
        path = Path(urlsplit(url).path)
        yield path.parent.name if path.name == _LIST_FILE else path.stem, Place("url", url, url)
    if base := settings.lists_misp_url.rstrip("/"):
        for name in MISP_NAMES:
            yield name, Place("url", f"{base}/{name}/{_LIST_FILE}", base)
    if base := settings.lists_openfilters_url.rstrip("/"):
        for name in OPENFILTERS_NAMES:
            yield name, Place("url", f"{base}/{name}.txt", base)


def packaged() -> list[Path]:
    """Return the package's lists of scanners and mailers, without importing the package.

    Raises:
        ListsError: the package is not installed.
    """
    spec = importlib.util.find_spec(PACKAGE)
    folders = list(spec.submodule_search_locations or ()) if spec else []
    if not folders:
        raise ListsError(
            f"the package {PACKAGE} is not installed: install smtpfeeds with its extra "
            "aggregator, or set lists_packaged = false"
        )
    paths = (Path(folders[0]) / _PACKAGED).glob(f"*/{_LIST_FILE}")
    return sorted(path for path in paths if is_wanted_of_misp(path.parent.name))


@dataclass(slots=True)
class State:
    """All lists as one refresh read them."""

    lists: list[AddressList] = field(default_factory=list)
    #: The reason, for each place that gave no list.
    refused: dict[str, str] = field(default_factory=dict)
    #: Number of URLs that answered, with a newer list or without.
    answered: int = 0

    @property
    def generation(self) -> str:
        """The stable name of the content; equal lists have the same name."""
        digest = hashlib.sha256()
        for each in self.lists:
            prefixes = " ".join(map(str, each.prefixes))
            digest.update(f"{each.name} {each.kind} {each.actor} {each.day} {prefixes}\n".encode())
        return digest.hexdigest()[:_GENERATION_DIGITS]


class _NotTried(ListsError):
    """The archive failed before."""


class Reader:
    """Reads all sources into one state."""

    def __init__(
        self,
        before: Mapping[str, AddressList],
        today: date,
        *,
        fetch: Fetch | None = None,
        force: bool = False,
    ) -> None:
        """Prepare; `read` reads.

        Args:
            before: the lists of the previous state, by name.
            fetch: fetches URLs; with `None`, lists from URLs keep their previous state.
            force: accept any growth of a list, and an empty one.
        """
        self._before, self._today, self._fetch, self._force = before, today, fetch, force
        self._failures: dict[str, int] = {}
        self._skipped: dict[str, int] = {}
        self._answered = 0
        self._package_day: date | None = None
        self._package = ""

    def read(self, sources: Iterable[Source]) -> State:
        """Read each list from the best place that gives one."""
        sources = list(sources)
        self._look_at_package(sources)
        state = State()
        for source in sources:
            address_list = self._read_source(source, state)
            if address_list is not None:
                state.lists.append(address_list)
        for archive, count in self._skipped.items():
            state.refused[archive] = f"{archive} failed: {count} further lists are not tried"
        state.answered = self._answered
        return state

    def _read_source(self, source: Source, state: State) -> AddressList | None:
        before = self._before.get(source.name)
        for place in source.places:
            if place.how == "url" and self._fetch is None:
                if before is not None and before.source == place.at:
                    return before
                continue
            try:
                return self._read_place(source.name, place, before)
            except DatasetError as exc:
                if not isinstance(exc, _NotTried):
                    state.refused[place.at] = exc.message
                if before is not None and before.source == place.at:
                    return replace(before, refused=exc.message)
        return None

    def _read_place(self, name: str, place: Place, before: AddressList | None) -> AddressList:
        same = before if before is not None and before.source == self._source_of(place) else None
        if place.how == "url":
            raw, facts = self._fetched(place, dict(same.fetched) if same else {})
            if raw is None:
                assert same is not None, "nothing is unchanged without a state before"
                return replace(same, refused="")
        else:
            raw, facts = _file(Path(place.at)), {}
        facts["sha256"] = hashlib.sha256(raw).hexdigest()
        content = parse(raw, place.at)
        actor = actor_of(name)
        stated = content.stated.get("kind", actor.kind)
        kind: ListKind = "mailer" if stated == "mailer" else "scanner"
        entries = len(same.prefixes) if same else None
        prefixes, dropped = check(content, kind, place.at, before=entries, force=self._force)
        day, rule = self._day(content, place, same, facts)
        return AddressList(
            name=name,
            kind=kind,
            actor=name if kind == "mailer" else content.stated.get("actor", actor.actor),
            home=content.stated.get("home", actor.home),
            source=self._source_of(place),
            day=day,
            day_from=rule,
            prefixes=prefixes,
            dropped=dropped,
            fetched=tuple(sorted(facts.items())),
        )

    def _fetched(self, place: Place, known: dict[str, str]) -> tuple[bytes | None, dict[str, str]]:
        assert self._fetch is not None
        if self._failures.get(place.archive, 0) >= MAX_FAILURES:
            self._skipped[place.archive] = self._skipped.get(place.archive, 0) + 1
            raise _NotTried(f"not tried: {place.archive} failed before")
        try:
            raw, facts = self._fetch(place.at, known)
        except DatasetError:
            self._failures[place.archive] = self._failures.get(place.archive, 0) + 1
            raise
        self._failures[place.archive] = 0
        self._answered += 1
        return raw, facts

    def _day(
        self, content: Content, place: Place, same: AddressList | None, facts: dict[str, str]
    ) -> tuple[date, DateRule]:
        """Return the date of a list: its own, the package's, or the day of its last change."""
        if "date" in content.stated:
            return date.fromisoformat(content.stated["date"]), "stated"
        day = version_day(content.stated.get("version", ""), self._today)
        if day is not None:
            return day, "version"
        if place.how == "package" and self._package_day is not None:
            return self._package_day, "package"
        if same is not None and dict(same.fetched).get("sha256") == facts["sha256"]:
            return same.day, "changed"
        if same is None and place.how == "file":
            return _changed_on(Path(place.at)), "changed"
        return self._today, "changed"

    def _look_at_package(self, sources: Iterable[Source]) -> None:
        """Date the package by its newest list, for lists that have a serial number and no date."""
        paths = [p.at for source in sources for p in source.places if p.how == "package"]
        if not paths:
            return
        self._package = f"{PACKAGE} {importlib.metadata.version(PACKAGE)}"
        days = filter(None, (self._version_day(Path(path)) for path in paths))
        self._package_day = max(days, default=None)

    def _version_day(self, path: Path) -> date | None:
        try:
            return version_day(parse(_file(path), str(path)).stated.get("version", ""), self._today)
        except ListsError:
            return None

    def _source_of(self, place: Place) -> str:
        return self._package if place.how == "package" else place.at


def _changed_on(path: Path) -> date:
    return datetime.fromtimestamp(path.stat().st_mtime, UTC).date()


def _file(path: Path) -> bytes:
    try:
        with path.open("rb") as stream:
            return stream.read(MAX_BYTES + 1)
    except OSError as exc:
        raise ListsError(
            f"cannot read the list {path}: {exc.strerror}; check its permissions"
        ) from exc


def write_lists(state: State, out: Path) -> None:
    """Write a generation's file."""
    content = {"lists": [each.as_json() for each in state.lists]}
    out.write_text(json.dumps(content, indent=0, sort_keys=True) + "\n", encoding="utf-8")


def read_lists(path: Path) -> tuple[AddressList, ...]:
    """Read a generation's file.

    Raises:
        ListsError: it is damaged, or another version wrote it.
    """
    try:
        content = json.loads(path.read_bytes())
        return tuple(map(AddressList.from_json, content["lists"]))
    except (OSError, ValueError, KeyError, TypeError) as exc:
        raise ListsError(f"cannot read the lists in {path}: {exc}") from exc
