"""The process in which an aggregator publishes; `process.ProcessRunner` starts it.

    python -P -m smtpfeeds_aggregator.publish.child PARENT JOB

PARENT is the aggregator's process id, JOB the descriptor of a file with the job. It is a new
interpreter and no fork, because threads, locks and connections do not survive a fork. It ends with
its parent, runs at a lower priority than ingest, and is the one that the kernel ends first when
memory runs out. SIGTERM ends the publication before its switch.
"""

import contextlib
import logging
import os
import queue
import signal
import sys
import threading
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Final

from smtpfeeds_common.parent_process import end_with_parent

from .memory import use_one_arena

if TYPE_CHECKING:
    from ..clock.database import Reading
    from ..origin import OriginTable
    from .messages import Job
    from .once import Published

    Send = Callable[["Logged | ClockQuestion | Done | Failed"], None]
    from .messages import ClockAnswer, ClockQuestion, Done, Failed, Logged

#: On a busy host ingest gets thirty times as much processor time as publishing.
_NICENESS: Final = 15
#: The kernel adds this to a process's score when it chooses one to kill for memory; 0 to 1000.
_OOM_SCORE: Final = "500"
#: The aggregator answers at once, unless it or its host is suspended.
_ANSWER_LIMIT_S: Final = 60.0


class Parent:
    """The connection to the aggregator: messages to it, answers from it."""

    def __init__(self, output: int) -> None:
        self._output = output
        self._lock = threading.Lock()
        self._answers: queue.SimpleQueue[bytes] = queue.SimpleQueue()

    def listen(self) -> None:
        """Read answers, and end this process at their end, because the parent has ended."""
        threading.Thread(target=self._read, name="parent", daemon=True).start()

    def send(self, message: "Logged | ClockQuestion | Done | Failed") -> None:
        """Send a message; end this process if nobody reads it."""
        from .messages import encode

        line = memoryview(encode(message))
        with self._lock:
            try:
                while line:
                    line = line[os.write(self._output, line) :]
            except OSError:
                os._exit(3)

    def answer(self) -> "ClockAnswer":
        """Return the next answer.

        Raises:
            PublishStopped: there is no answer.
        """
        import msgspec

        from .messages import ClockAnswer
        from .stopping import PublishStopped

        try:
            line = self._answers.get(timeout=_ANSWER_LIMIT_S)
        except queue.Empty as exc:
            raise PublishStopped(
                f"the aggregator did not answer its publishing process in {_ANSWER_LIMIT_S:g} s; "
                "nothing was published"
            ) from exc
        return msgspec.json.decode(line, type=ClockAnswer)

    def _read(self) -> None:
        with os.fdopen(0, "rb", closefd=False) as answers:
            for line in answers:
                self._answers.put(line)
        os._exit(3)


class ParentsClock:
    """Asks the aggregator about the database's clock, because only it knows the sensors' clocks."""

    def __init__(self, parent: Parent) -> None:
        from ..clock.database import monotonic_s

        self.monotonic = monotonic_s
        self._parent = parent

    def check_publication(self, reading: "Reading") -> datetime:
        """As `DatabaseClock.check_publication`."""
        from ..clock.database import ClockInDoubt
        from .messages import ClockQuestion

        self._parent.send(ClockQuestion(reading))
        answer = self._parent.answer()
        if answer.now is None:
            raise ClockInDoubt(answer.doubt)
        return answer.now


class ToParent(logging.Handler):
    """Sends each log record to the aggregator, which logs it."""

    def __init__(self, send: "Send") -> None:
        super().__init__()
        self._send = send

    def emit(self, record: logging.LogRecord) -> None:
        """Send one record."""
        from .messages import Logged

        traceback = ""
        if record.exc_info:
            traceback = logging.Formatter().formatException(record.exc_info)
        self._send(
            Logged(
                record.name,
                record.levelno,
                record.created,
                record.getMessage(),
                getattr(record, "fields", {}),
                traceback,
            )
        )


def main(arguments: list[str]) -> int:
    """Publish once; return the exit code."""
    parent_pid, job_file = map(int, arguments)
    end_with_parent(parent_pid)
    _give_way()
    use_one_arena()
    # The aggregator must not read a library's output as a message.
    output = os.dup(1)
    os.dup2(2, 1)
    parent = Parent(output)
    parent.listen()
    from smtpfeeds_common.errors import SmtpfeedsError

    from .failures import name_of
    from .messages import Done, Failed

    try:
        published = _publish(parent, job_file)
    except SmtpfeedsError as exc:
        parent.send(Failed(name_of(exc), exc.message))
        return 1
    except Exception as exc:
        logging.getLogger(__name__).exception("publishing failed unexpectedly")
        parent.send(Failed("", f"{type(exc).__name__}: {exc}"))
        return 1
    parent.send(Done(published))
    return 0


def _publish(parent: Parent, job_file: int) -> "Published | None":
    from smtpfeeds_common.signals import Signals

    from .scheduled import publish_scheduled
    from .stopping import PublishStopped

    # These may be sent to all processes, but the aggregator decides when its child ends.
    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    signals = Signals().install(stop=(signal.SIGTERM,), reload=())

    def keep_going() -> None:
        if signals.stop:
            raise PublishStopped

    job = _read_job(job_file)
    logging.basicConfig(
        level=job.settings.log_level.upper(), handlers=[ToParent(parent.send)], force=True
    )
    from ..classification.lists.model import AddressList
    from ..classification.lists.table import ListTable

    lists = ListTable([AddressList.from_json(each) for each in job.lists], job.lists_generation)
    return publish_scheduled(
        job.settings,
        _open_table(job.origin_index),
        lists,
        ParentsClock(parent),
        job.unless_made_since,
        keep_going,
    )


def _give_way() -> None:
    """Give ingest priority for processor and memory, if that is allowed.

    Linux shares the processor among sessions first (sched(7), "The autogroup feature"), so niceness
    alone would not help PostgreSQL's sessions, which work for ingest, against this process. It has
    a session of its own, which is as nice as it is.
    """
    with contextlib.suppress(OSError):
        os.nice(_NICENESS)
    with contextlib.suppress(OSError):
        os.setsid()
        Path("/proc/self/autogroup").write_text(str(_NICENESS), "ascii")
    with contextlib.suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text(_OOM_SCORE, "ascii")


def _read_job(descriptor: int) -> "Job":
    import msgspec

    from smtpfeeds_common import __version__
    from smtpfeeds_common.errors import PublishError

    from .messages import Job, JobVersion

    with os.fdopen(descriptor, "rb") as file:
        file.seek(0)
        content = file.read()
    version = msgspec.json.decode(content, type=JobVersion).version
    if version != __version__:
        raise PublishError(
            f"the aggregator runs version {version}, but version {__version__} is installed now: "
            "restart the aggregator"
        )
    return msgspec.json.decode(content, type=Job)


def _open_table(descriptor: int | None) -> "OriginTable":
    from ..origin.generation import table_of
    from ..origin.table.in_memory import EMPTY
    from ..origin.table.index import OriginIndex

    if descriptor is None:
        return EMPTY
    try:
        return table_of(OriginIndex(descriptor, name="the origin table in use"))
    finally:
        os.close(descriptor)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
