"""The origin table of a running program: one current table, kept up to date.

`load` runs once, then `run` on its own thread. It notices a new table, loads it, and
then swaps one reference; with `origin_dir` it also refreshes that directory on its
schedule. Code that has a reference to the old table can still use it. A table that
cannot be used is logged once, and the one in use stays.
"""

import logging
import threading
from datetime import datetime
from pathlib import Path
from typing import Any, Final

from smtpfeeds_aggregator.settings import AggregatorSettings
from smtpfeeds_common.errors import OriginError
from smtpfeeds_common.logs import fields

from ..datasets.directory import DatasetDirectory, Generation
from ..datasets.in_use import DatasetInUse
from .acquire import validate
from .acquire.refresh import refresh, schedule_of
from .generation import NAMES, TABLE, directory_of, open_table
from .load import KeptIndex, load_files, signature
from .table.in_memory import EMPTY, OriginTable

logger: Final = logging.getLogger(__name__)


class OriginSource(DatasetInUse):
    """The current origin table of the files or the directory that the settings name."""

    def __init__(self, settings: AggregatorSettings) -> None:
        """Read the settings; `load` loads the table.

        Raises:
            SettingsError: the settings contradict each other.
        """
        directory = directory_of(settings.origin_dir) if settings.origin_dir else None
        super().__init__("origin table", settings.origin_watch_s, directory, schedule_of(settings))
        self._settings = settings
        self._table = Path(settings.origin_table) if settings.origin_table else None
        self._names = Path(settings.as_names) if settings.as_names else None
        kept = settings.origin_index_dir
        self._kept = KeptIndex(Path(kept)) if kept else None
        self._current = EMPTY
        # Check the setting now, so that a mistake stops the start and not a refresh days later.
        validate.bounds_of(settings)
        #: What `_look` returned for the table in use, and for the last refused one.
        self._seen: object = None
        self._refused: object = None

    @property
    def current(self) -> OriginTable:
        """The table in use; take it once for look-ups that must agree."""
        return self._current

    @property
    def generation(self) -> str:
        return self._current.generation

    def load(self, stop: threading.Event | None = None) -> None:
        """Load the table that the settings name; an empty one if there is none yet.

        If the current generation of a directory is damaged, load another one.

        Raises:
            OriginError: no table can be used.
        """
        seen = self._look()
        try:
            table = self._read(stop)
        except OriginError as exc:
            if self._directory is None:
                raise
            table = self._older(self._directory, exc, stop)
        self._take(table, seen)

    def look_again(self, stop: threading.Event | None = None) -> bool:
        """Take a changed table; return whether the table changed."""
        seen: object = None
        try:
            seen = self._look()
            if seen in (self._seen, self._refused):
                return False
            self._take(self._read(stop), seen)
        except OriginError as exc:
            if stop is not None and stop.is_set():
                return False
            self._refuse(seen, exc)
            return False
        return True

    def _refresh(self, stop: threading.Event | None, now: datetime) -> dict[str, Any]:
        outcome = refresh(self._settings, stop=stop, now=now)
        return {"generation": outcome.generation, "unchanged": outcome.unchanged}

    def _look(self) -> object:
        """Return a value that changes when there is another table to load."""
        if self._directory is not None:
            return self._directory.target()
        if self._table is None:
            return ()
        return (
            signature(self._table),
            signature(self._names) if self._names else None,
        )

    def _read(self, stop: threading.Event | None) -> OriginTable:
        if self._directory is not None:
            generation = self._directory.current()
            if generation is None:
                logger.warning(
                    "no origin table yet: run `smtpfeeds origin refresh`",
                    extra=fields(origin_dir=str(self._directory.directory)),
                )
                return EMPTY
            return self._open(generation, stop)
        if self._table is None:
            return EMPTY
        return load_files(
            self._table,
            self._names,
            timeout_s=self._settings.origin_load_timeout_s,
            kept=self._kept,
            stop=stop,
        )

    def _open(self, generation: Generation, stop: threading.Event | None) -> OriginTable:
        """Map a generation's index; if that fails, compile its table again, in memory."""
        try:
            return open_table(generation)
        except OriginError as exc:
            logger.warning(
                "origin index not usable; compiling the table again",
                extra=fields(reason=exc.message),
            )
        return load_files(
            generation.check(TABLE),
            generation.check(NAMES),
            timeout_s=self._settings.origin_load_timeout_s,
            stop=stop,
            known=generation.manifest,
        )

    def _older(
        self, directory: DatasetDirectory, reason: OriginError, stop: threading.Event | None
    ) -> OriginTable:
        for generation in directory.others():
            try:
                table = self._open(generation, stop)
            except OriginError:
                continue
            logger.error(
                "origin table damaged; an older one is in use",
                extra=fields(reason=reason.message, generation=table.generation),
            )
            return table
        raise reason

    def _refuse(self, seen: object, exc: OriginError) -> None:
        # A missing file is looked for each time, but logged once.
        refused = "missing" if seen is None else seen
        if refused != self._refused:
            logger.error(
                "origin table refused; the one in use stays",
                extra=fields(reason=exc.message, generation=self._current.generation),
            )
        self._refused = refused

    def _take(self, table: OriginTable, seen: object) -> None:
        self._current = table
        self._seen, self._refused = seen, None
        info = table.info
        logger.info(
            "origin table in use",
            extra=fields(
                generation=table.generation,
                prefixes_ipv4=info.prefixes_ipv4,
                prefixes_ipv6=info.prefixes_ipv6,
                origins=info.origins,
                names=info.names,
                bad_lines=info.bad_lines,
                source=info.source,
            ),
        )
