"""Where a running program gets its origins: one current table, kept fresh.

`load` once, then `run` on a thread of its own: it notices a new table, has it
made ready aside, and swaps one reference. Who holds the old table keeps it
whole; a table that cannot be used is said once, and the one in use stays.
"""

import logging
import threading
from pathlib import Path
from typing import Final

from smtpfeeds_aggregator.settings import AggregatorSettings
from smtpfeeds_common.errors import OriginError
from smtpfeeds_common.logs import fields

from . import loading
from .table import EMPTY, OriginTable

logger: Final = logging.getLogger(__name__)


class OriginSource:
    """The current origin table of the files that the settings name."""

    def __init__(self, settings: AggregatorSettings) -> None:
        self._settings = settings
        self._table = Path(settings.origin_table) if settings.origin_table else None
        self._names = Path(settings.as_names) if settings.as_names else None
        self._current = EMPTY
        self._seen: object = None
        self._refused: object = None

    @property
    def current(self) -> OriginTable:
        """The table in use: take it once for what must agree, and keep it as long as needed."""
        return self._current

    def load(self, stop: threading.Event | None = None) -> None:
        """Load what the settings name; with nothing named, nothing is known.

        Raises:
            OriginError: it cannot be used.
        """
        seen = self._look()
        self._take(self._read(stop), seen)

    def run(self, stop: threading.Event) -> None:
        """Notice new tables until told to stop; never raises for a table."""
        while not stop.wait(self._settings.origin_watch_s):
            self.look_again(stop)

    def look_again(self, stop: threading.Event | None = None) -> bool:
        """Take a changed table; whether another one is in use now."""
        seen: object = None
        try:
            seen = self._look()
            if seen in (self._seen, self._refused):
                return False
            self._take(self._read(stop), seen)
        except OriginError as exc:
            if stop is not None and stop.is_set():
                return False
            if seen is None or seen != self._refused:
                logger.error(
                    "origin table refused; the one in use stays",
                    extra=fields(reason=exc.message, generation=self._current.generation),
                )
            self._refused = seen
            return False
        return True

    def _look(self) -> object:
        if self._table is None:
            return ()
        return (
            loading.signature(self._table),
            loading.signature(self._names) if self._names else None,
        )

    def _read(self, stop: threading.Event | None) -> OriginTable:
        if self._table is None:
            return EMPTY
        return loading.load_files(
            self._table, self._names, timeout_s=self._settings.origin_load_timeout_s, stop=stop
        )

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
