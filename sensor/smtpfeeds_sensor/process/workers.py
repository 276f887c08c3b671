"""Several processes of one sensor on the same ports, each with a spool of its own.

The parent opens every worker's sockets (SO_REUSEPORT: the kernel spreads the
clients), gives up root, forks, and from then on only watches. It keeps the
sockets, so a worker that died is begun again without root, and who connected
meanwhile waits in its queue. Forked before any reactor exists.
"""

import functools
import logging
import os
import pwd
import signal
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from smtpfeeds_common.backoff import Backoff
from smtpfeeds_common.errors import SmtpfeedsError, SpoolError
from smtpfeeds_common.logs import fields
from smtpfeeds_common.signals import Signals
from smtpfeeds_common.systemd import notify

from ..edge import listen
from ..edge.listen import Opened, Place
from ..service import announce
from ..settings import SensorSettings
from .privileges import become, make_folder

logger = logging.getLogger(__name__)

_LONGEST_RESTART_S: Final = 30.0
_STOP_S: Final = 10.0

Run = Callable[[Sequence[Opened], int, Callable[[], None]], None]


def open_for_workers(settings: SensorSettings, places: Sequence[Place]) -> list[list[Opened]]:
    """A set of sockets for each worker, on the same ports.

    Sockets that systemd passes are one set that all share.
    """
    passed = [place for place in places if place.systemd >= 0]
    ours = [place for place in places if place.systemd < 0]
    open_all = functools.partial(
        listen.open_sockets, backlog=settings.backlog, free=settings.listen_free
    )
    shared = open_all(passed)
    first = open_all(ours, shared=True)
    # Port 0 was chosen by the kernel for the first: the others take the same.
    real = [
        Place(place.host, one.socket.getsockname()[1])
        for place, one in zip(ours, first, strict=True)
    ]
    others = [open_all(real, shared=True) for _ in range(settings.workers - 1)]
    return [[*shared, *own] for own in (first, *others)]


def run_workers(
    settings: SensorSettings,
    places: Sequence[Place],
    user: pwd.struct_passwd | None,
    run: Run,
) -> None:
    """Run until told to stop.

    Args:
        settings: the sensor's.
        places: where to listen.
        user: whom to become once the sockets are open.
        run: a worker's whole life: sockets, its number, what to call when it accepts.

    Raises:
        SettingsError: an address cannot be listened on.
        SpoolError: a worker could not start.
    """
    sets = open_for_workers(settings, places)
    make_folder(Path(settings.spool_dir), user)
    if user is not None:
        become(user)
    crew = _Crew(sets, run)
    crew.start()
    announce(settings, sets[0])
    crew.watch()
    notify("STOPPING=1")


class _Crew:
    """The workers of one sensor."""

    def __init__(self, sets: Sequence[Sequence[Opened]], run: Run) -> None:
        self._sets, self._run = sets, run
        self._pids: dict[int, int] = {}
        self._began: dict[int, float] = {}
        self._backoffs: dict[int, Backoff] = {}
        self._due: dict[int, float] = {}
        self._signals = Signals()

    def start(self) -> None:
        """Begin all, and wait until each accepts.

        Raises:
            SpoolError: one could not.
        """
        self._signals.install(reload=())
        reader, writer = os.pipe()
        for number in range(1, len(self._sets) + 1):
            self._fork(number, functools.partial(_say_ready, writer))
        os.close(writer)
        ready = b""
        while len(ready) < len(self._sets):
            piece = os.read(reader, len(self._sets))
            if not piece:
                self._end()
                raise SpoolError("a worker could not start; its own line above says why")
            ready += piece
        os.close(reader)

    def watch(self) -> None:
        """Begin again who dies, until told to stop; then end all."""
        while not self._signals.stop:
            self._bury()
            now = time.monotonic()
            for number in [n for n, due in self._due.items() if now >= due]:
                del self._due[number]
                self._fork(number, lambda: None)
            self._signals.wait(0.1)
        self._end()

    def _fork(self, number: int, ready: Callable[[], None]) -> None:
        sys.stdout.flush()
        sys.stderr.flush()
        pid = os.fork()
        if pid:
            self._pids[pid] = number
            self._began[number] = time.monotonic()
            return
        code = 1
        try:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            signal.signal(signal.SIGINT, signal.SIG_DFL)
            self._run(self._sets[number - 1], number, ready)
            code = 0
        except SmtpfeedsError as exc:
            logger.error("worker cannot run", extra=fields(worker=number, reason=exc.message))  # noqa: TRY400 - the reason is said
        except BaseException:
            logger.exception("worker failed", extra=fields(worker=number))
        finally:
            sys.stderr.flush()
            os._exit(code)

    def _bury(self) -> None:
        while self._pids:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if not pid:
                return
            number = self._pids.pop(pid)
            now = time.monotonic()
            backoff = self._backoffs.setdefault(number, Backoff(_LONGEST_RESTART_S, rng=None))
            wait_s = backoff.after(now - self._began[number])
            self._due[number] = now + wait_s
            logger.error(
                "worker died; it is begun again",
                extra=fields(worker=number, status=status, after_s=wait_s),
            )

    def _end(self) -> None:
        for pid in self._pids:
            os.kill(pid, signal.SIGTERM)
        until = time.monotonic() + _STOP_S
        while self._pids and time.monotonic() < until:
            pid, _ = os.waitpid(-1, os.WNOHANG)
            if pid:
                del self._pids[pid]
            else:
                time.sleep(0.02)
        for pid in self._pids:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)


def _say_ready(writer: int) -> None:
    os.write(writer, b".")
    os.close(writer)
