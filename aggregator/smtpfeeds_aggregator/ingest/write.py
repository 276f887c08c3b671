"""The second thread of ingest: writes folded collections, and acknowledges committed ones.

While the database accepts nothing, the writer holds; after a minute it gives all batches
back to the source until the database accepts one. A collection that the database refuses,
or that takes too long, is written batch by batch. A batch is refused only if the database
accepts one that is known to be good.
"""

import logging
import random
import time
from collections import Counter
from collections.abc import Callable
from functools import partial
from threading import Event
from typing import Final, Protocol

from smtpfeeds_common.errors import BadRows, DatabaseError
from smtpfeeds_common.logs import fields

from ..accounts import RefusalCode
from ..health import Health
from ..metrics import Metrics
from ..sources import Refusal, Source
from ..store.errors import DatabaseTimeout
from ..store.rows import BatchKey, Folded, Outcome, Refold
from .fold import fold
from .handover import SILENCE_S, Collection, Handover
from .hold import Hold
from .probe_batch import probe_batch
from .refusals import describe, refuse_batch, refused_rows

logger = logging.getLogger(__name__)

#: After this long without a database, batches are given back to the source.
HOLD_S: Final = 60.0
#: Seconds between two probes after that.
PROBE_S: Final = 5.0
#: A message that batches cause is logged at most once in this time for each account.
_LOG_AGAIN_S: Final = 60.0
_PAST_BUCKET: Final = (
    "more new addresses than new_addresses_per_day allows; counted under the account"
)


class Store(Protocol):
    """The database as the writer uses it; ``store.ingest.IngestStore`` implements it."""

    #: Transactions that ran again after a conflict with others.
    conflicts: int

    def apply(self, folded: Folded, refold: Refold) -> Outcome:
        """Write all of it and commit; ``refold`` folds some of its batches again."""
        ...

    def probe(self, good: Folded) -> None:
        """Write known-good rows, and roll them back."""
        ...

    def close(self) -> None:
        """Close the connection."""
        ...


class Writer:
    """Writes folded collections into the store."""

    def __init__(
        self,
        source: Source,
        store: Store,
        handover: Handover,
        metrics: Metrics,
        health: Health,
        *,
        hold_s: float,
        probe_s: float,
        note: Callable[[Collection], None] | None = None,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._source, self._store, self._handover = source, store, handover
        self._metrics, self._health = metrics, health
        self._hold_s, self._probe_s, self._note = hold_s, probe_s, note
        self._hold = Hold(metrics, health, monotonic)
        self._monotonic = monotonic
        #: By message and account: it is not logged before this time.
        self._quiet_until_s: dict[tuple[str, str | None], float] = {}

    def run(self, stop: Event) -> None:
        """Write and acknowledge collections until the handover is finished."""
        try:
            while not self._handover.is_finished:
                self.turn(stop)
        finally:
            self._store.close()

    def turn(self, stop: Event) -> None:
        """Write one collection, if there is one within a tick."""
        self._health.beat("store", within_s=SILENCE_S)
        collection = self._handover.take()
        if collection is not None:
            try:
                self._write(collection, stop)
            finally:
                self._handover.done()

    def _write(self, collection: Collection, stop: Event) -> None:
        if not self._is_current(collection):
            return  # its session has ended: the source delivers all of it again
        try:
            outcome = self._apply(collection, stop)
        except BadRows as exc:
            self._refuse_bad_batch(collection, exc, stop)
            return
        except DatabaseTimeout as exc:
            logger.warning(
                "database slow; writing batch by batch", extra=fields(reason=exc.message[:300])
            )
            self._write_one_by_one(collection, stop)
            return
        if outcome is not None:
            self._acknowledge(collection)
            self._count(collection, outcome)
            if self._note is not None:
                self._note(collection)

    def _is_current(self, collection: Collection) -> bool:
        return any(
            self._source.is_current(batch.delivery)
            for batch in (*collection.batches, *collection.repeats)
        )

    def _apply(self, collection: Collection, stop: Event) -> Outcome | None:
        """Write a collection, holding while the database accepts nothing; None if given back.

        Raises:
            BadRows: the database refuses the data; if it is one batch, that batch is bad.
            DatabaseTimeout: the database is too slow for several batches at once.
        """
        while True:
            self._health.beat("store", within_s=SILENCE_S)
            try:
                outcome = self._try(collection)
            except DatabaseError as exc:
                if self._needs_smaller(exc, collection):
                    raise
                trouble = self._trouble_of(exc)
                if trouble is None:
                    self._hold.end()
                    raise
                self._hold.note(trouble)
                if stop.is_set():
                    return None
                if self._hold.lasted_s >= self._hold_s:
                    self._give_back_and_wait(stop)
                    return None
                stop.wait(self._hold.next_wait_s())
            else:
                self._hold.end()
                return outcome

    def _try(self, collection: Collection) -> Outcome:
        started, conflicts = time.perf_counter(), self._store.conflicts
        try:
            outcome = self._store.apply(collection.folded, partial(self._refold, collection))
        except (DatabaseError, MemoryError):
            raise
        except Exception as exc:
            # A bug that one batch triggers must not stop all others, as in `Collector._check`.
            logger.exception("collection not written")
            raise BadRows(f"writing it failed: {describe(exc)}") from exc
        finally:
            self._metrics.conflicts.inc(self._store.conflicts - conflicts)
        self._metrics.database_time.observe(time.perf_counter() - started)
        return outcome

    def _refold(self, collection: Collection, keys: frozenset[BatchKey], today: int) -> Folded:
        fresh = [batch for batch in collection.batches if batch.key in keys]
        return fold(fresh, collection.origin, today)

    def _needs_smaller(self, exc: DatabaseError, collection: Collection) -> bool:
        """Whether to continue batch by batch."""
        several = len(collection.batches) > 1
        if isinstance(exc, DatabaseTimeout):
            self._metrics.timeouts.inc()
            return several and not self._hold.is_on
        return several and isinstance(exc, BadRows)

    def _trouble_of(self, exc: DatabaseError) -> DatabaseError | None:
        """Return the trouble of the database; None if it accepts batches, so this one is bad."""
        return self._probe() if isinstance(exc, BadRows) else exc

    def _probe(self) -> DatabaseError | None:
        """Return why the database refuses a known-good batch; None if it accepts it."""
        try:
            self._store.probe(probe_batch())
        except DatabaseError as exc:
            return exc
        except Exception as exc:
            logger.exception("known-good batch not written")
            return BadRows(f"writing a known-good batch failed: {describe(exc)}")
        return None

    def _give_back_and_wait(self, stop: Event) -> None:
        """Leave the batches to another aggregator until the database accepts one."""
        logger.warning("database unavailable for long; batches returned", extra=fields())
        self._source.pause()
        while not stop.is_set():
            self._health.beat("store", within_s=SILENCE_S)
            stop.wait(self._probe_s * random.uniform(0.5, 1.0))  # noqa: S311 - jitter
            trouble = self._probe()
            if trouble is None:
                self._hold.end()
                self._source.resume()
                return
            self._hold.note(trouble)

    def _refuse_bad_batch(self, collection: Collection, cause: BadRows, stop: Event) -> None:
        """Refuse only the batch that the database refuses; write the others."""
        if len(collection.batches) > 1:
            self._write_one_by_one(collection, stop)
            return
        batch = next(iter(collection.batches))
        refusal = Refusal(RefusalCode.DATABASE, cause.message, batch.delivery.body)
        refuse_batch(self._source, self._metrics, batch, collection.repeats, refusal)

    def _write_one_by_one(self, collection: Collection, stop: Event) -> None:
        """Write each batch in its own transaction."""
        for batch in collection.batches:
            folded = fold((batch,), collection.origin, collection.folded.today)
            one = Collection((batch,), collection.repeats_of(batch), folded, collection.origin)
            self._write(one, stop)

    def _count(self, collection: Collection, outcome: Outcome) -> None:
        known = [batch for batch in collection.batches if batch.key not in outcome.fresh]
        metrics = self._metrics
        metrics.batches.inc(len(outcome.fresh))
        # A redelivery, a replay or a restored spool: harmless, but operators should see it.
        again = Counter(batch.key.sensor for batch in (*known, *collection.repeats))
        metrics.duplicates.inc(again.total())
        for sensor, batches in again.items():
            self._log_rarely(logging.INFO, "batches counted before", sensor, batches=batches)
        metrics.rows_read.inc(outcome.rows_read)
        metrics.rows_written.inc(outcome.rows)
        metrics.rows_expired.inc(outcome.expired)
        metrics.rows_overflowed.inc(outcome.overflowed)
        metrics.note_past_bucket(outcome.past_bucket)
        for sensor, rows in outcome.past_bucket.items():
            self._log_rarely(logging.WARNING, _PAST_BUCKET, sensor, rows=rows)
        for sealed_at in outcome.sealed_at:
            metrics.lag.observe(max(0.0, (outcome.now - sealed_at).total_seconds()))
        for sensor in outcome.new_sensors:
            metrics.new_sensors.inc()
            logger.info("sensor heard for the first time", extra=fields(sensor=sensor))
        if outcome.expired:
            self._log_rarely(logging.WARNING, "rows older than the retention", rows=outcome.expired)

    def _log_rarely(
        self, level: int, message: str, account: str | None = None, **counts: int
    ) -> None:
        """Log a message at most once a minute for each account; the metrics have all counts."""
        now_s = self._monotonic()
        if now_s >= self._quiet_until_s.get((message, account), 0.0):
            self._quiet_until_s[message, account] = now_s + _LOG_AGAIN_S
            about = {} if account is None else {"account": account}
            logger.log(level, message, extra=fields(**about, **counts))

    def _acknowledge(self, collection: Collection) -> None:
        """Acknowledge committed batches; one with refused rows only after those are kept."""
        good = []
        for batch in collection.batches:
            repeats = collection.repeats_of(batch)
            if batch.refused:
                self._metrics.rows_refused.inc(len(batch.refused))
                refuse_batch(self._source, self._metrics, batch, repeats, refused_rows(batch))
            else:
                good += [batch.delivery, *(again.delivery for again in repeats)]
        self._source.acknowledge(good)
