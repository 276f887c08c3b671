"""The ingest worker: two threads, so that one collection is folded while another is written.

``collect`` gathers deliveries up to N messages, M rows or T milliseconds,
checks and folds them. ``store`` writes a folded collection in one transaction,
and acknowledges after the commit. Between them at most one collection waits;
with the one in each thread's hands that is the memory a worker takes.

What can go wrong has one answer each:

* not a batch, or not its sender's: refused; the others go on
* the database refuses the data: batch by batch, the culprit alone is refused
* the database is away: hold; beyond a minute everything in hand is given back
  to the source, and taken again when the database is
* it takes too long over a transaction: given up with its connection, then batch by
  batch, so that a slow one gets on
* killed at any point: what was not acknowledged comes again, and what of it was
  committed is recognised
"""

import logging
import queue
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from threading import Event
from typing import Final

from smtpfeeds_common.errors import BadRows, DatabaseError, WireError
from smtpfeeds_common.logs import fields

from ..health import Health
from ..metrics import Metrics
from ..settings import AggregatorSettings
from ..sources import Delivery, Refusal, Source
from ..store.connection import DatabaseTimeout
from ..store.ingest import IngestStore
from ..store.rows import BatchKey, Folded, Outcome
from .check import CheckedBatch, check, refused_rows_body
from .fold import OriginLookup, fold

logger = logging.getLogger(__name__)

#: The database may be away for so long before what is in hand is given back.
HOLD_S: Final = 60.0
_RETRY_FIRST_S: Final = 0.25
_RETRY_LAST_S: Final = 5.0
#: How often each thread says that it is alive, and how long its silence may last.
_TICK_S: Final = 0.5
_SILENCE_S: Final = 300.0


@dataclass(frozen=True, slots=True)
class Collection:
    """Batches that are written together, each key once, and their fold."""

    batches: tuple[CheckedBatch, ...]
    #: Further deliveries of the same batches: acknowledged with them.
    repeats: tuple[CheckedBatch, ...]
    folded: Folded
    origin: OriginLookup


class _TimedOrigin:
    """An origin table that notes how long its look-ups took."""

    def __init__(self, table: OriginLookup) -> None:
        self._table = table
        self.generation = table.generation
        self.spent_s = 0.0

    def lookup_many(self, addresses: list[bytes]) -> list[int | None]:
        started = time.perf_counter()
        try:
            return self._table.lookup_many(addresses)
        finally:
            self.spent_s += time.perf_counter() - started

    def name(self, asn: int) -> str | None:
        return self._table.name(asn)


class IngestWorker:
    """Takes deliveries from a source into the store."""

    def __init__(
        self,
        source: Source,
        store: IngestStore,
        origin: Callable[[], OriginLookup],
        settings: AggregatorSettings,
        metrics: Metrics,
        health: Health,
        *,
        hold_s: float = HOLD_S,
        probe_s: float = _RETRY_LAST_S,
    ) -> None:
        self._source, self._store, self._origin = source, store, origin
        self._settings, self._metrics, self._health = settings, metrics, health
        self._hold_s, self._probe_s = hold_s, probe_s
        self._ready: queue.Queue[Collection] = queue.Queue(maxsize=1)
        self._busy = Event()
        self._collected = Event()

    # The first thread.

    def collect(self, stop: Event) -> None:
        """Gather, check, fold, hand over; until told to stop, and then what is in hand."""
        try:
            while not stop.is_set():
                batches = self._gather(stop)
                if batches:
                    self._hand_over(self._fold(batches), stop)
        finally:
            self._collected.set()

    def _gather(self, stop: Event) -> list[CheckedBatch]:
        """Take deliveries until one of the three bounds; past the time, while the store is busy."""
        taken: list[CheckedBatch] = []
        rows, deadline = 0, 0.0
        while len(taken) < self._settings.ingest_batch_messages and not stop.is_set():
            # Here, for this goes on as long as the store is busy, or all that comes is refused.
            self._health.beat("collect", within_s=_SILENCE_S)
            wait_s = _TICK_S
            if taken:
                wait_s = deadline - time.monotonic()
                if wait_s <= 0:
                    if not self._store_is_busy():
                        break
                    wait_s = 0.02
            delivery = self._source.get(wait_s)
            if delivery is None:
                if not taken:
                    break
                continue
            if not taken:
                deadline = time.monotonic() + self._settings.ingest_wait_ms / 1000
            checked = self._check(delivery)
            if checked is not None:
                taken.append(checked)
                rows += len(checked.rows)
                if rows >= self._settings.ingest_batch_rows:
                    break
        return taken

    def _store_is_busy(self) -> bool:
        return self._busy.is_set() or self._ready.full()

    def _check(self, delivery: Delivery) -> CheckedBatch | None:
        if delivery.redelivered:
            self._metrics.redelivered.inc()
        try:
            return check(delivery)
        except WireError as exc:
            reason = exc.message
        except Exception as exc:
            # A fault of ours in reading one message must not stop all others: this
            # would end the program, and the same message would end the next one.
            logger.exception("message not understood")
            reason = f"reading it failed: {type(exc).__name__}"
        self._refuse(delivery, Refusal("message", reason, delivery.body))
        return None

    def _refuse(self, delivery: Delivery, refusal: Refusal) -> None:
        self._metrics.refused.labels(refusal.kind).inc()
        logger.warning(
            "refused",
            extra=fields(
                kind=refusal.kind,
                account=delivery.account,
                reason=refusal.reason[:300],
                octets=len(refusal.body),
            ),
        )
        self._source.refuse(delivery, refusal)

    def _fold(self, batches: Sequence[CheckedBatch]) -> Collection:
        started = time.perf_counter()
        first: dict[BatchKey, CheckedBatch] = {}
        repeats = [
            checked for checked in batches if first.setdefault(checked.key, checked) is not checked
        ]
        origin = _TimedOrigin(self._origin())
        folded = fold(tuple(first.values()), origin)
        self._metrics.origin_time.observe(origin.spent_s)
        self._metrics.fold_time.observe(time.perf_counter() - started)
        return Collection(tuple(first.values()), tuple(repeats), folded, origin)

    def _hand_over(self, collection: Collection, stop: Event) -> None:
        while True:
            self._health.beat("collect", within_s=_SILENCE_S)
            try:
                self._ready.put(collection, timeout=_TICK_S)
            except queue.Full:
                if stop.is_set():
                    return  # not acknowledged: it comes again
            else:
                return

    # The second thread.

    def store(self, stop: Event) -> None:
        """Write and acknowledge collections, until told to stop and the last one is in."""
        try:
            while not (self._collected.is_set() and self._ready.empty()):
                self._health.beat("store", within_s=_SILENCE_S)
                try:
                    collection = self._ready.get(timeout=_TICK_S)
                except queue.Empty:
                    continue
                self._busy.set()
                try:
                    self._write(collection, stop)
                finally:
                    self._busy.clear()
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
            self._source.is_current(checked.delivery)
            for checked in (*collection.batches, *collection.repeats)
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
            self._health.beat("store", within_s=_SILENCE_S)
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
        fresh = [checked for checked in collection.batches if checked.key in keys]
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
            self._health.beat("store", within_s=_SILENCE_S)
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
        if len(collection.batches) == 1:
            checked = collection.batches[0]
            body = checked.delivery.body
            self._refuse_once(checked, collection.repeats, Refusal("batch", cause.message, body))
            return
        self._write_one_by_one(collection, stop)

    def _write_one_by_one(self, collection: Collection, stop: Event) -> None:
        """Each batch in a transaction of its own."""
        for checked in collection.batches:
            repeats = tuple(again for again in collection.repeats if again.key == checked.key)
            folded = fold((checked,), collection.origin)
            self._write(Collection((checked,), repeats, folded, collection.origin), stop)

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
        for checked in collection.batches:
            repeats = [again for again in collection.repeats if again.key == checked.key]
            if checked.refused:
                self._metrics.rows_refused.inc(len(checked.refused))
                reason = f"{len(checked.refused)} rows: {checked.refused[0].reason}"
                self._refuse_once(
                    checked, repeats, Refusal("rows", reason, refused_rows_body(checked))
                )
            else:
                good += [checked.delivery, *(again.delivery for again in repeats)]
        self._source.acknowledge(good)

    def _refuse_once(
        self, checked: CheckedBatch, repeats: Sequence[CheckedBatch], refusal: Refusal
    ) -> None:
        """Refuse one delivery of a batch, and acknowledge the others.

        One that can still be acknowledged: of another the source keeps nothing, for it comes
        again, and with its repeats acknowledged it would not.
        """
        deliveries = [checked.delivery, *(again.delivery for again in repeats)]
        kept = next(filter(self._source.is_current, deliveries), checked.delivery)
        self._refuse(kept, refusal)
        self._source.acknowledge([delivery for delivery in deliveries if delivery is not kept])
