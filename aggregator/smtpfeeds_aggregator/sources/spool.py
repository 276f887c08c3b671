"""Reads a sensor's spools on this host, in place of a broker.

Each sensor worker has its own spool file in one folder. This source seals batches as the
sensor's delivery would, in the same slices, and confirms them when they are committed. Only its
thread uses SQLite. Timers are monotonic; the wall clock dates and seals batches, and nothing is
sealed while it is in doubt.

A spool that fails does not affect the others: it is closed, and opened again at the next scan.
"""

import logging
import queue
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from threading import Event
from typing import Final, NamedTuple

from smtpfeeds_common.clock import Clock
from smtpfeeds_common.errors import SpoolBusy, SpoolError
from smtpfeeds_common.logs import fields
from smtpfeeds_common.spool import Held, SealedBatch, Sealer, find_spools
from smtpfeeds_common.topology import routing_key

from ..metrics import Metrics
from . import Delivery, Refusal

logger = logging.getLogger(__name__)

#: Most sealed batches of a spool that wait for a commit.
_WAITING_MAX: Final = 4
#: Interval of scans for new, missing and replaced spools.
_SCAN_S: Final = 1.0
_BOUNDS_S: Final = 5.0
#: Interval of checks for batches that the sensor sealed itself, while others wait.
_LEFT_OVER_S: Final = 10.0
#: After this long an empty batch shows that a quiet sensor is alive.
_ALIVE_S: Final = 60.0
#: A lasting trouble is logged again this often.
_LOG_AGAIN_S: Final = 60.0


class _Token(NamedTuple):
    session: int
    path: Path
    spool: str
    seq: int


class _Done(NamedTuple):
    """The result of a delivery: confirmed, or held for a reason."""

    token: _Token
    held_reason: str | None


@dataclass(slots=True)
class _Open:
    """An open spool, and its delivered batches."""

    sealer: Sealer
    #: Batches that are delivered and not yet settled.
    waiting: dict[tuple[str, int], SealedBatch] = field(default_factory=dict)
    #: When a batch was last sealed, its bounds kept, and left-over batches looked for.
    sealed_s: float | None = None
    bounds_s: float | None = None
    looked_s: float | None = None


class SpoolSource:
    """Delivers from a folder of spools; `run` is its thread, other threads call the rest."""

    def __init__(
        self,
        folder: Path,
        *,
        seal_interval_s: float,
        metrics: Metrics,
        clock: Clock | None = None,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._folder = folder
        self._seal_interval_s = seal_interval_s
        self._metrics = metrics
        self._clock = clock or Clock()
        self._monotonic = monotonic
        self._deliveries: queue.SimpleQueue[Delivery] = queue.SimpleQueue()
        self._done: queue.SimpleQueue[_Done] = queue.SimpleQueue()
        self._wake = Event()
        self._paused = Event()
        self._session = 1
        #: The session of new deliveries; it lags behind `_session` from a pause until the resume.
        self._delivering = 1
        self._open: dict[Path, _Open] = {}
        #: Spools whose recorded time was compared with the clock.
        self._compared: set[Path] = set()
        self._logged_s: dict[str, float] = {}
        self._scanned_s: float | None = None
        self._has_folder = False

    # For the worker's thread.

    def get(self, timeout_s: float) -> Delivery | None:
        """Return the next delivery, or None if none arrives within the time."""
        try:
            while True:
                delivery = self._deliveries.get(timeout=timeout_s)
                if self.is_current(delivery):
                    return delivery
        except queue.Empty:
            return None

    def is_current(self, delivery: Delivery) -> bool:
        """Return whether it was delivered since the last pause."""
        return bool(delivery.token.session == self._session)

    def acknowledge(self, deliveries: list[Delivery]) -> None:
        """Confirm deliveries in their spools."""
        for delivery in deliveries:
            self._done.put(_Done(delivery.token, None))
        self._wake.set()

    def refuse(self, delivery: Delivery, refusal: Refusal) -> None:
        """Hold a batch in its spool; refused rows are only logged."""
        logger.warning(
            "refused",
            extra=fields(
                account=delivery.account, code=str(refusal.code), reason=refusal.reason[:300]
            ),
        )
        whole = refusal.kind != "rows"
        self._done.put(_Done(delivery.token, refusal.reason if whole else None))
        self._wake.set()

    def pause(self) -> None:
        """Stop sealing; after `resume`, unsettled batches are delivered again."""
        # In this order: otherwise the other thread could mistake the new session for a resumed one.
        self._paused.set()
        self._session += 1

    def resume(self) -> None:
        """Deliver again, unsettled batches first."""
        self._paused.clear()
        self._wake.set()

    @property
    def more_can_come(self) -> bool:
        """Always true: a spool is sealed by time, not by the number of unsettled deliveries."""
        return True

    @property
    def consuming(self) -> bool:
        """Whether the folder existed at the last scan, and the source is not paused."""
        return self._has_folder and not self._paused.is_set()

    # On the source's thread.

    def run(self, stop: Event) -> None:
        """Seal, deliver and confirm until stopped."""
        while not stop.is_set():
            self.turn()
            self._wake.wait(min(self._seal_interval_s / 4, 0.25))
            self._wake.clear()
        self.close()

    def turn(self) -> None:
        """Do what is due in every spool."""
        if self._delivering != self._session and not self._paused.is_set():
            self._delivering = self._session
            self._deliver_again()
        self._scan()
        self._settle()
        self._watch_clock()
        for path in list(self._open):
            self._serve(path)

    def close(self) -> None:
        """Confirm committed batches, and close the spools."""
        self._settle()
        for path in list(self._open):
            self._drop(path)

    def _is_due(self, last_s: float | None, interval_s: float) -> bool:
        return last_s is None or self._monotonic() - last_s >= interval_s

    def _scan(self) -> None:
        if not self._is_due(self._scanned_s, _SCAN_S):
            return
        self._scanned_s = self._monotonic()
        try:
            paths = find_spools(self._folder)
        except SpoolError as exc:
            self._has_folder = False
            self._log_trouble(str(self._folder), exc.message)
            return
        self._has_folder = True
        for path, opened in list(self._open.items()):
            if opened.sealer.replaced:
                logger.info("spool replaced", extra=fields(spool=path.name))
                self._drop(path)
        for path in paths:
            if path not in self._open:
                self._try_open(path)

    def _try_open(self, path: Path) -> None:
        try:
            sealer = Sealer(path)
        except SpoolError as exc:
            self._log_trouble(str(path), exc.message)
            return
        except Exception as exc:
            logger.exception("spool not opened", extra=fields(spool=path.name))
            self._log_trouble(str(path), str(exc))
            return
        if path not in self._compared:
            self._compared.add(path)
            self._clock.compare(sealer.noted_ms)
        self._open[path] = _Open(sealer)
        logger.info("spool opened", extra=fields(spool=path.name, sensor=sealer.sensor))

    def _watch_clock(self) -> None:
        doubt = self._clock.doubt
        self._metrics.spool_clock_in_doubt.set(bool(doubt))
        if doubt and self._is_due(self._logged_s.get("clock"), _LOG_AGAIN_S):
            self._logged_s["clock"] = self._monotonic()
            logger.error("clock in doubt; nothing is sealed", extra=fields(reason=doubt))
        elif not doubt and self._logged_s.pop("clock", None) is not None:
            logger.info("clock no longer in doubt")

    def _serve(self, path: Path) -> None:
        opened = self._open[path]
        try:
            if not self._paused.is_set():
                self._deliver_left_over(path, opened)
                self._seal(path, opened)
                self._replay(path, opened)
            self._keep_bounds(path, opened)
        except SpoolBusy:
            return  # the sensor is writing: the next turn tries again
        except SpoolError as exc:
            self._log_trouble(str(path), exc.message)
            self._drop(path)
        except Exception as exc:
            logger.exception("spool not served", extra=fields(spool=path.name))
            self._log_trouble(str(path), str(exc))
            self._drop(path)

    def _keep_bounds(self, path: Path, opened: _Open) -> None:
        if not self._is_due(opened.bounds_s, _BOUNDS_S):
            return
        opened.bounds_s = self._monotonic()
        dropped = opened.sealer.keep_bounds(self._clock.read())
        if dropped.events:
            self._metrics.spool_dropped.inc(dropped.events)
            logger.warning(
                "spool full", extra=fields(spool=path.name, dropped_events=dropped.events)
            )
        if dropped.replays:
            logger.warning(
                "spool full; batches are not delivered again",
                extra=fields(spool=path.name, batches=dropped.replays),
            )

    def _deliver_left_over(self, path: Path, opened: _Open) -> None:
        """Deliver batches that were sealed earlier, or by the sensor at the end of a day."""
        if opened.waiting and not self._is_due(opened.looked_s, _LEFT_OVER_S):
            return
        opened.looked_s = self._monotonic()
        for batch in opened.sealer.waiting(_WAITING_MAX):
            if (batch.spool, batch.seq) not in opened.waiting:
                self._deliver(path, opened, batch)

    def _seal(self, path: Path, opened: _Open) -> None:
        if not self._is_due(opened.sealed_s, self._seal_interval_s):
            return
        is_alive_due = self._is_due(opened.sealed_s, _ALIVE_S)
        while len(opened.waiting) < _WAITING_MAX and not self._paused.is_set():
            batch = opened.sealer.seal(self._clock.read(), empty=is_alive_due)
            is_alive_due = False
            if batch is None:
                break
            opened.sealed_s = self._monotonic()
            self._deliver(path, opened, batch)

    def _replay(self, path: Path, opened: _Open) -> None:
        """Deliver batches again that a replay asks for, if new batches leave room."""
        for batch in opened.sealer.to_replay(_WAITING_MAX):
            if len(opened.waiting) >= _WAITING_MAX:
                return
            if (batch.spool, batch.seq) not in opened.waiting:
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

    def _settle(self) -> None:
        """Confirm committed batches and hold refused ones; retry failures in the next turn."""
        done: dict[Path, list[_Done]] = {}
        while True:
            try:
                item = self._done.get_nowait()
            except queue.Empty:
                break
            done.setdefault(item.token.path, []).append(item)
        for path, items in done.items():
            opened = self._open.get(path)
            if opened is not None:
                self._settle_in(opened, items)

    def _settle_in(self, opened: _Open, items: list[_Done]) -> None:
        confirmed = [
            (token.spool, token.seq) for token, held_reason in items if held_reason is None
        ]
        try:
            opened.sealer.confirm(confirmed, self._clock.read())
            for token, held_reason in items:
                if held_reason is not None:
                    opened.sealer.hold(token.spool, token.seq, Held.REFUSED, held_reason)
                    opened.sealer.note_failure(held_reason, self._clock.read())
        except SpoolError as exc:
            if not isinstance(exc, SpoolBusy):
                self._log_trouble(str(opened.sealer.path), exc.message)
            for item in items:
                self._done.put(item)
            return
        for token, _ in items:
            opened.waiting.pop((token.spool, token.seq), None)

    def _drop(self, path: Path) -> None:
        opened = self._open.pop(path)
        opened.sealer.close()

    def _log_trouble(self, place: str, reason: str) -> None:
        self._metrics.spool_failures.inc()
        if self._is_due(self._logged_s.get(place), _LOG_AGAIN_S):
            self._logged_s[place] = self._monotonic()
            logger.warning("spool not usable", extra=fields(reason=reason))
