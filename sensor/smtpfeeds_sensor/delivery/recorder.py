"""The recorder commits the events of one reactor turn together, then releases their replies.

An event is in the spool before the client gets its reply, so a killed sensor loses no answered
event. All events of one reactor turn share one commit at its end; their connections hold the
replies until then. The event of a client that has disconnected by then still counts.

No call blocks. The recorder is in one of three states:

    state   on an event      the commit is      a commit that works   locked            else
    FILE    holds replies    at the turn's end  lets replies go       LOCKED            MEMORY
    LOCKED  holds replies    every 3 ms         FILE                  a second: MEMORY  MEMORY
    MEMORY  holds no reply   every second       FILE                  stays             stays

``else`` is a file that cannot be written, or that was damaged and cannot be replaced. Events then
stay folded in memory, within the spool's bound, until there is a file; that is logged and counted.
"""

import logging
from collections.abc import Callable, MutableMapping
from enum import Enum
from pathlib import Path
from typing import Final, Protocol

from smtpfeeds_common.clock import Clock, Reading
from smtpfeeds_common.errors import SpoolBusy, SpoolDamaged, SpoolError
from smtpfeeds_common.logs import fields
from smtpfeeds_common.spool import Bounds, Event

from .timer import Timer

logger = logging.getLogger(__name__)

#: Interval of tries while the spool is locked.
RETRY_S: Final = 0.003
#: How long replies wait for a locked spool.
PATIENCE_S: Final = 1.0
#: Interval of tries while events are kept in memory.
MEMORY_RETRY_S: Final = 1.0
#: How long a note may wait to be written together with events.
NOTES_S: Final = 1.0
#: How long a clean stop retries a spool that cannot be written.
STOP_PATIENCE_S: Final = 2.0
_STOP_RETRY_S: Final = 0.02
#: Shortest time between two checks of the whole file, for which all clients wait.
CHECK_AGAIN_S: Final = 60.0


class EventSpool(Protocol):
    """The part of a spool that the recorder uses."""

    path: Path
    bounds: Bounds
    quarantined: int
    unopened: str

    @property
    def unwritten(self) -> int:
        """Return the number of events that are not in the file."""
        ...

    def fold(self, event: Event) -> bool:
        """Add one event in memory."""
        ...

    def note(self, event: Event, flags: int) -> None:
        """Add behaviours that became known after their event."""

    def commit(self) -> None:
        """Write the folded events."""

    def check(self) -> None:
        """Read the whole file."""

    def replace(self) -> None:
        """Replace a damaged file by a new one."""

    def note_state(
        self,
        reading: Reading,
        *,
        version: str,
        counters: dict[str, int],
        addresses: int = 0,
        client_ms: int | None = None,
        doubt: str = "",
    ) -> None:
        """Write the sensor's state to the file."""

    def close(self) -> None:
        """Close the file."""


class Holder(Protocol):
    """Holds replies until its events are written."""

    def release(self) -> None:
        """Send the replies."""


class Writing(Enum):
    """The state of the recorder; see the table above."""

    FILE = "written before they are answered"
    LOCKED = "waiting for a locked file"
    MEMORY = "kept in memory"


class Recorder:
    """Connects the connections with the spool; use it from the reactor's thread."""

    def __init__(
        self,
        spool: EventSpool,
        timer: Timer,
        clock: Clock,
        count: MutableMapping[str, int],
        *,
        addresses: int = 0,
    ) -> None:
        """Begin with the spool's file, or in memory if there is none yet.

        Args:
            spool: the spool for events.
            timer: the reactor's timers.
            clock: dates events.
            count: the sensor's counters.
            addresses: number of addresses on which the sensor listens; 0: unknown.
        """
        self._spool, self._timer, self._clock, self._count = spool, timer, clock, count
        self._addresses = addresses
        self._holders: list[Holder] = []
        #: Whether a commit is scheduled, and whether it is only for notes and can wait.
        self._is_scheduled = self._is_for_notes = False
        self._locked_since_s = self._next_check_s = 0.0
        self._is_finished = False
        self.state = Writing.FILE
        #: Why events are kept in memory; empty while they are written.
        self.outage = ""
        #: Answered events that could not be written before the end.
        self.lost = 0
        self._note_quarantine()
        if spool.unopened:
            self._keep_in_memory(spool.unopened)

    @property
    def holds_replies(self) -> bool:
        """Return whether replies to new events must wait until ``release`` is called."""
        return self.state is not Writing.MEMORY

    def hear(self, holder: Holder, feed: int, ip: bytes, flags: int, target: int) -> Event:
        """Record one event; if the holder must wait, it is released once the event is written.

        Returns:
            The event with its time, for ``note``.
        """
        utc_ms, elapsed_ms, _ = self._clock.read()
        if utc_ms is None:
            event = Event(feed, ip, elapsed_ms, flags, target, dated=False)
            self._count["events_undated"] += 1
        else:
            event = Event(feed, ip, utc_ms, flags, target)
        if not self._spool.fold(event):
            self._count["events_dropped"] += 1
        if self.state is not Writing.MEMORY:
            if not self._holders or self._holders[-1] is not holder:
                self._holders.append(holder)
            # A commit that is only for notes does not delay replies.
            if not self._is_scheduled or self._is_for_notes:
                self._commit_in(0)
        return event

    def note(self, event: Event, flags: int) -> None:
        """Record behaviours that became known after their event; no reply waits for them."""
        self._spool.note(event, flags)
        if not self._is_scheduled:
            self._is_for_notes = True
            self._is_scheduled = True
            self._timer.callLater(NOTES_S, self._commit_notes)

    # Commits

    def _commit_in(self, delay_s: float) -> None:
        self._is_scheduled, self._is_for_notes = True, False
        self._timer.callLater(delay_s, self._commit)

    def _commit_notes(self) -> None:
        if self._is_for_notes:  # otherwise an earlier commit of events has written them
            self._is_for_notes = False
            self._commit()

    def _commit(self) -> None:
        self._is_scheduled = False
        if self._is_finished:
            return
        try:
            self._try_to_commit()
        except Exception as exc:
            # An unexpected error, but clients wait for their replies.
            logger.exception("spool failed")
            self._keep_in_memory(str(exc))

    def _try_to_commit(self) -> None:
        try:
            self._spool.commit()
        except SpoolBusy as exc:
            self._wait(exc)
        except SpoolDamaged as exc:
            self._replace(exc)
        except SpoolError as exc:
            self._keep_in_memory(exc.message)
        else:
            self._written()

    def _written(self) -> None:
        self._count["spool_commits"] += 1
        if self.state is Writing.MEMORY:
            logger.info("spool written again", extra=fields(spool=str(self._spool.path)))
        self.state, self.outage = Writing.FILE, ""
        self._note_quarantine()
        self._release()

    def _wait(self, reason: SpoolError) -> None:
        now_s = self._timer.seconds()
        if self.state is Writing.FILE:
            self.state, self._locked_since_s = Writing.LOCKED, now_s
            self._count["spool_waits"] += 1
        if self.state is Writing.LOCKED and now_s - self._locked_since_s < PATIENCE_S:
            self._commit_in(RETRY_S)
        else:
            self._keep_in_memory(reason.message)

    def _keep_in_memory(self, reason: str) -> None:
        self.outage = reason
        if self.state is not Writing.MEMORY:
            self.state = Writing.MEMORY
            self._count["spool_outages"] += 1
            logger.error(
                "spool cannot be written; events are kept in memory, within a bound, until it can",
                extra=fields(reason=reason, rows_at_most=self._spool.bounds.memory_rows),
            )
        self._release()
        if not self._is_scheduled:
            self._commit_in(MEMORY_RETRY_S)

    def _replace(self, reason: SpoolDamaged) -> None:
        logger.error("spool is damaged", extra=fields(reason=reason.message))
        try:
            self._spool.replace()
        except SpoolError as exc:
            self._keep_in_memory(exc.message)
            return
        self._note_quarantine()
        if not self._is_scheduled:
            self._commit_in(0)

    def _note_quarantine(self) -> None:
        self._count["spool_replaced"] = self._spool.quarantined

    def _release(self) -> None:
        holders, self._holders = self._holders, []
        for holder in holders:
            holder.release()

    # State

    def note_state(self, *, version: str, client_ms: int | None) -> None:
        """Write the counters to the spool; if it is busy or cannot be written, the next time."""
        if self.state is Writing.MEMORY:
            return
        try:
            self._note_state(version, client_ms)
        except SpoolDamaged as exc:
            self._replace(exc)
        except SpoolBusy:
            return
        except SpoolError as exc:
            logger.warning("state not written to the spool", extra=fields(reason=exc.message))

    def _note_state(self, version: str, client_ms: int | None) -> None:
        self._spool.note_state(
            self._clock.read(),
            version=version,
            counters=dict(self._count),
            addresses=self._addresses,
            client_ms=client_ms,
            doubt=self._clock.doubt,
        )

    def check_file(self) -> None:
        """Check the whole file, at most once a minute, and replace it if it is damaged.

        Recording reads few of its pages, so damage to the others shows in the delivery alone, which
        would fail until the next start.
        """
        now_s = self._timer.seconds()
        if self.state is Writing.MEMORY or now_s < self._next_check_s:
            return
        self._next_check_s = now_s + CHECK_AGAIN_S
        try:
            self._spool.check()
        except SpoolDamaged as exc:
            self._replace(exc)
        except SpoolError as exc:
            logger.warning("spool not checked", extra=fields(reason=exc.message))

    # The end

    def finish(self, *, version: str, client_ms: int | None, then: Callable[[], None]) -> None:
        """Commit all events, write the state and close the spool; then call ``then``.

        For two seconds it retries a spool that is locked or cannot be written.
        """
        until_s = self._timer.seconds() + STOP_PATIENCE_S
        self._finish(version, client_ms, until_s, then)

    def _finish(
        self, version: str, client_ms: int | None, until_s: float, then: Callable[[], None]
    ) -> None:
        trouble = ""
        try:
            self._write_all(version, client_ms)
        except SpoolError as exc:
            trouble = exc.message
        except Exception as exc:
            logger.exception("spool failed")
            trouble = str(exc)
        if trouble and self._timer.seconds() < until_s:
            self._timer.callLater(_STOP_RETRY_S, self._finish, version, client_ms, until_s, then)
            return
        if trouble and self._spool.unwritten:
            self.lost = self._spool.unwritten
            logger.error(
                "events in memory are lost: the spool cannot be written",
                extra=fields(reason=trouble, events=self.lost),
            )
        elif trouble:
            logger.warning(
                "state not saved; all events are in the spool", extra=fields(reason=trouble)
            )
        self._release()
        self._is_finished = True
        self._spool.close()
        then()

    def _write_all(self, version: str, client_ms: int | None) -> None:
        try:
            self._spool.commit()
            self._release()
            self._note_state(version, client_ms)
        except SpoolDamaged:
            self._spool.replace()
            self._spool.commit()
            self._release()
            self._note_state(version, client_ms)
