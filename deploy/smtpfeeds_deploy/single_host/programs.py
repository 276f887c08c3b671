"""The sensor and the aggregator as child processes: started, watched, restarted, stopped.

A child that dies is started again after a pause that doubles up to a bound and
begins anew once a child has lived a while. Each child leads a session of its
own: Ctrl-C in a terminal reaches only us, and what a child itself has started
ends with it. Start children from the main thread: the kernel ties their life
to the thread that started them.
"""

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Final

from smtpfeeds_common.backoff import Backoff

from . import child
from .bounded_log import BoundedLog
from .readiness import Readiness

#: The longest pause before a child is started again.
LONGEST_PAUSE_S: Final = 30.0
_POLL_S: Final = 0.05

Clock = Callable[[], float]


class Program:
    """One program of ours that is to run all the time."""

    def __init__(
        self,
        name: str,
        arguments: Iterable[str],
        log: BoundedLog,
        environ: Mapping[str, str],
        clock: Clock = time.monotonic,
    ) -> None:
        """Nothing is started yet.

        Args:
            name: what the operator knows it by.
            arguments: of the ``smtpfeeds`` command.
            log: takes its stdout and stderr.
            environ: its environment, NOTIFY_SOCKET aside.
            clock: seconds, monotonic.
        """
        self.name = name
        self.log = log
        self._arguments = tuple(arguments)
        self._environ = dict(environ)
        self._clock = clock
        self._backoff = Backoff(LONGEST_PAUSE_S, rng=None)
        self._process: subprocess.Popen[bytes] | None = None
        self._readiness: Readiness | None = None
        self._started_at = 0.0
        self._start_again_at: float | None = None
        self._log_offset = 0
        self._comes_back = False

    @property
    def pid(self) -> int | None:
        """Its process id while it runs."""
        return self._process.pid if self._process and self._process.poll() is None else None

    @property
    def ready(self) -> bool:
        """Whether this run of it has said that it is ready."""
        return self._readiness is not None and self._readiness.look()

    def start(self) -> None:
        """Start the process; do not wait for it to be ready."""
        self._forget_readiness()
        self._readiness = Readiness()
        self._start_again_at = None
        self._started_at = self._clock()
        self._log_offset = self.log.size()
        output = self.log.open()
        try:
            self._process = subprocess.Popen(
                child.command(self._arguments),
                env={**self._environ, "NOTIFY_SOCKET": self._readiness.address},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        finally:
            os.close(output)

    def exit_code(self) -> int | None:
        """How it ended, or None while it runs."""
        return None if self._process is None else self._process.poll()

    def watch(self, say: Callable[[str], None]) -> None:
        """Keep it running and its log bounded; call this several times a second."""
        self.log.keep_bound()
        if self._comes_back and self.ready:
            self._comes_back = False
            say(f"{self.name} is back")
        if self._start_again_at is not None:
            if self._clock() >= self._start_again_at:
                self.start()
                self._comes_back = True
        elif (code := self.exit_code()) is not None:
            self._end_group()
            pause_s = self._backoff.after(self._clock() - self._started_at)
            self._start_again_at = self._clock() + pause_s
            say(f"{self.name} {ended(code)}; starting it again in {pause_s:g} s ({self.log.path})")

    def last_words(self) -> str:
        """The end of what this run of it has written."""
        return self.log.tail(self._log_offset)

    def ask_to_stop(self) -> None:
        """SIGTERM; nothing where it is not running."""
        self._start_again_at = None
        if self._process is not None and self._process.poll() is None:
            self._process.terminate()

    def wait_or_kill(self, deadline: float) -> bool:
        """Wait until it has ended, kill it at the deadline; whether it ended by itself."""
        if self._process is None:
            return True
        while (willing := self._process.poll() is not None) is False and self._clock() < deadline:
            time.sleep(_POLL_S)
        self._end_group()
        self._process.wait()
        self._process = None
        self._forget_readiness()
        return willing

    def _end_group(self) -> None:
        """Kill what is left of its session."""
        assert self._process is not None
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, signal.SIGKILL)

    def _forget_readiness(self) -> None:
        if self._readiness is not None:
            self._readiness.close()
            self._readiness = None


def ended(code: int) -> str:
    """Say how a process ended."""
    if code >= 0:
        return f"ended with exit code {code}"
    try:
        return f"was killed by {signal.Signals(-code).name}"
    except ValueError:
        return f"was killed by signal {-code}"
