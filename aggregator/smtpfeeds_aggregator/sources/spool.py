"""Reads a sensor's spools on this host: what the broker would carry, without one.

Each sensor worker has a spool file of its own in one folder. This source seals
batches as the sensor's publisher would, in the same slices, and forgets them
when they are committed. All use of SQLite is on this thread.
"""

import logging
import queue
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from threading import Event
from typing import Final, NamedTuple

from smtpfeeds_common.errors import SpoolBusy, SpoolError
from smtpfeeds_common.logs import fields
from smtpfeeds_common.spool import SealedBatch, Sealer, find_spools
from smtpfeeds_common.topology import routing_key

from ..metrics import Metrics
from . import Delivery, Refusal

logger = logging.getLogger(__name__)

#: Sealed batches of a spool that wait for a commit.
_WAITING_MAX: Final = 4
#: A spool is new, gone or replaced: looked for so often.
_SCAN_S: Final = 1.0
_BOUNDS_S: Final = 5.0
#: An empty batch says that a quiet sensor is alive.
_ALIVE_S: Final = 60.0
#: A spool that cannot be used is spoken of once in so long.
_COMPLAIN_S: Final = 60.0


class _Token(NamedTuple):
    session: int
    path: Path
    spool: str
    seq: int


@dataclass(slots=True)
class _Open:
    """A spool that is delivered from."""

    sealer: Sealer
    #: In the worker's hands.
    waiting: dict[tuple[str, int], SealedBatch] = field(default_factory=dict)
    sealed_s: float = 0.0
    bounds_s: float = 0.0


class SpoolSource:
    """Deliveries from a folder of spools; ``run`` is its thread, the rest is for others."""

    def __init__(
        self,
        folder: Path,
        *,
        seal_interval_s: float,
        metrics: Metrics,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._folder = folder
        self._seal_interval_s = seal_interval_s
        self._metrics = metrics
        self._clock = clock
        self._deliveries: queue.SimpleQueue[Delivery] = queue.SimpleQueue()
        self._done: queue.SimpleQueue[tuple[_Token, str | None]] = queue.SimpleQueue()
        self._wake = Event()
        self._paused = Event()
        self._session = 1
        #: The session of what is handed out: behind the other until ``resume`` is noticed.
        self._delivering = 1
        self._open: dict[Path, _Open] = {}
        self._complained: dict[str, float] = {}
        self._scanned_s = 0.0
        self._found = False

    # For the worker's thread.

    def get(self, timeout_s: float) -> Delivery | None:
        """The next delivery, or None when none comes within the time."""
        try:
            while True:
                delivery = self._deliveries.get(timeout=timeout_s)
                if self.is_current(delivery):
                    return delivery
        except queue.Empty:
            return None

    def is_current(self, delivery: Delivery) -> bool:
        """Whether it was delivered since the last pause."""
        return bool(delivery.token.session == self._session)

    def acknowledge(self, deliveries: list[Delivery]) -> None:
        """Forget these in their spools."""
        for delivery in deliveries:
            self._done.put((delivery.token, None))
        self._wake.set()

    def refuse(self, delivery: Delivery, refusal: Refusal) -> None:
        """Set a batch aside in its spool; refused rows are only logged."""
        logger.warning(
            "refused",
            extra=fields(
                account=delivery.account, code=str(refusal.code), reason=refusal.reason[:300]
            ),
        )
        whole = refusal.kind != "rows"
        self._done.put((delivery.token, refusal.reason if whole else None))
        self._wake.set()

    def pause(self) -> None:
        """Seal nothing more; what was delivered comes again after ``resume``."""
        # In this order: else the other thread may take the new session for a resumed one.
        self._paused.set()
        self._session += 1

    def resume(self) -> None:
        """Deliver again, first what was in hand."""
        self._paused.clear()
        self._wake.set()

    @property
    def consuming(self) -> bool:
        """Whether the folder was there when last looked for."""
        return self._found and not self._paused.is_set()

    # On its own thread.

    def run(self, stop: Event) -> None:
        """Seal, deliver, forget, until told to stop."""
        while not stop.is_set():
            now_s = self._clock()
            if self._delivering != self._session and not self._paused.is_set():
                self._delivering = self._session
                self._deliver_again()
            self._scan(now_s)
            self._forget(now_s)
            for path in list(self._open):
                self._serve(path, now_s)
            self._wake.wait(min(self._seal_interval_s / 4, 0.25))
            self._wake.clear()
        self._forget(self._clock())
        for path in list(self._open):
            self._drop(path)

    def _scan(self, now_s: float) -> None:
        if 0 <= now_s - self._scanned_s < _SCAN_S:
            return
        self._scanned_s = now_s
        try:
            found = find_spools(self._folder)
        except SpoolError as exc:
            self._found = False
            self._complain(str(self._folder), exc, now_s)
            return
        self._found = True
        for path, opened in list(self._open.items()):
            if opened.sealer.replaced:
                logger.info("spool replaced", extra=fields(spool=path.name))
                self._drop(path)
        for path in found:
            if path not in self._open:
                self._try_open(path, now_s)

    def _try_open(self, path: Path, now_s: float) -> None:
        try:
            opened = _Open(Sealer(path))
        except SpoolError as exc:
            self._complain(str(path), exc, now_s)
            return
        self._open[path] = opened
        logger.info("spool opened", extra=fields(spool=path.name, sensor=opened.sealer.sensor))

    def _serve(self, path: Path, now_s: float) -> None:
        opened = self._open[path]
        try:
            if not self._paused.is_set():
                self._deliver_left_over(path, opened)
                self._seal(path, opened, now_s)
            if not 0 <= now_s - opened.bounds_s < _BOUNDS_S:
                opened.bounds_s = now_s
                dropped = opened.sealer.keep_bounds(_ms(now_s))
                if dropped:
                    self._metrics.spool_dropped.inc(dropped)
                    logger.warning(
                        "spool full", extra=fields(spool=path.name, dropped_events=dropped)
                    )
        except SpoolBusy:
            return  # the sensor is writing: the next turn
        except SpoolError as exc:
            self._complain(str(path), exc, now_s)
            self._drop(path)

    def _deliver_left_over(self, path: Path, opened: _Open) -> None:
        """Deliver batches that were sealed before and never confirmed (also by a replay)."""
        if opened.waiting:
            return
        for batch in opened.sealer.waiting(_WAITING_MAX):
            self._deliver(path, opened, batch)

    def _seal(self, path: Path, opened: _Open, now_s: float) -> None:
        since_s = now_s - opened.sealed_s
        if 0 <= since_s < self._seal_interval_s:
            return
        while len(opened.waiting) < _WAITING_MAX and not self._paused.is_set():
            batch = opened.sealer.seal(_ms(now_s), empty=not 0 <= since_s < _ALIVE_S)
            since_s = 0
            if batch is None:
                break
            opened.sealed_s = now_s
            self._deliver(path, opened, batch)

    def _deliver(self, path: Path, opened: _Open, batch: SealedBatch) -> None:
        opened.waiting[batch.spool, batch.seq] = batch
        self._hand_over(path, opened, batch, redelivered=False)

    def _hand_over(
        self, path: Path, opened: _Open, batch: SealedBatch, *, redelivered: bool
    ) -> None:
        sensor = opened.sealer.sensor
        token = _Token(self._delivering, path, batch.spool, batch.seq)
        self._deliveries.put(Delivery(batch.body, sensor, routing_key(sensor), redelivered, token))

    def _deliver_again(self) -> None:
        for path, opened in self._open.items():
            for batch in opened.waiting.values():
                self._hand_over(path, opened, batch, redelivered=True)

    def _forget(self, now_s: float) -> None:
        """Forget what was committed, set aside what was refused; on an error, later."""
        done: dict[Path, list[tuple[_Token, str | None]]] = {}
        while True:
            try:
                token, reason = self._done.get_nowait()
            except queue.Empty:
                break
            done.setdefault(token.path, []).append((token, reason))
        for path, items in done.items():
            opened = self._open.get(path)
            if opened is not None:
                self._forget_in(opened, items, now_s)

    def _forget_in(
        self, opened: _Open, items: list[tuple[_Token, str | None]], now_s: float
    ) -> None:
        try:
            opened.sealer.forget(
                [(token.spool, token.seq) for token, reason in items if reason is None], _ms(now_s)
            )
            for token, reason in items:
                if reason is not None:
                    opened.sealer.set_batch_aside(token.spool, token.seq, reason)
        except SpoolError as exc:
            if not isinstance(exc, SpoolBusy):
                self._complain(str(opened.sealer.path), exc, now_s)
            for item in items:
                self._done.put(item)
            return
        for token, _ in items:
            opened.waiting.pop((token.spool, token.seq), None)

    def _drop(self, path: Path) -> None:
        opened = self._open.pop(path)
        opened.sealer.close()

    def _complain(self, what: str, exc: SpoolError, now_s: float) -> None:
        self._metrics.spool_failures.inc()
        last_s = self._complained.get(what)
        if last_s is None or not 0 <= now_s - last_s < _COMPLAIN_S:
            self._complained[what] = now_s
            logger.warning("spool not usable", extra=fields(reason=exc.message))


def _ms(now_s: float) -> int:
    return int(now_s * 1000)
