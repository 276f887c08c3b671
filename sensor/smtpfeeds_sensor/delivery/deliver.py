"""Deliver sealed batches from the spool to the broker, with confirms.

This module has the decisions; ``thread`` is the thread that runs them, ``Link`` the connection, and
``state`` the state of the delivery. All waiting batches are in the spool file, so the process may
be killed at any time: a batch is sent again under the same number.

After a confirm the batch is marked as confirmed. If it is too large, smaller batches replace it.
Any other refusal concerns all batches: they wait, with back-off and an alarm. After a lost
connection, or without a confirm in time, the delivery reconnects with back-off and jitter. It seals
nothing while the broker is unavailable, so that repeats fold, or while the host's clock is in
doubt. At most four sealed batches wait. A replay is sent between two sealings, so that it delays no
new batch.
"""

import logging
import random
import threading
import time
from collections.abc import Callable, MutableMapping
from pathlib import Path
from typing import Final

from smtpfeeds_common.backoff import Backoff
from smtpfeeds_common.clock import Clock
from smtpfeeds_common.errors import (
    BatchTooLarge,
    BrokerError,
    BrokerRefused,
    SpoolBusy,
    SpoolDamaged,
    SpoolError,
)
from smtpfeeds_common.logs import fields
from smtpfeeds_common.spool import Bounds, Held, SealedBatch, Sealer
from smtpfeeds_common.wire import MAX_ROWS

from .housekeeping import HOUSEKEEPING_S, age_s, note_dropped
from .link import Link
from .state import Outcome, Progress, State

logger = logging.getLogger(__name__)

#: Sealed batches that may wait for a confirm.
MAX_WAITING: Final = 4
#: Pause while another process holds the spool's lock.
_BUSY_S: Final = 0.05
#: How often a thread that waits on an open connection checks for a stop.
_STOP_LOOK_S: Final = 0.25
#: How often the reason of a lasting failure is written to the spool.
_NOTE_S: Final = 60.0


class Delivery:
    """Delivers from one spool; all calls but ``interrupt`` and ``gauges`` from one thread."""

    def __init__(
        self,
        path: Path,
        link: Link,
        count: MutableMapping[str, int],
        clock: Clock,
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
        self._progress = Progress(
            interval_s=seal_interval_s,
            backoff=Backoff(backoff_max_s, rng=rng),
            monotonic=monotonic,
        )
        self._sealer: Sealer | None = None
        self._next_seal_s = self._next_housekeeping_s = self._next_note_s = 0.0
        self._last_batch_s = monotonic()
        #: Reduced if the broker refuses a batch as too large, until the next start.
        self._most_rows = MAX_ROWS
        self._noted_reason = ""
        #: Whether SQLite called the file malformed at the last step; read by any thread.
        self.reports_damage = False
        self._confirm_s = 0.0
        self._depth = self._bytes = self._waiting = 0
        self._oldest_ms: int | None = None

    # One look

    def step(self) -> float:
        """Do what is due; return the seconds until the next step."""
        try:
            sealer = self._open_spool()
            self._keep_house(sealer)
            self.reports_damage = False
            wait_s = self._progress.broker_wait_s()
            if wait_s:
                return min(wait_s, self._seal_interval_s)
            return self._progress.note(*self._look(sealer))
        except SpoolBusy:
            return _BUSY_S
        except SpoolError as exc:
            self.reports_damage = isinstance(exc, SpoolDamaged)
            self._close_spool()
            return self._progress.note(Outcome.SPOOL_FAILED, exc.message)
        except BrokerError as exc:
            return self._broker_failed(exc)

    def _open_spool(self) -> Sealer:
        if self._sealer is not None and self._sealer.replaced:
            logger.warning("spool was replaced; continuing with the new one")
            self._close_spool()
        if self._sealer is None:
            self._sealer = Sealer(self._path, bounds=self._bounds)
        return self._sealer

    def _look(self, sealer: Sealer) -> tuple[Outcome, str]:
        """Publish waiting batches, seal and publish new ones, then publish replays."""
        self._connect()
        while waiting := sealer.waiting(MAX_WAITING):
            for batch in waiting:
                self._publish(sealer, batch)
        outcome = self._seal(sealer)
        until_s = self._monotonic() + self._seal_interval_s
        while self._monotonic() < until_s and (again := sealer.to_replay(1)):
            self._publish(sealer, again[0], is_replay=True)
        return outcome

    def _connect(self) -> None:
        if not self._link.is_open:
            self._link.open()
            logger.info("connected to the broker")

    def _seal(self, sealer: Sealer) -> tuple[Outcome, str]:
        doubt = self._clock.doubt
        if doubt:
            return Outcome.CLOCK_IN_DOUBT, doubt
        if self._monotonic() < self._next_seal_s:
            return Outcome.WORKED, ""
        self._next_seal_s = self._monotonic() + self._seal_interval_s
        is_alive_due = self._monotonic() - self._last_batch_s >= self._alive_interval_s
        sealed = sealer.seal(self._clock.read(), empty=is_alive_due, most_rows=self._most_rows)
        while sealed is not None:
            self._publish(sealer, sealed)
            sealed = None
            if sealer.has_more(self._most_rows):
                sealed = sealer.seal(self._clock.read(), most_rows=self._most_rows)
        return Outcome.WORKED, ""

    def _publish(self, sealer: Sealer, batch: SealedBatch, *, is_replay: bool = False) -> None:
        self._connect()
        began_s = self._monotonic()
        try:
            self._link.publish(batch)
        except BatchTooLarge as exc:
            self._link.close()
            self._too_large(sealer, batch, exc.message, is_replay=is_replay)
            return
        self._confirm_s = self._monotonic() - began_s
        self._last_batch_s = self._monotonic()
        self._count["batches_confirmed"] += 1
        sealer.confirm([(batch.spool, batch.seq)], self._clock.read())

    def _too_large(
        self, sealer: Sealer, batch: SealedBatch, reason: str, *, is_replay: bool
    ) -> None:
        facts = {"seq": batch.seq, "octets": len(batch.body), "reason": reason}
        if is_replay:
            sealer.give_up_replay(batch.spool, batch.seq)
            logger.error("batch not delivered again: it is too large now", extra=fields(**facts))
        elif rows := sealer.split(batch.spool, batch.seq):
            self._most_rows = min(self._most_rows, rows)
            self._count["batches_split"] += 1
            logger.warning(
                "batch split: the broker calls it too large",
                extra=fields(**facts, rows_from_now_on=self._most_rows),
            )
        else:
            sealer.hold(batch.spool, batch.seq, Held.TOO_LARGE, reason)
            self._count["batches_too_large"] += 1
            logger.error(
                "batch held: the broker calls it too large and it cannot be split; raise the "
                "broker's max_message_size, then `smtpfeeds sensor left-behind deliver`",
                extra=fields(**facts),
            )

    def _keep_house(self, sealer: Sealer) -> None:
        now_s = self._monotonic()
        if now_s < self._next_housekeeping_s:
            return
        self._next_housekeeping_s = now_s + HOUSEKEEPING_S
        note_dropped(sealer.keep_bounds(self._clock.read()), self._count, sealer.bounds)
        self._depth, self._bytes = sealer.depth(), sealer.used_bytes()
        self._waiting, self._oldest_ms = sealer.waiting_state()

    def _broker_failed(self, exc: BrokerError) -> float:
        self._link.close()
        self._count["publish_failures"] += 1
        self._note_failure(exc.message)
        is_refusal = isinstance(exc, BrokerRefused)
        outcome = Outcome.REFUSED if is_refusal else Outcome.UNAVAILABLE
        return self._progress.note(outcome, exc.message)

    def _note_failure(self, reason: str) -> None:
        """Write the reason to the spool, for `sensor status`; if it is busy, the next time."""
        now_s = self._monotonic()
        if self._sealer is None or (reason == self._noted_reason and now_s < self._next_note_s):
            return
        try:
            self._sealer.note_failure(reason, self._clock.read())
        except SpoolError:
            return
        self._noted_reason, self._next_note_s = reason, now_s + _NOTE_S

    # Around it

    def idle(self, wait_s: float, stopping: threading.Event) -> None:
        """Wait, and keep an open connection alive."""
        until_s = self._monotonic() + wait_s
        while not stopping.is_set():
            left_s = until_s - self._monotonic()
            if left_s <= 0:
                return
            if not self._link.is_open:
                stopping.wait(left_s)
                continue
            try:
                self._link.idle(min(left_s, _STOP_LOOK_S))
            except BrokerError as exc:
                self._broker_failed(exc)

    @property
    def state(self) -> State:
        """Return the state of the delivery; callable from any thread."""
        return self._progress.state

    @property
    def reason(self) -> str:
        """Return the reason for the state; empty while it delivers."""
        return self._progress.reason

    def gauges(self) -> dict[str, float]:
        """Return the values for the metrics endpoint; callable from any thread."""
        return {
            "spool_rows": self._depth,
            "spool_bytes": self._bytes,
            "spool_age_seconds": age_s(self._oldest_ms, self._clock.read()),
            "batches_waiting": self._waiting,
            "confirm_latency_seconds": self._confirm_s,
            "broker_connected": int(self._link.is_open),
            "broker_refusing": int(self.state is State.REFUSED),
        }

    def interrupt(self) -> None:
        """Interrupt a wait for the broker; callable from any thread."""
        self._link.interrupt()

    def close(self) -> None:
        """Disconnect, and close the spool."""
        self._link.close()
        self._close_spool()

    def _close_spool(self) -> None:
        if self._sealer is not None:
            self._sealer.close()
            self._sealer = None
