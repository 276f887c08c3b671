"""Supervises a child process: starts it, watches it, starts it again and stops it.

The workers of a sensor and the programs of a single host are such children. A child is in exactly
one state. Its owner calls ``look`` several times a second; ``look`` does what is due:

    state         event                                              next state
    DOWN          it is started                                      STARTING
    STARTING      it ends and was never ready: the owner decides     DOWN
                  it ends and was ready in an earlier run            BACKING_OFF
                  it is ready                                        RUNNING
                  it is asked to stop                                STOPPING
    RUNNING       it ends                                            BACKING_OFF
                  it is asked to stop                                STOPPING
    BACKING_OFF   the wait is over and it is started                 STARTING
                  it cannot be started                               BACKING_OFF
                  it is asked to stop                                DOWN
    STOPPING      it ends, or is killed at the time limit            DOWN

A process that has ended keeps its process id until it is reaped. The supervisor therefore kills
the rest of the process group before it reaps the process, so that no other program can have the id.
"""

import contextlib
import os
import signal
import time
from collections.abc import Callable, Collection, Iterable
from enum import Enum, auto
from typing import Final, Protocol

from .backoff import Backoff
from .errors import SmtpfeedsError

#: The longest wait before a child is started again.
LONGEST_RESTART_S: Final = 30.0
_POLL_S: Final = 0.02

Clock = Callable[[], float]


class State(Enum):
    """The state of a child."""

    DOWN = auto()
    STARTING = auto()
    RUNNING = auto()
    BACKING_OFF = auto()
    STOPPING = auto()


class Process(Protocol):
    """One run of a child."""

    @property
    def pid(self) -> int:
        """Its process id."""
        ...

    def ready(self) -> bool:
        """Return whether it has reported that it is ready; does not wait."""
        ...

    def reap(self) -> int:
        """Reap it and return its exit code, negative for a signal; called once, after its end."""
        ...


class Report(Protocol):
    """Receives what happens to a child."""

    def ended(self, child: "Child", code: int, again_s: float) -> None:
        """The child ended by itself and is started again in ``again_s``."""

    def not_started(self, child: "Child", error: Exception, again_s: float) -> None:
        """The child could not be started again; the next attempt is in ``again_s``."""

    def returned(self, child: "Child") -> None:
        """The child is ready again."""


class Child:
    """One child process; call all methods from one thread."""

    def __init__(
        self,
        name: str,
        start: Callable[[], Process],
        report: Report,
        *,
        leads_group: bool = False,
        clock: Clock = time.monotonic,
    ) -> None:
        """Describe the child; ``start`` starts it.

        Args:
            name: its name for the operator.
            start: starts one run, and does not wait until it is ready.
            report: receives its ends and restarts.
            leads_group: whether it leads a process group, which is killed when it ends.
            clock: seconds, monotonic.
        """
        self.name = name
        self.state = State.DOWN
        #: How the last run ended, negative for a signal.
        self.exit_code: int | None = None
        self._start, self._report = start, report
        self._leads_group = leads_group
        self._clock = clock
        self._backoff = Backoff(LONGEST_RESTART_S, rng=None)
        self._process: Process | None = None
        self._started_s = self._due_s = 0.0
        self._was_ready = False

    @property
    def pid(self) -> int | None:
        """Its process id until it is reaped."""
        return None if self._process is None else self._process.pid

    def start(self) -> None:
        """Start it, without waiting until it is ready.

        Raises:
            OSError, SmtpfeedsError: from the given ``start``.
        """
        assert self._process is None
        self._started_s = self._clock()
        self._process = self._start()
        self.state = State.STARTING

    def look(self) -> None:
        """Do what is due in the current state."""
        if self.state is State.BACKING_OFF:
            if self._clock() >= self._due_s:
                self._start_again()
        elif self._process is not None and (code := self._take_end()) is not None:
            self._note_end(code)
        elif self.state is State.STARTING and self._process and self._process.ready():
            self.state = State.RUNNING
            if self._was_ready:
                self._report.returned(self)
            self._was_ready = True

    def send(self, number: signal.Signals) -> None:
        """Send it a signal, if it runs."""
        if self._process is not None:
            # It may have ended, but it is not reaped, so no other process has its id.
            with contextlib.suppress(ProcessLookupError):
                os.kill(self._process.pid, number)

    def ask_to_stop(self) -> None:
        """Send SIGTERM, and do not start it again."""
        self.send(signal.SIGTERM)
        self.state = State.DOWN if self._process is None else State.STOPPING

    def kill(self) -> None:
        """Kill it with its process group, and wait until it has ended."""
        if self._process is None:
            return
        self.send(signal.SIGKILL)
        while (code := self._take_end()) is None:
            time.sleep(_POLL_S)
        self.exit_code = code
        self.state = State.DOWN

    def _start_again(self) -> None:
        try:
            self.start()
        except (OSError, SmtpfeedsError) as exc:  # such as no memory, or a full disk
            self._report.not_started(self, exc, self._back_off())

    def _note_end(self, code: int) -> None:
        self.exit_code = code
        if self.state is State.STOPPING or not self._was_ready:
            self.state = State.DOWN
        else:
            self._report.ended(self, code, self._back_off())

    def _back_off(self) -> float:
        again_s = self._backoff.after(self._clock() - self._started_s)
        self._due_s = self._clock() + again_s
        self.state = State.BACKING_OFF
        return again_s

    def _take_end(self) -> int | None:
        """Kill its group, reap it and return its exit code; None while it runs."""
        process = self._process
        assert process is not None
        if os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None:
            return None
        if self._leads_group:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(process.pid, signal.SIGKILL)
        self._process = None
        return process.reap()


def stop_all(children: Iterable[Child], limit_s: float) -> list[Child]:
    """Stop all children at the same time.

    Returns:
        The children that were killed at the time limit.
    """
    stopping = list(children)
    for child in stopping:
        child.ask_to_stop()
    deadline_s = time.monotonic() + limit_s
    while any(child.state is not State.DOWN for child in stopping):
        if time.monotonic() > deadline_s:
            break
        time.sleep(_POLL_S)
        for child in stopping:
            child.look()
    late = [child for child in stopping if child.state is not State.DOWN]
    for child in late:
        child.kill()
    return late


def reap_orphans(ours: Collection[int | None]) -> int:
    """Reap orphans that have ended; the first process of a container inherits all of them.

    Args:
        ours: the caller's own children, which are not reaped here.

    Returns:
        The number of orphans reaped.
    """
    reaped = 0
    with contextlib.suppress(ChildProcessError):  # this process has no child
        while True:
            ended = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
            if ended is None or ended.si_pid in ours:
                break
            os.waitpid(ended.si_pid, 0)
            reaped += 1
    return reaped


def describe_end(code: int) -> str:
    """Describe how a process ended."""
    if code >= 0:
        return f"ended with exit code {code}"
    try:
        return f"was killed by {signal.Signals(-code).name}"
    except ValueError:
        return f"was killed by signal {-code}"
