"""Report events, troubles and lost events to systemd and `smtpfeeds up`.

systemd accepts reports of the first process alone. With several workers, each writes its values to
a pipe, and the parent reports their sum.
"""

import contextlib
import json
import os
from collections.abc import Collection
from typing import Final, NamedTuple

from smtpfeeds_common.systemd import notify_progress

#: A report must fit into one datagram, and the values of a worker into one write to a pipe.
_REASON_LENGTH: Final = 200
_READ_BYTES: Final = 65_536


class Values(NamedTuple):
    """The values of one process since its start."""

    greets: int
    datas: int
    open_connections: int
    #: Events that a stop lost.
    lost: int
    #: Why the spool cannot be written; empty if it can.
    outage: str = ""
    #: Events that wait for that.
    in_memory: int = 0


class Progress:
    """Reports the values of all processes when they have changed."""

    def __init__(self) -> None:
        self._reported: dict[str, object] = {}

    def report(self, processes: Collection[Values]) -> None:
        """Report the sums."""
        troubles = _troubles(processes)
        values: dict[str, object] = {
            "greets": sum(each.greets for each in processes),
            "datas": sum(each.datas for each in processes),
            "open_connections": sum(each.open_connections for each in processes),
            "troubles": troubles,
            "lost": sum(each.lost for each in processes),
        }
        if values != self._reported:
            self._reported = values
            heard = (
                f"{values['greets']} greets and {values['datas']} data events heard, "
                f"{values['open_connections']} connections open"
            )
            notify_progress("; ".join((*troubles, heard)), values)


class WorkersProgress:
    """Takes the values of workers to their parent; create it before they are forked."""

    def __init__(self) -> None:
        self._reader, self._writer = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._progress = Progress()
        #: In the parent: the newest values of each worker, which stay while it is started again.
        self._newest: dict[int, Values] = {}
        #: In a worker: what it has written.
        self._written: Values | None = None
        self._rest = b""

    def write(self, worker: int, values: Values) -> None:
        """In a worker: write the values if they have changed.

        A pipe takes a line this short as a whole or not at all. If it is full, the next call tries
        again.
        """
        if values != self._written:
            line = json.dumps([worker, *values._replace(outage=_short(values.outage))]) + "\n"
            with contextlib.suppress(BlockingIOError):
                os.write(self._writer, line.encode())
                self._written = values

    def read(self) -> None:
        """In the parent: read what the workers have written, and report it."""
        with contextlib.suppress(BlockingIOError):
            *lines, self._rest = (self._rest + os.read(self._reader, _READ_BYTES)).split(b"\n")
            for worker, *values in map(json.loads, lines):
                self._newest[worker] = Values(*values)
            self._progress.report(self._newest.values())


def _short(reason: str) -> str:
    return reason[:_REASON_LENGTH]


def _troubles(processes: Collection[Values]) -> list[str]:
    """Return what the operator must act on now: the reason of the process with the most events."""
    troubled = [each for each in processes if each.outage]
    if not troubled:
        return []
    worst = max(troubled, key=lambda each: each.in_memory)
    events = sum(each.in_memory for each in troubled)
    share = f" ({len(troubled)} of {len(processes)} workers)" if len(processes) > 1 else ""
    return [
        f"sensor: {_short(worst.outage)}; events in memory: {events}, lost if it stops now{share}"
    ]
