"""The second thread of ingest: writes folded collections, and acknowledges what is committed.

While the database is away it holds; beyond a minute it gives everything in hand
back to the source until the database answers. What the database refuses, or
takes too long over, is written batch by batch: a culprit alone is refused.
"""

import logging
import random
import time
from threading import Event
from typing import Final

from smtpfeeds_common.errors import BadRows, DatabaseError
from smtpfeeds_common.logs import fields

from ..health import Health
from ..metrics import Metrics
from ..sources import Refusal, Source
from ..store.errors import DatabaseTimeout
from ..store.ingest import IngestStore
from ..store.rows import BatchKey, Folded, Outcome
from .fold import fold
from .handover import SILENCE_S, Collection, Handover
from .refusals import refuse_batch, refused_rows_body

logger = logging.getLogger(__name__)

#: The database may be away for so long before what is in hand is given back.
HOLD_S: Final = 60.0
#: After that it is looked for so often.
PROBE_S: Final = 5.0
_RETRY_FIRST_S: Final = 0.25
_RETRY_LAST_S: Final = 5.0


class Writer:
    """Takes folded collections into the store."""

    def __init__(
        self,
        source: Source,
        store: IngestStore,
        handover: Handover,
        metrics: Metrics,
        health: Health,
        *,
        hold_s: float,
        probe_s: float,
    ) -> None:
        self._source, self._store, self._handover = source, store, handover
        self._metrics, self._health = metrics, health
        self._hold_s, self._probe_s = hold_s, probe_s

    def run(self, stop: Event) -> None:
        """Write and acknowledge collections, until stopped and the last one is in."""
        try:
            while not self._handover.is_finished:
                self._health.beat("store", within_s=SILENCE_S)
                collection = self._handover.take()
                if collection is not None:
                    try:
                        self._write(collection, stop)
                    finally:
                        self._handover.done()
        finally:
            self._store.close()

    def _write(self, collection: Collection, stop: Event) -> None:
        if not self._is_current(collection):
            return  # its session is over: all of it comes again
        try:
            outcome = self._apply(collection, stop)
        except BadRows as exc:
            self._find_culprit(collection, exc, stop)
            return
        except DatabaseTimeout as exc:
            logger.warning("database slow; batch by batch", extra=fields(reason=exc.message[:300]))
            self._write_one_by_one(collection, stop)
            return
        if outcome is not None:
            self._count(collection, outcome)
            self._acknowledge(collection)

    def _is_current(self, collection: Collection) -> bool:
        return any(
            self._source.is_current(batch.delivery)
            for batch in (*collection.batches, *collection.repeats)
        )

    def _apply(self, collection: Collection, stop: Event) -> Outcome | None:
        """Write it, holding while the database is away; None where it was given back.

        Raises:
            BadRows: the database refuses the data.
            DatabaseTimeout: it is too slow for several batches at once.
        """
        away_since: float | None = None
        retry_s = _RETRY_FIRST_S
        while True:
            self._health.beat("store", within_s=SILENCE_S)
            started = time.perf_counter()
            conflicts = self._store.conflicts
            try:
                outcome = self._store.apply(
                    collection.folded, lambda keys: self._refold(collection, keys)
                )
            except DatabaseError as exc:
                if self._needs_smaller(exc, collection, first=away_since is None):
                    raise
                now = time.monotonic()
                if away_since is None:
                    away_since = now
                    self._say_away(exc)
                if stop.is_set():
                    return None
                if now - away_since >= self._hold_s:
                    self._give_back_until_it_is_back(stop)
                    return None
                stop.wait(retry_s * random.uniform(0.7, 1.3))  # noqa: S311 - jitter
                retry_s = min(retry_s * 2, _RETRY_LAST_S)
            else:
                self._metrics.database_time.observe(time.perf_counter() - started)
                if away_since is not None:
                    self._say_back(away_since)
                return outcome
            finally:
                self._metrics.conflicts.inc(self._store.conflicts - conflicts)

    def _needs_smaller(self, exc: DatabaseError, collection: Collection, *, first: bool) -> bool:
        """Whether the same again would be in vain, or may well be."""
        if isinstance(exc, DatabaseTimeout):
            self._metrics.timeouts.inc()
            return first and len(collection.batches) > 1
        return isinstance(exc, BadRows)

    def _refold(self, collection: Collection, keys: frozenset[BatchKey]) -> Folded:
        fresh = [batch for batch in collection.batches if batch.key in keys]
        return fold(fresh, collection.origin)

    def _say_away(self, exc: DatabaseError) -> None:
        self._metrics.holds.inc()
        self._metrics.holding.set(1)
        self._health.trouble("database", exc.message[:300])
        logger.warning("database away", extra=fields(reason=exc.message[:300]))

    def _say_back(self, away_since: float) -> None:
        self._metrics.holding.set(0)
        self._health.well("database")
        logger.info("database back", extra=fields(away_s=round(time.monotonic() - away_since, 1)))

    def _give_back_until_it_is_back(self, stop: Event) -> None:
        """Let another aggregator have the batches; take up again when the database answers."""
        since = time.monotonic()
        logger.warning("database away for long; batches given back", extra=fields())
        self._source.pause()
        while not stop.is_set():
            self._health.beat("store", within_s=SILENCE_S)
            stop.wait(self._probe_s * random.uniform(0.5, 1.0))  # noqa: S311 - jitter
            try:
                self._store.probe()
            except DatabaseError:
                continue
            self._say_back(since - self._hold_s)
            self._source.resume()
            return

    def _find_culprit(self, collection: Collection, cause: BadRows, stop: Event) -> None:
        """Refuse the one batch that the database refuses; the good ones are taken."""
        if len(collection.batches) > 1:
            self._write_one_by_one(collection, stop)
            return
        batch = collection.batches[0]
        refusal = Refusal("batch", cause.message, batch.delivery.body)
        refuse_batch(self._source, self._metrics, batch, collection.repeats, refusal)

    def _write_one_by_one(self, collection: Collection, stop: Event) -> None:
        """Each batch in a transaction of its own."""
        for batch in collection.batches:
            folded = fold((batch,), collection.origin)
            one = Collection((batch,), collection.repeats_of(batch), folded, collection.origin)
            self._write(one, stop)

    def _count(self, collection: Collection, outcome: Outcome) -> None:
        known = len(collection.batches) - len(outcome.fresh)
        metrics = self._metrics
        metrics.batches.inc(len(outcome.fresh))
        if again := known + len(collection.repeats):
            # After a redelivery, a replay, a restored spool: nothing to do, but to be seen.
            metrics.duplicates.inc(again)
            logger.info("counted before", extra=fields(batches=again))
        metrics.rows_read.inc(outcome.rows_read)
        metrics.rows_written.inc(outcome.rows)
        metrics.rows_outlived.inc(outcome.outlived)
        metrics.rows_overflowed.inc(outcome.overflowed)
        for sealed_at in outcome.sealed_at:
            metrics.lag.observe(max(0.0, (outcome.now - sealed_at).total_seconds()))
        for sensor in outcome.new_sensors:
            metrics.new_sensors.inc()
            logger.info("sensor heard for the first time", extra=fields(sensor=sensor))
        if outcome.outlived:
            logger.warning("rows older than the retention", extra=fields(rows=outcome.outlived))

    def _acknowledge(self, collection: Collection) -> None:
        """Acknowledge what is committed; a batch with refused rows once those are kept."""
        good = []
        for batch in collection.batches:
            repeats = collection.repeats_of(batch)
            if batch.refused:
                self._metrics.rows_refused.inc(len(batch.refused))
                reason = f"{len(batch.refused)} rows: {batch.refused[0].reason}"
                refusal = Refusal("rows", reason, refused_rows_body(batch))
                refuse_batch(self._source, self._metrics, batch, repeats, refusal)
            else:
                good += [batch.delivery, *(again.delivery for again in repeats)]
        self._source.acknowledge(good)
