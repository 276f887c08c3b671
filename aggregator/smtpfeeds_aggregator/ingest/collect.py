"""The first thread of ingest: turns deliveries into folded collections.

It gathers deliveries up to N messages, M rows of all kinds, 16 MiB or T
milliseconds, checks and folds them, and hands them to the thread that writes.
It refuses messages that are not a batch, or not from the sensor that they name.
"""

import logging
import time
from collections.abc import Callable, Sequence
from threading import Event
from typing import Final

from smtpfeeds_common.errors import WireError
from smtpfeeds_common.history import DAY_MS
from smtpfeeds_common.logs import fields

from ..accounts import RefusalCode
from ..clock.database import DatabaseClock
from ..health import Health
from ..metrics import Metrics
from ..origin import EMPTY
from ..origin.lookup import OriginLookup
from ..settings import AggregatorSettings
from ..sources import Delivery, Refusal, Source
from ..store.rows import BatchKey
from .check import CheckedBatch, check
from .fold import fold
from .handover import SILENCE_S, TICK_S, Collection, Handover
from .openings import Openings
from .probe_batch import probe_batch
from .refusals import describe, refuse, refuse_batch

logger = logging.getLogger(__name__)

#: Octets of a collection's messages; sensors' batches usually reach the bound of rows first.
_COLLECTION_BYTES: Final = 16 * 1024 * 1024
#: Interval of checks whether the writer is still busy, while a collection past its time grows.
_STILL_BUSY_S: Final = 0.02


class _TimedOrigin:
    """An origin table that measures how long its look-ups take."""

    def __init__(self, table: OriginLookup) -> None:
        self._table = table
        self.generation = table.generation
        self.spent_s = 0.0

    def lookup_many(self, addresses: Sequence[bytes]) -> list[int | None]:
        started = time.perf_counter()
        try:
            return self._table.lookup_many(addresses)
        finally:
            self.spent_s += time.perf_counter() - started

    def name(self, asn: int) -> str | None:
        return self._table.name(asn)


class _Gathered:
    """The batches of a collection, with its bounds."""

    def __init__(self, settings: AggregatorSettings, monotonic: Callable[[], float]) -> None:
        self._settings, self._monotonic = settings, monotonic
        self.batches: list[CheckedBatch] = []
        self._rows = self._bytes = 0
        self._deadline_s = 0.0

    def add(self, batch: CheckedBatch) -> None:
        if not self.batches:
            self._deadline_s = self._monotonic() + self._settings.ingest_wait_ms / 1000
        self.batches.append(batch)
        self._rows += batch.size
        self._bytes += len(batch.delivery.body)

    @property
    def is_full(self) -> bool:
        return (
            len(self.batches) >= self._settings.ingest_batch_messages
            or self._rows >= self._settings.ingest_batch_rows
            or self._bytes >= _COLLECTION_BYTES
        )

    @property
    def is_late(self) -> bool:
        return self._monotonic() >= self._deadline_s

    def wait_s(self) -> float:
        """Return how long to wait for the next delivery."""
        if not self.batches:
            return TICK_S
        return max(self._deadline_s - self._monotonic(), _STILL_BUSY_S)


class Collector:
    """Takes deliveries from a source and hands folded collections over."""

    def __init__(
        self,
        source: Source,
        origin: Callable[[], OriginLookup],
        handover: Handover,
        clock: DatabaseClock,
        settings: AggregatorSettings,
        metrics: Metrics,
        health: Health,
        *,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._source, self._origin, self._handover = source, origin, handover
        self._clock, self._monotonic = clock, monotonic
        self._settings, self._metrics, self._health = settings, metrics, health
        self._openings = Openings(monotonic=monotonic)

    def run(self, stop: Event) -> None:
        """Process collections until stopped; the one in work is finished."""
        try:
            while not stop.is_set():
                self.turn(stop)
        finally:
            self._handover.close()

    def turn(self, stop: Event) -> None:
        """Gather, check, fold and hand over one collection."""
        batches = self._gather(stop)
        for collection in self._fold(batches):
            self._hand_over(collection, stop)

    def _gather(self, stop: Event) -> list[CheckedBatch]:
        """Take deliveries up to a bound; past the time, only while the writer is busy anyway."""
        taken = _Gathered(self._settings, self._monotonic)
        while not (taken.is_full or stop.is_set()):
            # In the loop, because it runs as long as the writer is busy or all is refused.
            self._health.beat("collect", within_s=SILENCE_S)
            if taken.batches and not self._is_worth_waiting(taken):
                break
            delivery = self._source.get(taken.wait_s())
            if delivery is None:
                if not taken.batches:
                    self._note_idle()
                    break
                continue
            checked = self._check(delivery, stop)
            if checked is not None:
                self._clock.sealed(checked.key.sensor, checked.batch.sealed_ms)
                taken.add(checked)
        return taken.batches

    def _is_worth_waiting(self, taken: "_Gathered") -> bool:
        """Whether more deliveries can arrive in time, or while the writer is busy anyway."""
        return self._source.more_can_come and not (taken.is_late and not self._handover.is_busy)

    def _note_idle(self) -> None:
        """Note that the source is empty: nothing arrived although ingest could take it."""
        if self._source.consuming and not self._handover.is_busy:
            self._clock.idle()

    def _wait_for_clock(self, stop: Event) -> bool:
        """Wait until the database's clock is not in doubt; False when stopped before."""
        while self._clock.state().doubts:
            self._health.beat("collect", within_s=SILENCE_S)
            if stop.wait(TICK_S):
                return False
        return True

    def _check(self, delivery: Delivery, stop: Event) -> CheckedBatch | None:
        if delivery.redelivered:
            self._metrics.redelivered.inc()
        try:
            checked = check(delivery)
            self._openings.check(checked.key.sensor, checked.key.spool)
        except WireError as exc:
            code, reason = RefusalCode(exc.code), exc.message
        except Exception as exc:
            # A bug that one message triggers must not stop all others: the error would
            # end the program, and the message, redelivered, would end the next one.
            logger.exception("message not checked")
            probe_batch()  # if this fails too, the message is not the cause: the program ends
            code, reason = RefusalCode.FAULT, f"reading it failed: {describe(exc)}"
        else:
            return checked
        # A refusal acknowledges the message and counts it by the hour of the database's clock.
        if self._wait_for_clock(stop):
            refusal = Refusal(code, reason, delivery.body)
            refuse(self._source, self._metrics, delivery, refusal)
        return None

    def _today(self) -> int:
        """Estimate the day by the database's clock; a transaction on another day folds again."""
        return int(self._clock.now_s()) * 1000 // DAY_MS

    def _fold(self, batches: Sequence[CheckedBatch]) -> list[Collection]:
        """Fold batches together, or one by one if that fails."""
        if not batches:
            return []
        started = time.perf_counter()
        first: dict[BatchKey, CheckedBatch] = {}
        repeats = [batch for batch in batches if first.setdefault(batch.key, batch) is not batch]
        origin = _TimedOrigin(self._origin())
        once = tuple(first.values())
        try:
            collections = [
                Collection(once, tuple(repeats), fold(once, origin, self._today()), origin)
            ]
            self._health.well("origins")
        except Exception:
            logger.exception("fold failed; folding batch by batch")
            collections = [
                one for batch in once for one in self._fold_alone(batch, repeats, origin)
            ]
        self._metrics.origin_time.observe(origin.spent_s)
        self._metrics.fold_time.observe(time.perf_counter() - started)
        return collections

    def _fold_alone(
        self, batch: CheckedBatch, repeats: Sequence[CheckedBatch], origin: OriginLookup
    ) -> list[Collection]:
        """Fold one batch into a collection, without origins if their look-up fails."""
        again = tuple(each for each in repeats if each.key == batch.key)
        failure = ""
        for table in (origin, EMPTY):
            try:
                alone = Collection((batch,), again, fold((batch,), table, self._today()), table)
            except Exception as exc:
                logger.exception("batch not folded", extra=fields(account=batch.key.sensor))
                failure = failure or describe(exc)
            else:
                if failure:
                    self._health.trouble("origins", f"batches are stored without them: {failure}")
                return [alone]
        probe_batch()  # if this fails too, the batch is not the cause: the program ends
        reason = f"folding it failed: {failure}"
        refusal = Refusal(RefusalCode.FAULT, reason, batch.delivery.body)
        refuse_batch(self._source, self._metrics, batch, again, refusal)
        return []

    def _hand_over(self, collection: Collection, stop: Event) -> None:
        while True:
            self._health.beat("collect", within_s=SILENCE_S)
            if self._handover.put(collection):
                return
            if stop.is_set():
                return  # not acknowledged: it is delivered again
