"""Keep a spool within its bound if another program delivers from it, or none."""

import logging
import threading
from collections.abc import MutableMapping
from pathlib import Path
from typing import Final

from smtpfeeds_common.clock import Clock, Reading
from smtpfeeds_common.errors import SpoolBusy, SpoolDamaged, SpoolError
from smtpfeeds_common.logs import fields
from smtpfeeds_common.spool import Bounds, Dropped, keep_room, read_status

logger = logging.getLogger(__name__)

#: Interval of the checks of a spool's bound.
HOUSEKEEPING_S: Final = 5.0


class Housekeeping:
    """Keeps one spool within its bound."""

    def __init__(
        self, path: Path, bounds: Bounds, count: MutableMapping[str, int], clock: Clock
    ) -> None:
        self._path, self._bounds, self._count, self._clock = path, bounds, count, clock
        self._gauges: dict[str, float] = {}
        self._failing = ""
        #: Whether SQLite called the file malformed at the last step; read by any thread.
        self.reports_damage = False

    def step(self) -> float:
        """Check once; return the seconds until the next check. A problem is logged once."""
        now = self._clock.read()
        try:
            dropped = keep_room(self._path, self._bounds, now)
            status = read_status(self._path)
        except SpoolError as exc:
            self.reports_damage = isinstance(exc, SpoolDamaged)
            if not isinstance(exc, SpoolBusy) and exc.message != self._failing:
                self._failing = exc.message
                logger.warning(
                    "upkeep of the spool failed",
                    extra=fields(reason=exc.message),
                )
            return HOUSEKEEPING_S
        self._failing, self.reports_damage = "", False
        note_dropped(dropped, self._count, self._bounds)
        self._gauges = {
            "spool_rows": sum(status.rows.values()),
            "spool_bytes": status.used_bytes,
            "spool_age_seconds": age_s(status.oldest_waiting_ms, now),
            "batches_waiting": status.batches_waiting,
        }
        return HOUSEKEEPING_S

    def idle(self, wait_s: float, stopping: threading.Event) -> None:
        """Wait."""
        stopping.wait(wait_s)

    def gauges(self) -> dict[str, float]:
        """Return the values for the metrics endpoint; callable from any thread."""
        return self._gauges

    def interrupt(self) -> None:
        """Do nothing: nothing here waits."""

    def close(self) -> None:
        """Do nothing: nothing stays open."""


def note_dropped(dropped: Dropped, count: MutableMapping[str, int], bounds: Bounds) -> None:
    """Count and log what was dropped at the spool's bound."""
    if dropped.events:
        count["events_expired"] += dropped.events
        logger.error(
            "spool is at its bound; the addresses seen longest ago were dropped",
            extra=fields(events=dropped.events, spool_max_bytes=bounds.max_bytes),
        )
    if dropped.replays:
        count["replays_dropped"] += dropped.replays
        logger.error(
            "spool is at its bound; batches are not delivered again, to keep what is new",
            extra=fields(batches=dropped.replays, spool_max_bytes=bounds.max_bytes),
        )


def age_s(since_ms: int | None, now: Reading) -> float:
    """Return the seconds since a UTC time; 0 without a time, or while the clock is in doubt."""
    if since_ms is None or now.utc_ms is None:
        return 0.0
    return max(0, now.utc_ms - since_ms) / 1000
