"""Counts refused messages, and reports accounts that flood the queue.

It counts every refused message in the database (the ``RefusalLedger``), many in one
transaction, and then acknowledges it. The ledger picks a few messages of each account
and hour as samples; ``RefusedPublisher`` keeps their bodies. So a flood of refused
messages does not wait for confirms of the broker, and does not push older samples out
of the queue of refused messages. The consumer's prefetch bounds the messages that wait
here.

Once a second it looks for accounts that flood, with or without refused messages, and
reports them to the log, the metrics and the database. It is separate from the
publisher, with its own thread, because a broker short of memory blocks publishers, and
counting must continue.
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

#: Most messages in one transaction.
_COUNTED_AT_ONCE: Final = 1_000
#: How long to wait for the first of them.
_TICK_S: Final = 0.25
_RETRY_S: Final = 2.0
_LOOK_S: Final = 1.0
#: An account's refusals, and its flood, are logged this often.
_LOG_AGAIN_S: Final = 10.0


class RefusalLedger(Protocol):
    """Counts refusals; not thread-safe."""

    def record(self, messages: Sequence[RefusedMessage]) -> list[int]:
        """Count messages; return for each how many octets to keep as a sample, -1 for none.

        Raises:
            DatabaseError: nothing was counted.
        """
        ...

    def note_floods(self, floods: Sequence[Flood]) -> None:
        """Record which accounts flood now.

        Raises:
            DatabaseError: nothing was recorded.
        """
        ...

    def close(self) -> None:
        """Close the connection."""
        ...


class _Log:
    """Logs refusals: one line for each account in 10 seconds."""

    def __init__(self) -> None:
        self._next_s: dict[str, float] = {}
        self._unlogged: dict[str, list[int]] = {}

    def refused(self, messages: Sequence[RefusedMessage], now_s: float) -> None:
        """Log messages, or count them for the account's next line."""
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
    """Counts refused messages; any thread calls `put`, `run` has its own."""

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
        """Prepare; `run` counts.

        Args:
            ledger: records refusals and floods.
            watch: knows which accounts flood.
            metrics: shows which accounts flood.
            keep: publishes a sample, then acknowledges it.
            acknowledge: acknowledges counted deliveries that are not samples.
            is_current: whether a delivery can still be acknowledged.
            monotonic: the clock for checks and for repeated log lines.
        """
        self._monotonic = monotonic
        self._ledger, self._watch, self._metrics = ledger, watch, metrics
        self._keep, self._acknowledge, self._is_current = keep, acknowledge, is_current
        self._waiting: queue.SimpleQueue[tuple[Delivery, Refusal]] = queue.SimpleQueue()
        self._uncounted: list[tuple[Delivery, Refusal]] = []
        self._looked_s = 0.0
        self._log = _Log()
        #: By flooding account: when it is logged again.
        self._floods: dict[str, float] = {}

    def put(self, delivery: Delivery, refusal: Refusal) -> None:
        """Queue a refused delivery to be counted, kept if it is a sample, and acknowledged."""
        self._watch.refused(delivery.account, refusal.code)
        self._waiting.put((delivery, refusal))

    def run(self, stop: Event) -> None:
        """Count refused deliveries and look for floods until stopped."""
        try:
            while not stop.is_set():
                self.turn(stop)
        finally:
            self._ledger.close()

    def turn(self, stop: Event) -> None:
        """Count what waits or arrives within a tick, and look for floods."""
        try:
            self._count(self._take())
            self._look_for_floods()
        except DatabaseError as exc:
            logger.warning("refused messages not counted yet", extra=fields(reason=exc.message))
            stop.wait(_RETRY_S)
        except Exception:
            # Nothing that an account sends, not even its name, may end the program.
            logger.exception("flood detection failed")
            stop.wait(_RETRY_S)

    def _take(self) -> list[tuple[Delivery, Refusal]]:
        """Take what waits; if nothing does, wait for one tick."""
        items, self._uncounted = self._uncounted, []
        with contextlib.suppress(queue.Empty):
            if not items:
                items.append(self._waiting.get(timeout=_TICK_S))
            while len(items) < _COUNTED_AT_ONCE:
                items.append(self._waiting.get_nowait())
        # Deliveries of an older session are delivered again, and checked again.
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
            # A bug must neither leave them unacknowledged for ever nor end the program, so
            # all are kept as samples.
            logger.exception("refused messages not counted")
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
        """Report the accounts that flood, even if none of their messages is refused."""
        now_s = self._monotonic()
        if now_s - self._looked_s < _LOOK_S:
            return
        self._looked_s = now_s
        floods = self._watch.floods()
        self._metrics.note_floods(floods)
        named = {flood.account for flood in floods}
        for account in [account for account in self._floods if account not in named]:
            del self._floods[account]
            logger.warning("account stopped flooding", extra=fields(account=account or "none"))
        for flood in floods:
            if now_s >= self._floods.get(flood.account, 0.0):
                self._floods[flood.account] = now_s + _LOG_AGAIN_S
                _log_flood(flood)
        self._ledger.note_floods(floods)


def _counted(delivery: Delivery, refusal: Refusal) -> RefusedMessage:
    detail = refusal.reason
    if not delivery.account:
        # With the documented permissions only that account can publish with this routing key.
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
