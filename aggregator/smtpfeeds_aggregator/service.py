"""Builds the aggregator's parts, one thread each; starts and stops them in order.

The source's thread moves messages; ``collect`` and ``store`` are the ingest worker.
The publisher, the watch of the origin tables, maintenance and the metrics' server run
beside them. `parts` describes what happens when one of them fails.
"""

import gc
import logging
import os
import time
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Final

from smtpfeeds_common import __version__
from smtpfeeds_common.errors import FAILED
from smtpfeeds_common.logs import fields
from smtpfeeds_common.signals import Signals
from smtpfeeds_common.systemd import is_notified, notify, watchdog_interval_s

from .certificates import CertificateWatch
from .clock.database import DatabaseClock
from .clock_watch import ClockWatch
from .health import Health
from .ingest.last_client import LastClientNote
from .ingest.worker import IngestWorker
from .maintenance import Maintenance
from .metrics import Metrics
from .origin import OriginSource
from .parts import Part
from .progress import Progress
from .settings import AggregatorSettings, missing
from .sources import Source
from .store.bounds import Bounds
from .store.clock import read_clock
from .store.connection import connect, discard
from .store.ingest import IngestStore
from .store.migrations import check_schema
from .store.refusals import RefusalStore

logger = logging.getLogger(__name__)

#: The program ends without a part that takes longer to stop: its batches are not
#: acknowledged, so nothing is lost. Service managers wait for at least ten seconds.
_STOP_LIMIT_S: Final = 8.0
_TICK_S: Final = 0.2
_GC_THRESHOLD: Final = (100_000, 20, 50)


class Service:
    """An aggregator."""

    def __init__(
        self,
        settings: AggregatorSettings,
        signals: Signals | None = None,
        clock: DatabaseClock | None = None,
    ) -> None:
        """Build all parts; `start` runs them, and `signals` ends `run`.

        Raises:
            SettingsError, DatabaseError, DatasetError: something is missing or wrong.
        """
        self._settings = settings
        self.metrics, self.health = Metrics(), Health()
        self._signals = signals or Signals()
        self._clock = clock or DatabaseClock()
        limit_s = settings.database_timeout_s
        connection = connect(settings, "start", autocommit=True, limit_s=limit_s)
        try:
            check_schema(connection)
            self._clock.take(read_clock(connection, self._clock.monotonic))
        finally:
            discard(connection)
        self._origins = OriginSource(settings)
        self._origins.load()
        self._source = _make_source(settings, self.metrics)
        store = IngestStore(
            lambda: connect(settings, "ingest", autocommit=True, limit_s=limit_s),
            clock=self._clock,
            retention=timedelta(days=settings.retention_days),
            bounds=Bounds.of(settings),
        )
        clients = LastClientNote()
        self._progress = Progress(self.metrics, self.health, clients) if is_notified() else None
        worker = IngestWorker(
            self._source,
            store,
            lambda: self._origins.current,
            settings,
            self.metrics,
            self.health,
            clock=self._clock,
            note=None if self._progress is None else clients.note,
        )
        self._parts = self._make_parts(worker)

    def _make_parts(self, worker: IngestWorker) -> list[Part]:
        """Return the parts in stop order: what takes in batches first, then what acknowledges."""
        settings, clock, metrics, health = self._settings, self._clock, self.metrics, self.health
        once, again = partial(Part, health=health), partial(Part, health=health, runs_again=True)
        parts = [
            once("collect", worker.collect),
            once("store", worker.store),
            once("source", self._source.run),
            again("clock", ClockWatch(settings, clock, metrics, health).run),
            again("maintenance", Maintenance(settings, clock, metrics, health).run),
            again("origin", self._origins.run),
            again("certificates", CertificateWatch(settings, metrics).run),
        ]
        if settings.feeds_dir:
            from .classification.lists.in_use import ListSource
            from .publish.process import ProcessRunner
            from .publish.service import PublishLoop

            lists = ListSource(settings)
            lists.load()
            runner = ProcessRunner(settings, self._origins, lambda: lists.current, clock, metrics)
            loop = PublishLoop(settings, runner, clock, metrics, health)
            parts += [again("lists", lists.run), again("publish", loop.run)]
        if settings.metrics_listen:
            from .metrics_http import MetricsServer

            server = MetricsServer(settings.metrics_listen, metrics, health)
            parts.append(again("http", server.run))
        return parts

    def run(self) -> int:
        """Run until a signal stops the program or a part fails. Returns the exit code."""
        self.start()
        self._watch()
        notify("STOPPING=1")
        logger.info("stopping", extra=fields())
        failed = self.finish()
        logger.info("stopped", extra=fields(failed=failed))
        return FAILED if failed else 0

    def start(self) -> None:
        """Start every part."""
        # A collection has tens of thousands of small objects without cycles. The default
        # threshold has the garbage collector scan them so often that it costs a fifth of
        # the fold, and it finds nothing.
        gc.freeze()
        gc.set_threshold(*_GC_THRESHOLD)
        for part in self._parts:
            part.start()

    def finish(self) -> bool:
        """Stop every part, in order, and let it finish its work. Returns whether one failed."""
        deadline = time.monotonic() + _STOP_LIMIT_S
        for part in self._parts:
            part.may_end = True
        for part in self._parts:
            part.end(max(0.1, deadline - time.monotonic()))
        return any(part.failed for part in self._parts)

    def stop(self) -> None:
        """End `run`; thread-safe."""
        self._signals.ask_to_stop()

    def _watch(self) -> None:
        """Notify ready once and the watchdog regularly; return on a stop or when a part ends."""
        ready = False
        interval_s = watchdog_interval_s()
        fed_s = 0.0
        while not self._signals.stop:
            consuming = self._source.consuming
            self.metrics.consuming.set(consuming)
            if consuming:
                self.health.well("source")
            else:
                self.health.trouble("source", "no batches can arrive")
            if consuming and not ready:
                ready = True
                self._notify_ready()
            if interval_s and time.monotonic() - fed_s >= interval_s and not self.health.stuck():
                fed_s = time.monotonic()
                notify("WATCHDOG=1")
            for part in self._parts:
                part.look()
                if not part.alive:
                    part.failed = True  # even without an error: nothing has stopped it
                    return
            if self._signals.take_reload():
                logger.info(
                    "SIGHUP: passwords and certificates are read at each connection anyway; "
                    "other settings need a restart"
                )
            if ready and self._progress is not None:
                self._progress.report()
            self._signals.wait(_TICK_S)

    def _notify_ready(self) -> None:
        settings = self._settings
        logger.info(
            "ready",
            extra=fields(
                version=__version__,
                source="spool" if _spool_folder(settings) else "amqp",
                feeds_dir=settings.feeds_dir or "none",
                pid=os.getpid(),
            ),
        )
        notify("READY=1")


def _spool_folder(settings: AggregatorSettings) -> Path | None:
    for url in settings.broker:
        if url.startswith("spool:"):
            return Path(url.removeprefix("spool:"))
    return None


def _make_source(settings: AggregatorSettings, metrics: Metrics) -> Source:
    if not settings.broker:
        raise missing("broker", "amqps://… addresses, or spool:DIR on one host")
    folder = _spool_folder(settings)
    if folder is not None:
        from .sources.spool import SpoolSource

        return SpoolSource(folder, seal_interval_s=settings.seal_interval_s, metrics=metrics)
    from .sources.amqp import AmqpSource

    limit_s = settings.database_timeout_s
    ledger = RefusalStore(lambda: connect(settings, "refusals", autocommit=True, limit_s=limit_s))
    return AmqpSource(settings, metrics, ledger)
