"""A data set of a running program: it takes changes, and refreshes its directory on schedule.

The program's classes for origin tables and lists know what the data are; this is what is the
same for both.
"""

import logging
import threading
from abc import ABC, abstractmethod
from datetime import UTC, datetime
from typing import Any, Final

from smtpfeeds_common.errors import DatasetError
from smtpfeeds_common.logs import fields

from .directory import DatasetDirectory
from .schedule import Schedule

logger: Final = logging.getLogger(__name__)


class DatasetInUse(ABC):
    """Keeps one current data set up to date; `run` is its thread."""

    def __init__(
        self, name: str, watch_s: float, directory: DatasetDirectory | None, schedule: Schedule
    ) -> None:
        """Start nothing yet.

        Args:
            name: what the log calls the data.
            watch_s: seconds between two looks for a change.
            directory: what is refreshed; `None` where files of the operator are used as they are.
            schedule: when it is refreshed.
        """
        self._name = name
        self._watch_s = watch_s
        self._directory = directory
        self._schedule = schedule
        self._begun = datetime.now(UTC)

    @property
    @abstractmethod
    def generation(self) -> str:
        """The name of the generation in use."""

    @abstractmethod
    def look_again(self, stop: threading.Event | None = None) -> bool:
        """Take changed data; return whether they changed. Data that cannot be used are logged."""

    @abstractmethod
    def _refresh(self, stop: threading.Event | None, now: datetime) -> dict[str, Any]:
        """Refresh the directory, and return what the log names of the outcome.

        Raises:
            DatasetError: the refresh failed; the generation in use stays.
        """

    def run(self, stop: threading.Event) -> None:
        """Take changes and refresh on schedule until stopped; raises nothing."""
        while not stop.wait(self._watch_s):
            try:
                self.look_again(stop)
                self.refresh_if_due(stop)
            except Exception:
                logger.exception("watching the %s failed; the generation in use stays", self._name)

    def refresh_if_due(
        self, stop: threading.Event | None = None, now: datetime | None = None
    ) -> bool:
        """Refresh the directory if it is due, and use the new data; return whether it was due."""
        if self._directory is None:
            return False
        at = now or datetime.now(UTC)
        if not self._schedule.is_due(self._directory.status(), self._begun, at):
            return False
        try:
            outcome = self._refresh(stop, at)
        except DatasetError as exc:
            if stop is None or not stop.is_set():
                logger.error(  # noqa: TRY400 - the reason is the message
                    "refresh of the %s failed; the generation in use stays",
                    self._name,
                    extra=fields(reason=exc.message, generation=self.generation),
                )
            return True
        logger.info("refreshed the %s", self._name, extra=fields(**outcome))
        self.look_again(stop)
        return True
