"""The recorder: events of one turn of the reactor, committed together, replies after.

What a client was answered is in the spool before the answer leaves, so a killed
sensor loses nothing that was acknowledged. All events that one turn of the
reactor hears share one commit at the turn's end; the connections that heard
them hold their replies until then. A client that is gone by then still counts.

Nothing here waits. While another process holds the spool's lock the commit is
tried again every few milliseconds; after ``PATIENCE_S``, or at once where the
file cannot be written, replies go out and events stay folded in memory, within
the spool's bound, until the file can be written again. That is said once, and
counted.
"""

import logging
from collections.abc import Callable, MutableMapping
from typing import Final, Protocol

from smtpfeeds_common.errors import SpoolBusy, SpoolDamaged, SpoolError
from smtpfeeds_common.logs import fields
from smtpfeeds_common.spool import Event, Spool

from .timer import Timer

logger = logging.getLogger(__name__)

#: Between two tries while the spool is locked.
RETRY_S: Final = 0.003
#: How long replies are held for a locked spool.
PATIENCE_S: Final = 1.0
#: Between two tries once memory has taken over.
OUTAGE_RETRY_S: Final = 1.0


class Holder(Protocol):
    """Who holds replies until its events are written."""

    def release(self) -> None:
        """Let the replies go."""


class Recorder:
    """Between the connections and the spool; all calls from the reactor's thread."""

    def __init__(
        self,
        spool: Spool,
        reactor: Timer,
        clock: Callable[[], int],
        count: MutableMapping[str, int],
        *,
        sensor: str,
    ) -> None:
        self._spool, self._reactor, self._clock, self._count = spool, reactor, clock, count
        self._sensor = sensor
        self._holders: list[Holder] = []
        self._scheduled = False
        self._waiting_since: float | None = None
        #: Whether events are kept in memory because the file cannot be written.
        self.in_outage = False

    def hear(self, holder: Holder, feed: int, ip: bytes, flags: int, target: int) -> bool:
        """Take one event.

        Returns:
            Whether the replies must be held until ``release`` is called.
        """
        if not self._spool.fold(Event(feed, ip, self._clock(), flags, target)):
            self._count["events_dropped"] += 1
        if self.in_outage:
            return False
        if not self._holders or self._holders[-1] is not holder:
            self._holders.append(holder)
        if not self._scheduled:
            self._scheduled = True
            self._reactor.callLater(0, self._commit)
        return True

    def note_state(self, *, version: str) -> None:
        """Leave the counters in the spool; where it is busy or cannot be written, the next time."""
        if self.in_outage:
            return
        try:
            self._spool.note_state(
                version=version, counters=dict(self._count), now_ms=self._clock()
            )
        except SpoolDamaged as exc:
            self._replace(exc)
        except SpoolBusy:
            return
        except SpoolError as exc:
            logger.warning("counters not written", extra=fields(reason=exc.message))

    def flush(self) -> None:
        """Commit what there is now, for a clean stop.

        Raises:
            SpoolError: it cannot be written.
        """
        self._spool.commit()
        self._release()

    def _commit(self) -> None:
        self._scheduled = False
        try:
            self._spool.commit()
        except SpoolBusy as exc:
            self._wait(exc)
        except SpoolDamaged as exc:
            self._replace(exc)
        except SpoolError as exc:
            self._begin_outage(exc)
        else:
            self._count["spool_commits"] += 1
            self._waiting_since = None
            if self.in_outage:
                self.in_outage = False
                logger.info("spool written again", extra=fields(spool=str(self._spool.path)))
            self._release()

    def _release(self) -> None:
        holders, self._holders = self._holders, []
        for holder in holders:
            holder.release()

    def _wait(self, reason: SpoolError) -> None:
        now = self._reactor.seconds()
        if self._waiting_since is None:
            self._waiting_since = now
            self._count["spool_waits"] += 1
        if self.in_outage or now - self._waiting_since >= PATIENCE_S:
            self._begin_outage(reason)
            return
        self._again(RETRY_S)

    def _begin_outage(self, reason: SpoolError) -> None:
        if not self.in_outage:
            self.in_outage = True
            self._count["spool_outages"] += 1
            logger.error(
                "spool cannot be written; events are kept in memory, within a bound, until it can",
                extra=fields(reason=reason.message, rows_at_most=self._spool.bounds.memory_rows),
            )
        self._waiting_since = None
        self._release()
        self._again(OUTAGE_RETRY_S)

    def _replace(self, reason: SpoolDamaged) -> None:
        logger.error("spool is damaged", extra=fields(reason=reason.message))
        try:
            self._spool.replace(self._sensor)
        except SpoolError as exc:
            self._begin_outage(exc)
            return
        self._count["spool_replaced"] += 1
        self._again(0)

    def _again(self, delay_s: float) -> None:
        self._scheduled = True
        self._reactor.callLater(delay_s, self._commit)
