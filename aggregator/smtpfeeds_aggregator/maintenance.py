"""The maintenance thread: compacts applied batches and deletes old rows.

Any aggregator may do it; an advisory lock, released after each round, lets one
work at a time. Retention runs once a day across all aggregators. It pauses between
slices, so that ingest and queries have the database to themselves most of the time.
Maintenance does nothing while the database's clock is in doubt, and deletes nothing
by age for an hour after the start and after a doubt.
"""

import logging
import random
from datetime import timedelta
from threading import Event
from typing import Final

from smtpfeeds_common.errors import DatabaseError
from smtpfeeds_common.logs import fields

from .clock.database import DatabaseClock
from .health import Health
from .metrics import Metrics
from .settings import AggregatorSettings
from .store.connection import Connection, connect, discard
from .store.maintenance import MaintenanceStore

logger = logging.getLogger(__name__)

_COMPACT_EVERY_S: Final = 10.0
#: A spool is compacted once it has this many applied batches.
_WORTH_BATCHES: Final = 32
_SPOOLS_A_ROUND: Final = 1_000
#: Pause between two slices of retention.
_REST_S: Final = 0.02


class Maintenance:
    """Keeps the tables small until it is stopped."""

    def __init__(
        self, settings: AggregatorSettings, clock: DatabaseClock, metrics: Metrics, health: Health
    ) -> None:
        self._settings, self._clock = settings, clock
        self._metrics, self._health = metrics, health
        self._connection: Connection | None = None

    def run(self, stop: Event) -> None:
        """Do what is due, about every ten seconds, until `stop` is set."""
        while not stop.is_set():
            self._health.beat("maintenance", within_s=3600)
            try:
                self._round(stop)
            except DatabaseError as exc:
                logger.info("maintenance waits", extra=fields(reason=exc.message[:300]))
                self._disconnect()
            except Exception:
                # A bug in one round must not end maintenance: the tables would grow for ever.
                logger.exception("maintenance failed; the next round tries again")
                self._disconnect()
            stop.wait(_COMPACT_EVERY_S * random.uniform(0.8, 1.2))  # noqa: S311 - jitter
        self._disconnect()

    def _disconnect(self) -> None:
        discard(self._connection)
        self._connection = None

    def _round(self, stop: Event) -> None:
        if self._connection is None:
            limit_s = self._settings.database_timeout_s
            self._connection = connect(
                self._settings, "maintenance", autocommit=True, limit_s=limit_s
            )
        store = MaintenanceStore(
            self._connection, retention=timedelta(days=self._settings.retention_days)
        )
        if self._clock.state().doubts or not store.try_lock():
            return
        try:
            moved = store.compact(batches=_WORTH_BATCHES, spools=_SPOOLS_A_ROUND)
            self._metrics.compacted.inc(moved)
            self._retire_when_due(store, stop)
        finally:
            if not self._connection.closed:
                store.unlock()

    def _retire_when_due(self, store: MaintenanceStore, stop: Event) -> None:
        """Delete rows by age, as long as the clock is settled."""
        now = self._clock.deletes_from()
        if now is None or not store.retention_due(now):
            return
        # Spools with fewer batches than `_WORTH_BATCHES` are compacted once a day.
        self._metrics.compacted.inc(store.compact(batches=1, spools=100 * _SPOOLS_A_ROUND))
        total = 0
        for table, rows in store.retire(now):
            self._metrics.retired_rows.labels(table).inc(rows)
            total += rows
            self._health.beat("maintenance", within_s=3600)
            if stop.wait(_REST_S) or self._clock.deletes_from() is None:
                return
        logger.info("retention done", extra=fields(rows=total))
