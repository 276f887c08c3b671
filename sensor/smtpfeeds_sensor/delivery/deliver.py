"""Delivery: sealed batches out of the spool, confirmed by the broker, forgotten.

The decisions of it, and the thread they run on; the wire is a ``Link``, the
real one in ``publisher``. Everything that waits is in the spool file, so this
may die at any moment: a batch goes out again under the same number.

Per outcome of a publish: confirmed, forget; too large, set that batch aside;
refused otherwise (it concerns all of them), hold, back off and alarm; broken or
no confirm in time, reconnect with back-off and jitter. Nothing is sealed while
the broker is away, so repeats keep folding. At most four sealed batches wait.
"""

import logging
import random
import threading
import time
from collections.abc import Callable, MutableMapping
from pathlib import Path
from typing import Final, Protocol

from smtpfeeds_common.backoff import Backoff
from smtpfeeds_common.errors import BatchTooLarge, BrokerError, BrokerRefused, SpoolBusy, SpoolError
from smtpfeeds_common.logs import fields
from smtpfeeds_common.spool import Bounds, SealedBatch, Sealer, keep_room, read_status
from smtpfeeds_common.wire import MAX_ROWS

logger = logging.getLogger(__name__)

#: Sealed batches that may wait for a confirm.
MAX_WAITING: Final = 4
_HOUSEKEEPING_S: Final = 5.0
#: Whoever waits on an open connection looks this often whether it is to stop.
_STOP_LOOK_S: Final = 0.25
#: While the broker refuses all, the alarm is said again this often.
_ALARM_S: Final = 300.0


class Link(Protocol):
    """The way to a broker."""

    @property
    def is_open(self) -> bool:
        """Whether something can be published."""
        ...

    def open(self) -> None:
        """Connect to one of the brokers.

        Raises:
            BrokerError: to none of them.
        """

    def publish(self, batch: SealedBatch) -> None:
        """Publish; returning means that the broker has it.

        Raises:
            BatchTooLarge, BrokerRefused, BrokerUnavailable: it has not.
        """

    def idle(self, wait_s: float) -> None:
        """Wait while keeping the connection alive.

        Raises:
            BrokerUnavailable: it broke.
        """

    def close(self) -> None:
        """Disconnect; never raises."""

    def interrupt(self) -> None:
        """Break off, from another thread, whatever waits for the broker."""


class Delivery:
    """Delivers from one spool; all calls but ``interrupt`` from one thread."""

    def __init__(
        self,
        path: Path,
        link: Link,
        count: MutableMapping[str, int],
        clock: Callable[[], int],
        *,
        bounds: Bounds | None = None,
        seal_interval_s: float = 1.0,
        alive_interval_s: float = 60.0,
        backoff_max_s: float = 60.0,
        monotonic: Callable[[], float] = time.monotonic,
        rng: Callable[[], float] = random.random,
    ) -> None:
        self._path, self._link, self._count, self._clock = path, link, count, clock
        self._bounds = bounds
        self._seal_interval_s, self._alive_interval_s = seal_interval_s, alive_interval_s
        self._monotonic = monotonic
        self._backoff = Backoff(backoff_max_s, rng=rng)
        self._sealer: Sealer | None = None
        self._next_attempt = self._next_seal = self._next_housekeeping = 0.0
        self._last_batch = monotonic()
        self._alarmed: float | None = None
        self._confirm_s = 0.0
        self._depth = self._bytes = self._waiting = 0
        self._oldest_ms: int | None = None
        self._failing = ""

    # One look

    def step(self) -> float:
        """Do what is due; gives the seconds until the next look."""
        try:
            sealer = self._open_spool()
            self._keep_house(sealer)
        except SpoolError as exc:
            return self._spool_trouble(exc)
        now = self._monotonic()
        if now < self._next_attempt:
            return min(self._next_attempt - now, self._seal_interval_s)
        try:
            if not self._link.is_open:
                self._link.open()
                logger.info("connected to the broker")
            self._deliver(sealer)
        except BrokerError as exc:
            return self._broker_trouble(exc)
        except SpoolError as exc:
            return self._spool_trouble(exc)
        self._recovered()
        return self._seal_interval_s

    def _open_spool(self) -> Sealer:
        if self._sealer is not None and self._sealer.replaced:
            logger.warning("spool was replaced; going on with the new one")
            self._close_spool()
        if self._sealer is None:
            self._sealer = Sealer(self._path, bounds=self._bounds)
        return self._sealer

    def _deliver(self, sealer: Sealer) -> None:
        while waiting := sealer.waiting(MAX_WAITING):
            for batch in waiting:
                self._publish(sealer, batch)
        if self._monotonic() < self._next_seal:
            return
        self._next_seal = self._monotonic() + self._seal_interval_s
        alive_due = self._monotonic() - self._last_batch >= self._alive_interval_s
        sealed = sealer.seal(self._clock(), empty=alive_due)
        while sealed is not None:
            self._publish(sealer, sealed)
            sealed = sealer.seal(self._clock()) if sealer.depth() >= MAX_ROWS else None

    def _publish(self, sealer: Sealer, batch: SealedBatch) -> None:
        began = self._monotonic()
        try:
            self._link.publish(batch)
        except BatchTooLarge as exc:
            self._set_aside(sealer, batch, exc.message)
            return
        self._confirm_s = self._monotonic() - began
        self._last_batch = self._monotonic()
        self._count["batches_confirmed"] += 1
        sealer.forget([(batch.spool, batch.seq)], self._clock())

    def _set_aside(self, sealer: Sealer, batch: SealedBatch, reason: str) -> None:
        sealer.set_batch_aside(batch.spool, batch.seq, reason)
        self._count["batches_set_aside"] += 1
        logger.error(
            "batch set aside: the broker calls it too large; raise its max_message_size",
            extra=fields(seq=batch.seq, octets=len(batch.body), reason=reason),
        )

    def _keep_house(self, sealer: Sealer) -> None:
        now = self._monotonic()
        if now < self._next_housekeeping:
            return
        self._next_housekeeping = now + _HOUSEKEEPING_S
        note_drops(sealer.keep_bounds(self._clock()), self._count, sealer.bounds)
        self._depth, self._bytes = sealer.depth(), sealer.used_bytes()
        self._waiting, self._oldest_ms = sealer.waiting_state()

    # Trouble

    def _broker_trouble(self, exc: BrokerError) -> float:
        self._link.close()
        self._count["publish_failures"] += 1
        wait_s = self._backoff.next_s()
        now = self._monotonic()
        self._next_attempt = now + wait_s
        if isinstance(exc, BrokerRefused):
            if self._alarmed is None or now - self._alarmed >= _ALARM_S:
                self._alarmed = now
                logger.error(
                    "the broker refuses what is published; batches are held in the spool",
                    extra=fields(reason=exc.message),
                )
        elif exc.message != self._failing:
            logger.warning(
                "no broker; batches are held in the spool", extra=fields(reason=exc.message)
            )
        self._failing = exc.message
        return min(wait_s, self._seal_interval_s)

    def _spool_trouble(self, exc: SpoolError) -> float:
        if isinstance(exc, SpoolBusy):
            return 0.05
        if exc.message != self._failing:
            logger.error("spool cannot be delivered from", extra=fields(reason=exc.message))
            self._failing = exc.message
        self._close_spool()
        return 1.0

    def _recovered(self) -> None:
        if self._alarmed is not None or self._failing:
            logger.info("delivering again")
        self._alarmed, self._failing = None, ""
        self._backoff.reset()

    # Around it

    def idle(self, wait_s: float, stopping: threading.Event) -> None:
        """Wait; an open connection is kept alive meanwhile."""
        until = self._monotonic() + wait_s
        while not stopping.is_set():
            left_s = until - self._monotonic()
            if left_s <= 0:
                return
            if not self._link.is_open:
                stopping.wait(left_s)
                continue
            try:
                self._link.idle(min(left_s, _STOP_LOOK_S))
            except BrokerError as exc:
                self._broker_trouble(exc)

    def gauges(self) -> dict[str, float]:
        """What the metrics endpoint shows; from any thread."""
        oldest = self._oldest_ms
        return {
            "spool_rows": self._depth,
            "spool_bytes": self._bytes,
            "spool_age_seconds": 0.0 if oldest is None else max(0, self._clock() - oldest) / 1000,
            "batches_waiting": self._waiting,
            "confirm_latency_seconds": self._confirm_s,
            "broker_connected": int(self._link.is_open),
            "broker_refusing": int(self._alarmed is not None),
        }

    def interrupt(self) -> None:
        """Break off what waits for the broker; from any thread."""
        self._link.interrupt()

    def close(self) -> None:
        """Disconnect, and leave the spool to the next."""
        self._link.close()
        self._close_spool()

    def _close_spool(self) -> None:
        if self._sealer is not None:
            self._sealer.close()
            self._sealer = None


class Housekeeping:
    """Keeps a spool within its bound where another program delivers from it, or none does."""

    def __init__(
        self, path: Path, bounds: Bounds, count: MutableMapping[str, int], clock: Callable[[], int]
    ) -> None:
        self._path, self._bounds, self._count, self._clock = path, bounds, count, clock
        self._state: dict[str, float] = {}
        self._failing = ""

    def step(self) -> float:
        """Look once; gives the seconds until the next look. Trouble is said once, not at each."""
        try:
            dropped = keep_room(self._path, self._bounds, self._clock())
            told = read_status(self._path)
        except SpoolError as exc:
            if not isinstance(exc, SpoolBusy) and exc.message != self._failing:
                self._failing = exc.message
                logger.warning("spool not looked after", extra=fields(reason=exc.message))
            return _HOUSEKEEPING_S
        self._failing = ""
        note_drops(dropped, self._count, self._bounds)
        oldest = told.oldest_waiting_ms
        self._state = {
            "spool_rows": sum(told.rows.values()),
            "spool_bytes": told.used_bytes,
            "spool_age_seconds": 0.0 if oldest is None else max(0, self._clock() - oldest) / 1000,
            "batches_waiting": told.batches_waiting,
        }
        return _HOUSEKEEPING_S

    def idle(self, wait_s: float, stopping: threading.Event) -> None:
        """Wait."""
        stopping.wait(wait_s)

    def gauges(self) -> dict[str, float]:
        """What the metrics endpoint shows; from any thread."""
        return self._state

    def interrupt(self) -> None:
        """Nothing here waits."""

    def close(self) -> None:
        """Nothing stays open."""


def note_drops(dropped: int, count: MutableMapping[str, int], bounds: Bounds) -> None:
    """Count and say that the spool's bound took events."""
    if dropped:
        count["events_expired"] += dropped
        logger.error(
            "spool is at its bound; the longest unseen were dropped",
            extra=fields(events=dropped, spool_max_bytes=bounds.max_bytes),
        )


class DeliveryThread:
    """Runs a delivery, or the housekeeping alone, beside the reactor."""

    def __init__(self, delivery: Delivery | Housekeeping) -> None:
        self._delivery = delivery
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="publisher", daemon=True)
        self.gauges = delivery.gauges

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def ask_to_stop(self) -> None:
        """End soon; returns at once."""
        self._stopping.set()

    def join(self, limit_s: float) -> None:
        """Wait for the end; past the limit what waits for the broker is broken off."""
        self._thread.join(limit_s / 2)
        if self._thread.is_alive():
            self._delivery.interrupt()
            self._thread.join(limit_s / 2)

    def _run(self) -> None:
        try:
            while not self._stopping.is_set():
                try:
                    wait_s = self._delivery.step()
                except Exception:
                    # The thread must outlive what nobody thought of: events go on into the spool.
                    logger.exception("delivery failed; trying again")
                    wait_s = 5.0
                self._delivery.idle(wait_s, self._stopping)
        finally:
            self._delivery.close()
