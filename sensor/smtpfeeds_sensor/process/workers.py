"""Run several processes of one sensor on the same ports, each with its own spool.

The parent opens every worker's sockets (SO_REUSEPORT: the kernel spreads the
clients), gives up root, forks, and from then on only supervises. It keeps the
sockets, so a worker that ended is started again without root, and clients that
connect meanwhile wait in its queue. Workers are forked before any reactor exists.

Whatever else becomes a child of the parent (as the first process of a container
it inherits every orphan) is reaped and has no effect.
"""

import contextlib
import functools
import logging
import os
import signal
import sys
from collections.abc import Callable, Sequence
from typing import Final

from smtpfeeds_common.errors import SmtpfeedsError, SpoolError
from smtpfeeds_common.logs import fields
from smtpfeeds_common.signals import STOP_SIGNALS, Signals
from smtpfeeds_common.supervision import Child, State, describe_end, reap_orphans, stop_all

from ..edge import listen
from ..edge.listen import Opened, Place
from ..settings import SensorSettings

logger = logging.getLogger(__name__)

_STOP_S: Final = 10.0
_LOOK_S: Final = 0.1
_HANDLED: Final = (*STOP_SIGNALS, signal.SIGHUP)

#: Runs a worker: takes its sockets, its number, and what to call when it accepts.
Run = Callable[[Sequence[Opened], int, Callable[[], None]], None]


def open_for_workers(settings: SensorSettings, places: Sequence[Place]) -> list[list[Opened]]:
    """Open a set of sockets for each worker, on the same ports.

    All workers share sockets from systemd.
    """
    passed = [place for place in places if place.systemd >= 0]
    ours = [place for place in places if place.systemd < 0]
    open_all = functools.partial(
        listen.open_sockets, backlog=settings.backlog, free=settings.listen_free
    )
    shared = open_all(passed)
    first = open_all(ours, shared=True)
    # For port 0 the kernel chose a port for the first worker; the others use the same.
    real = [
        Place(place.host, one.socket.getsockname()[1])
        for place, one in zip(ours, first, strict=True)
    ]
    others = [open_all(real, shared=True) for _ in range(settings.workers - 1)]
    return [[*shared, *own] for own in (first, *others)]


def run_workers(
    sets: Sequence[Sequence[Opened]],
    run: Run,
    on_ready: Callable[[], None],
    signals: Signals,
    read_again: Callable[[], bool],
    look_at_files: Callable[[], object],
) -> None:
    """Run a worker for each set of sockets until a signal requests a stop.

    Args:
        sets: the sockets of each worker.
        run: runs a worker.
        on_ready: called once all accept.
        signals: the parent's signals.
        read_again: called at SIGHUP; if it returns true, the workers get SIGHUP too.
        look_at_files: reads changed files for workers that are started later; running workers check
            for themselves.

    Raises:
        SpoolError: a worker could not start.
    """
    workers = [
        Child(f"worker {number}", functools.partial(_fork, number, sets, run), _Log())
        for number in range(1, len(sets) + 1)
    ]
    for worker in workers:
        worker.start()
    ready = False
    while not signals.stop:
        for worker in workers:
            worker.look()
        reap_orphans([worker.pid for worker in workers])
        if any(worker.state is State.DOWN for worker in workers):
            stop_all(workers, _STOP_S)
            raise SpoolError("a worker could not start; its log line above says why")
        if not ready and all(worker.state is State.RUNNING for worker in workers):
            ready = True
            on_ready()
        if signals.take_reload() and read_again():
            for worker in workers:
                worker.send(signal.SIGHUP)
        look_at_files()
        signals.wait(_LOOK_S)
    for worker in stop_all(workers, _STOP_S):
        logger.warning("worker did not stop in time; killed", extra=fields(worker=worker.name))


class _Log:
    """Logs what happens to a worker."""

    def ended(self, child: Child, code: int, again_s: float) -> None:
        logger.error(
            "worker ended; it is started again",
            extra=fields(worker=child.name, how=describe_end(code), after_s=again_s),
        )

    def not_started(self, child: Child, error: Exception, again_s: float) -> None:
        logger.error(
            "worker cannot be started",
            extra=fields(worker=child.name, reason=str(error), after_s=again_s),
        )

    def returned(self, child: Child) -> None:
        logger.info("worker runs again", extra=fields(worker=child.name))


class _Forked:
    """One run of a worker, seen from the parent."""

    def __init__(self, pid: int, reader: int) -> None:
        self.pid = pid
        self._reader = reader

    def ready(self) -> bool:
        with contextlib.suppress(BlockingIOError):
            return os.read(self._reader, 1) != b""
        return False

    def reap(self) -> int:
        os.close(self._reader)
        _, status = os.waitpid(self.pid, 0)
        return os.waitstatus_to_exitcode(status)


def _fork(number: int, sets: Sequence[Sequence[Opened]], run: Run) -> _Forked:
    sys.stdout.flush()
    sys.stderr.flush()
    reader, writer = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    # Block signals until the worker has removed the parent's handlers.
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _HANDLED)
    pid = os.fork()
    if pid:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        os.close(writer)
        return _Forked(pid, reader)
    code = 1
    try:
        os.close(reader)
        for handled in _HANDLED:
            signal.signal(handled, signal.SIG_DFL)
        # SIGHUP must not end a worker before it can reload.
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        own = sets[number - 1]
        _close_others(sets, own)
        run(own, number, functools.partial(_report_ready, writer))
        code = 0
    except SmtpfeedsError as exc:
        logger.error("worker cannot run", extra=fields(worker=number, reason=exc.message))  # noqa: TRY400 - the message is the reason
    except BaseException:
        logger.exception("worker failed", extra=fields(worker=number))
    finally:
        sys.stderr.flush()
        os._exit(code)


def _close_others(sets: Sequence[Sequence[Opened]], own: Sequence[Opened]) -> None:
    """Close the sockets of the other workers; the parent keeps all of them."""
    kept = {one.socket.fileno() for one in own}
    for others in sets:
        for one in others:
            if one.socket.fileno() not in kept:
                one.socket.close()


def _report_ready(writer: int) -> None:
    os.write(writer, b".")
    os.close(writer)
