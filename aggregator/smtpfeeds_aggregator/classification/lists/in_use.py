"""The lists of a running program: one current table, kept up to date.

`load` runs once, then `run` on its own thread. It notices another generation or a changed file
of the operator, loads it, and then swaps one reference. With `lists_dir` every change is a new
generation there; without it, the package and the operator's files are read into memory. Lists
that cannot be used are logged once, and the lists in use stay.
"""

import logging
import threading
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from smtpfeeds_common.errors import ListsError
from smtpfeeds_common.logs import fields

from ...datasets.directory import DatasetDirectory, Generation
from ...datasets.in_use import DatasetInUse
from ...settings import AggregatorSettings
from .refresh import LISTS, directory_of, refresh, schedule_of
from .sources import Reader, State, read_lists, sources_of
from .table import ListTable

logger: Final = logging.getLogger(__name__)

#: How often it checks for another generation or changed files.
WATCH_S: Final = 10.0
_NO_LISTS: Final = ListTable((), "none")


class ListSource(DatasetInUse):
    """The current lists that the settings name."""

    def __init__(self, settings: AggregatorSettings) -> None:
        """Read the settings; `load` loads the lists.

        Raises:
            SettingsError: the settings contradict each other.
        """
        directory = directory_of(settings.lists_dir) if settings.lists_dir else None
        super().__init__("lists", WATCH_S, directory, schedule_of(settings))
        self._settings = settings
        self._sources = sources_of(settings)
        self._files = [Path(path) for path in settings.lists_files]
        self._current = _NO_LISTS
        self._target: str | None = None
        #: The status of the files when they were last checked; `None` before that.
        self._files_seen: object = None
        self._refused = ""

    @property
    def current(self) -> ListTable:
        """The lists in use; take the table once for look-ups that must agree."""
        return self._current

    @property
    def generation(self) -> str:
        return self._current.generation

    def load(self) -> None:
        """Load the generation in use, or the lists on this host if there is none yet.

        Raises:
            ListsError: an operator's file cannot be used.
        """
        if self._directory is not None and self._load_any_generation(self._directory):
            return
        seen = self._look_at_files()
        state = self._read_local()
        for place, reason in state.refused.items():
            if place in self._settings.lists_files:
                raise ListsError(reason)
            logger.warning("list refused", extra=fields(reason=reason))
        self._take(ListTable(state.lists, state.generation))
        if self._directory is None or not self._files:
            self._files_seen = seen

    def look_again(self, stop: threading.Event | None = None) -> bool:
        """Take another generation or changed files; return whether the lists changed."""
        before = self._current
        try:
            seen = self._look_at_files()
            if self._directory is None:
                if seen != self._files_seen:
                    self._files_seen = seen
                    self._take_local()
            else:
                if seen != self._files_seen:
                    refresh(self._settings, fetch=False, stop=stop)
                    self._files_seen = seen
                if self._directory.target() != self._target:
                    self._load_current(self._directory)
            self._refused = ""
        except ListsError as exc:
            if stop is None or not stop.is_set():
                self._log_refused(exc.message)
        return self._current is not before

    def _refresh(self, stop: threading.Event | None, now: datetime) -> dict[str, Any]:
        outcome = refresh(self._settings, stop=stop, now=now)
        return {
            "generation": outcome.generation,
            "unchanged": outcome.unchanged,
            "refused": len(outcome.refused),
        }

    def _look_at_files(self) -> object:
        """Return a value that changes when an operator's file does."""
        seen: list[tuple[int, ...]] = []
        for path in self._files:
            try:
                status = path.stat()
            except OSError:
                seen.append(())
            else:
                seen.append((status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns))
        return tuple(seen)

    def _load_any_generation(self, directory: DatasetDirectory) -> bool:
        """Load the current generation, or another one if it is damaged."""
        try:
            return self._load_current(directory)
        except ListsError as exc:
            reason = exc.message
        for generation in directory.others():
            with suppress(ListsError):
                self._take(_table_of(generation))
                logger.error(
                    "lists damaged; older ones are in use",
                    extra=fields(reason=reason, generation=generation.name),
                )
                return True
        logger.error("lists damaged; the packaged ones are in use", extra=fields(reason=reason))
        return False

    def _load_current(self, directory: DatasetDirectory) -> bool:
        target, generation = directory.target(), directory.current()
        if generation is None:
            return False
        self._take(_table_of(generation))
        self._target = target
        return True

    def _read_local(self) -> State:
        """Read the package and the operator's files; a refused list keeps its previous state."""
        before = {each.name: each for each in self._current.lists}
        return Reader(before, datetime.now(UTC).date()).read(self._sources)

    def _take_local(self) -> None:
        state = self._read_local()
        self._take(ListTable(state.lists, state.generation))
        if state.refused:
            raise ListsError("; ".join(state.refused.values()))

    def _log_refused(self, reason: str) -> None:
        if reason != self._refused:
            logger.error(
                "lists refused; those in use stay",
                extra=fields(reason=reason, generation=self._current.generation),
            )
        self._refused = reason

    def _take(self, table: ListTable) -> None:
        self._current = table
        logger.info(
            "lists in use",
            extra=fields(
                generation=table.generation,
                lists=len(table.lists),
                entries=sum(len(each.prefixes) for each in table.lists),
            ),
        )


def _table_of(generation: Generation) -> ListTable:
    return ListTable(read_lists(generation.check(LISTS)), generation.name)
