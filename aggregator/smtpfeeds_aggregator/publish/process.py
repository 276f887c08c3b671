"""Run each publication in its own process, read its messages, and end it in time.

Ingest shares no interpreter with it, its memory is returned to the system, and its crash is a
failed run. The process uses the same origin table and lists as ingest: it maps the same file, and
gets the lists with its job. ``child`` is its program, ``messages`` has their messages.

The process is in one of three states:

    state      what happens in it                                  next state
    RUNNING    it ends                                             ENDED
               the program stops, or the time limit is over:       ENDING
               it gets SIGTERM
    ENDING     it ends                                             ENDED
               it still runs a few seconds later: it gets SIGKILL  ENDED
    ENDED      its result counts, if it sent one; else why it was ended, or how it ended

The kernel ends it when the aggregator ends. Its session at the database ends with it, and the
directory's lock with that.
"""

import contextlib
import logging
import os
import selectors
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import Any, BinaryIO, Final, Protocol

from smtpfeeds_common import __version__
from smtpfeeds_common.errors import PublishError, SmtpfeedsError
from smtpfeeds_common.logs import fields

from ..classification.lists.table import ListTable
from ..clock.database import ClockInDoubt, DatabaseClock
from ..metrics import Metrics
from ..origin.table.in_memory import OriginTable
from ..settings import AggregatorSettings
from .failures import PublishKilled, PublishTimedOut, carried
from .messages import (
    MAX_LINE_BYTES,
    ClockAnswer,
    ClockQuestion,
    Done,
    Failed,
    FromChild,
    Job,
    Logged,
    decode_from_child,
    encode,
)
from .once import Published
from .stopping import PublishStopped

logger = logging.getLogger(__name__)

MODULE: Final = "smtpfeeds_aggregator.publish.child"
#: From SIGTERM to SIGKILL: shorter than the time that the aggregator's parts have for a stop.
GRACE_S: Final = 3.0
#: A killed process ends at once, unless it waits for a disk that does not answer.
_GONE_S: Final = 5.0
_LOOK_S: Final = 0.2
#: Octets of standard error to keep; only an error of the interpreter writes there.
_MAX_STDERR: Final = 2_000
#: Variables that the child does not get: it does not notify systemd, and has its settings from the
#: job.
_NOT_INHERITED: Final = ("NOTIFY_SOCKET", "WATCHDOG_", "LISTEN_", "SMTPFEEDS_AGGREGATOR_")


class TableInUse(Protocol):
    """Has the origin table in use, like `OriginSource`."""

    @property
    def current(self) -> OriginTable:
        """Return the table in use."""
        ...


class ProcessRunner:
    """Runs publications in processes, one at a time."""

    def __init__(
        self,
        settings: AggregatorSettings,
        origins: TableInUse,
        lists: Callable[[], ListTable],
        clock: DatabaseClock,
        metrics: Metrics,
        *,
        grace_s: float = GRACE_S,
    ) -> None:
        """Create the runner; the time limit of each process is ``settings.publish_timeout_s``."""
        self._settings, self._origins, self._lists = settings, origins, lists
        self._clock, self._metrics = clock, metrics
        self._grace_s = grace_s
        metrics.publish_timeout.set(settings.publish_timeout_s)

    def run(self, unless_made_since: datetime, stop: threading.Event) -> Published | None:
        """Publish in a process, see `scheduled.Runner.run`.

        Raises:
            PublishTimedOut: it took longer than the time limit.
            PublishKilled: a signal from outside ended it.
            SmtpfeedsError: the process's own error.
        """
        with self._process(unless_made_since) as process:
            return Follower(process, self._clock, self._limits(stop)).result()

    def _limits(self, stop: threading.Event) -> "Limits":
        return Limits(stop, self._settings.publish_timeout_s, self._grace_s)

    @contextmanager
    def _process(self, unless_made_since: datetime) -> Iterator["subprocess.Popen[bytes]"]:
        table = self._origins.current
        shared = () if table.descriptor is None else (table.descriptor,)
        with _job_file() as job:
            job.write(encode(self._job(unless_made_since, table)))
            job.flush()
            process = _start(os.getpid(), job.fileno(), (job.fileno(), *shared))
        metrics = self._metrics
        metrics.publish_process_id.set(process.pid)
        metrics.publish_process_started_at.set_to_current_time()
        try:
            yield process
        finally:
            _end(process)
            metrics.publish_process_id.set(0)
            metrics.publish_process_started_at.set(0)

    def _job(self, unless_made_since: datetime, table: OriginTable) -> Job:
        lists = self._lists()
        return Job(
            __version__,
            self._settings,
            unless_made_since,
            [each.as_json() for each in lists.lists],
            lists.generation,
            table.descriptor,
        )


class Limits:
    """Decides when a process must end, and why."""

    def __init__(self, stop: threading.Event, timeout_s: float, grace_s: float) -> None:
        self._stop, self._timeout_s, self._grace_s = stop, timeout_s, grace_s
        self._began_s = time.monotonic()
        self._asked_s: float | None = None
        #: Why it must end; None: it may continue.
        self.reason: PublishError | None = None

    def apply(self, process: "subprocess.Popen[bytes]") -> bool:
        """Send the signal that is due; return whether it was SIGKILL."""
        now_s = time.monotonic()
        if self.reason is None:
            self.reason = self._due(now_s)
            if self.reason is None:
                return False
            self._asked_s = now_s
            process.terminate()
        assert self._asked_s is not None
        if now_s - self._asked_s < self._grace_s:
            return False
        process.kill()
        return True

    def _due(self, now_s: float) -> PublishError | None:
        if self._stop.is_set():
            return PublishStopped()
        if now_s - self._began_s > self._timeout_s:
            return PublishTimedOut(
                f"the publication took longer than {self._timeout_s:g} s (publish_timeout_s) and "
                "was ended; the last good feeds stay. Check the database's load and the disk, or "
                "raise the setting"
            )
        return None


class Follower:
    """Reads the messages of a process until it ends, and answers them."""

    def __init__(
        self, process: "subprocess.Popen[bytes]", clock: DatabaseClock, limits: Limits
    ) -> None:
        self._process, self._clock, self._limits = process, clock, limits
        self._end: Done | Failed | None = None
        self._errors = b""
        self._line = b""
        self._too_long = False

    def result(self) -> Published | None:
        """Follow the process to its end."""
        self._read_to_the_end()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(_GONE_S)
        if errors := self._errors.decode(errors="replace").strip():
            logger.warning("the publishing process reports", extra=fields(stderr=errors))
        end = self._end
        if isinstance(end, Done):
            return end.published
        if self._limits.reason is not None:
            raise self._limits.reason
        if end is not None:
            raise carried(end.name, end.message)
        raise _ended_early(self._process.returncode, errors)

    def _read_to_the_end(self) -> None:
        process = self._process
        assert process.stdout is not None
        assert process.stderr is not None
        with selectors.DefaultSelector() as selector:
            for stream in (process.stdout, process.stderr):
                selector.register(stream, selectors.EVENT_READ)
            while selector.get_map() and not self._limits.apply(process):
                for key, _ in selector.select(_LOOK_S):
                    piece = os.read(key.fd, 65_536)
                    if not piece:
                        selector.unregister(key.fileobj)
                    elif key.fileobj is process.stderr:
                        self._errors = (self._errors + piece)[-_MAX_STDERR:]
                    else:
                        self._take(piece)

    def _take(self, piece: bytes) -> None:
        *lines, rest = (self._line + piece).split(b"\n")
        self._line = rest
        for line in lines:
            if not self._too_long:
                self._take_line(line)
            self._too_long = False
        if len(rest) > MAX_LINE_BYTES:
            logger.warning("the publishing process sent too long a line: dropped")
            self._line, self._too_long = b"", True

    def _take_line(self, line: bytes) -> None:
        try:
            message = decode_from_child(line)
        except ValueError:  # also octets that are not UTF-8
            logger.warning(
                "the publishing process sent an unreadable message: dropped",
                extra=fields(bytes=len(line)),
            )
            return
        self._handle(message)

    def _handle(self, message: FromChild) -> None:
        match message:
            case Logged():
                _log(message)
            case ClockQuestion():
                self._answer(message)
            case _:
                self._end = message

    def _answer(self, question: ClockQuestion) -> None:
        try:
            answer = ClockAnswer(now=self._clock.check_publication(question.reading))
        except ClockInDoubt as exc:
            answer = ClockAnswer(doubt=exc.message)
        assert self._process.stdin is not None
        with contextlib.suppress(OSError):  # it has ended: `result` has the reason
            self._process.stdin.write(encode(answer))


def _ended_early(code: int | None, errors: str) -> SmtpfeedsError:
    """Return the error for a process that ended by itself without a result."""
    if code == -signal.SIGTERM:  # before it handles the signal
        return PublishStopped()
    if code is not None and code < 0:
        with contextlib.suppress(ValueError):
            return PublishKilled(
                f"{signal.Signals(-code).name} ended the process that publishes; the last good "
                "feeds stay. If nobody sent it, the kernel did because memory ran out: see its log"
            )
    last = errors.splitlines()[-1] if errors else f"exit code {code}"
    return PublishError(f"the process that publishes failed: {last}; the last good feeds stay")


def _log(message: Logged) -> None:
    """Log a record of the child as if it were logged here."""
    its_logger = logging.getLogger(message.logger)
    if not its_logger.isEnabledFor(message.level):
        return
    extra: dict[str, Any] = {"fields": message.fields}
    record = its_logger.makeRecord(
        message.logger, message.level, "", 0, message.event, (), None, extra=extra
    )
    record.created = message.created
    record.exc_text = message.traceback or None
    its_logger.handle(record)


def _start(parent: int, job: int, pass_fds: tuple[int, ...]) -> "subprocess.Popen[bytes]":
    environ = {k: v for k, v in os.environ.items() if not k.startswith(_NOT_INHERITED)}
    try:
        return subprocess.Popen(
            [sys.executable, "-P", "-m", MODULE, str(parent), str(job)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            bufsize=0,
            env=environ,
            pass_fds=pass_fds,
        )
    except OSError as exc:
        raise PublishError(f"no process can be started for publishing: {exc}") from exc


def _job_file() -> BinaryIO:
    """Create an unnamed file in memory, which nobody else can open."""
    try:
        return os.fdopen(os.memfd_create("smtpfeeds-publication"), "w+b")
    except OSError as exc:
        raise PublishError(f"no memory for the job of the publishing process: {exc}") from exc


def _end(process: "subprocess.Popen[bytes]") -> None:
    if process.poll() is None:
        process.kill()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(_GONE_S)
    for stream in (process.stdin, process.stdout, process.stderr):
        if stream is not None:
            stream.close()
