"""Counts what ingest refused, and names the accounts that flood the queue.

Every refused message is counted in the database (the ``RefusalLedger``), many in one
transaction, and acknowledged after that. The ledger picks a few of each account and
hour: those go to ``RefusedPublisher``, which keeps their bodies. So a flood of refused
messages waits for no confirm of the broker, and pushes no older evidence out of the
queue of the refused. What waits here is bounded by the consumer's prefetch.

Once a second it looks for accounts that flood: the log, the metrics and the database
then name them, refused or not. It stands apart from the publisher, and has a thread of
its own, because a broker short of memory blocks who publishes: counting goes on.
"""

import contextlib
import logging
import queue
import time
from collections.abc import Callable, Sequence
from threading import Event
from typing import Final, Protocol

from smtpfeeds_common.errors import DatabaseError, DatabaseUnavailable
from smtpfeeds_common.logs import fields

from ..accounts import AccountWatch, Flood, RefusedMessage
from ..metrics import Metrics
from . import Delivery, Refusal
from .refused import Sample

logger = logging.getLogger(__name__)

#: Messages that are counted in one transaction.
_COUNTED_AT_ONCE: Final = 1_000
#: How long the first of them is waited for.
_TICK_S: Final = 0.25
_RETRY_S: Final = 2.0
_LOOK_S: Final = 1.0
#: An account's refusals, and its flood, are logged this often.
_LOG_AGAIN_S: Final = 10.0


class RefusalLedger(Protocol):
    """Where refusals are counted; used by one thread."""

    def record(self, messages: Sequence[RefusedMessage]) -> list[int]:
        """Count them; for each, how many octets are to be kept as a sample, or -1: none.

        Raises:
            DatabaseError: nothing is counted.
        """
        ...

    def note_floods(self, floods: Sequence[Flood]) -> None:
        """Write which accounts flood now.

        Raises:
            DatabaseError: it is not written.
        """
        ...

    def close(self) -> None:
        """Give its connection up."""
        ...


class _Log:
    """One line for each account and 10 seconds, however many of its messages are refused."""

    def __init__(self) -> None:
        self._next_s: dict[str, float] = {}
        self._unlogged: dict[str, list[int]] = {}

    def refused(self, messages: Sequence[RefusedMessage], now_s: float) -> None:
        """Log these, or count them for the account's next line."""
        last = {message.account: message for message in messages}
        for message in messages:
            unlogged = self._unlogged.setdefault(message.account, [0, 0])
            unlogged[0] += 1
            unlogged[1] += message.octets
        for account, message in last.items():
            if now_s < self._next_s.get(account, now_s):
                continue
            count, octets = self._unlogged.pop(account)
            logger.warning(
                "refused",
                extra=fields(
                    account=account or "none",
                    code=str(message.code),
                    reason=message.detail[:300],
                    messages=count,
                    octets=octets,
                ),
            )
            self._next_s[account] = now_s + _LOG_AGAIN_S
        self._forget(now_s)

    def _forget(self, now_s: float) -> None:
        for account in [name for name, at_s in self._next_s.items() if now_s > at_s]:
            if account not in self._unlogged:
                del self._next_s[account]


class RefusalCounter:
    """Counts what is refused; ``put`` from any thread, ``run`` in its own."""

    def __init__(
        self,
        ledger: RefusalLedger,
        watch: AccountWatch,
        metrics: Metrics,
        *,
        keep: Callable[[Sample], None],
        acknowledge: Callable[[list[Delivery]], None],
        is_current: Callable[[Delivery], bool],
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """Nothing runs yet.

        Args:
            ledger: where refusals and floods are written.
            watch: knows who floods.
            metrics: show who floods.
            keep: publishes a sample, then acknowledges it.
            acknowledge: for what was counted and is no sample.
            is_current: whether a delivery can still be acknowledged; else it is delivered again.
            monotonic: the clock of looking and of logging again.
        """
        self._monotonic = monotonic
        self._ledger, self._watch, self._metrics = ledger, watch, metrics
        self._keep, self._acknowledge, self._is_current = keep, acknowledge, is_current
        self._waiting: queue.SimpleQueue[tuple[Delivery, Refusal]] = queue.SimpleQueue()
        self._uncounted: list[tuple[Delivery, Refusal]] = []
        self._looked_s = 0.0
        self._log = _Log()
        #: When a flooding account is logged again.
        self._floods: dict[str, float] = {}

    def put(self, delivery: Delivery, refusal: Refusal) -> None:
        """Count this, keep it where it is a sample, then acknowledge the delivery."""
        self._watch.refused(delivery.account, refusal.code)
        self._waiting.put((delivery, refusal))

    def run(self, stop: Event) -> None:
        """Count what comes and look for floods, until stopped."""
        try:
            while not stop.is_set():
                self.turn(stop)
        finally:
            self._ledger.close()

    def turn(self, stop: Event) -> None:
        """Count what waits, or comes within a tick, and look for floods."""
        try:
            self._count(self._take())
            self._look_for_floods()
        except DatabaseError as exc:
            logger.warning("refused not counted yet", extra=fields(reason=exc.message))
            stop.wait(_RETRY_S)
        except Exception:
            # What one account sends, its name included, must not end the program.
            logger.exception("looking for floods failed")
            stop.wait(_RETRY_S)

    def _take(self) -> list[tuple[Delivery, Refusal]]:
        """What waits; where nothing does, what comes within a tick."""
        items, self._uncounted = self._uncounted, []
        with contextlib.suppress(queue.Empty):
            if not items:
                items.append(self._waiting.get(timeout=_TICK_S))
            while len(items) < _COUNTED_AT_ONCE:
                items.append(self._waiting.get_nowait())
        # What is not current is delivered again, and checked again.
        return [item for item in items if self._is_current(item[0])]

    def _count(self, items: list[tuple[Delivery, Refusal]]) -> None:
        if not items:
            return
        messages = [_counted(delivery, refusal) for delivery, refusal in items]
        try:
            samples = self._ledger.record(messages)
        except DatabaseUnavailable:
            self._uncounted = items
            raise
        except Exception:
            # A fault of ours must neither leave them unacknowledged for ever nor end the
            # program: all are kept.
            logger.exception("refused not counted")
            samples = [message.octets for message in messages]
        self._log.refused(messages, self._monotonic())
        self._metrics.note_refused(messages)
        counted = []
        for (delivery, refusal), octets in zip(items, samples, strict=True):
            if octets < 0:
                counted.append(delivery)
            else:
                self._keep(Sample(delivery, refusal, octets))
        self._acknowledge(counted)

    def _look_for_floods(self) -> None:
        """Name the accounts that flood; also those of which nothing is refused."""
        now_s = self._monotonic()
        if now_s - self._looked_s < _LOOK_S:
            return
        self._looked_s = now_s
        floods = self._watch.floods()
        self._metrics.note_floods(floods)
        named = {flood.account for flood in floods}
        for account in [account for account in self._floods if account not in named]:
            del self._floods[account]
            logger.warning("account floods no more", extra=fields(account=account or "none"))
        for flood in floods:
            if now_s >= self._floods.get(flood.account, 0.0):
                self._floods[flood.account] = now_s + _LOG_AGAIN_S
                _log_flood(flood)
        self._ledger.note_floods(floods)


def _counted(delivery: Delivery, refusal: Refusal) -> RefusedMessage:
    detail = refusal.reason
    if not delivery.account:
        # With the documented rights at the broker the routing key is the account's alone.
        detail = f"routing key {delivery.routing_key}: {detail}"
    return RefusedMessage(delivery.account or "", refusal.code, len(refusal.body), detail)


def _log_flood(flood: Flood) -> None:
    logger.warning(
        "account floods; revoke it at the broker if it is not an honest backlog",
        extra=fields(
            account=flood.account or "none",
            reason=flood.reason,
            messages_per_s=round(flood.messages_per_s, 1),
            octets_per_s=round(flood.octets_per_s),
            refused_per_s=round(flood.refused_per_s, 1),
        ),
    )
