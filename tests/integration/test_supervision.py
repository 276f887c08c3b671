"""Supervised child processes: real ones, with a clock that the test moves."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from servers.processes import wait_until
from smtpfeeds_common.errors import SingleHostError
from smtpfeeds_common.supervision import Child, State, describe_end, stop_all
from smtpfeeds_deploy.single_host import child as command_line
from smtpfeeds_deploy.single_host.bounded_log import BoundedLog
from smtpfeeds_deploy.single_host.programs import Program

#: Reports that it is ready, then obeys a word at each line of input.
_CHILD = """
import os, signal, subprocess, sys
what = sys.argv[1]
if what == "stubborn":
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
if what == "family":
    print(subprocess.Popen(["sleep", "600"]).pid, flush=True)
if what != "never-ready":
    print("ready", flush=True)
if what in ("ends", "never-ready", "family"):
    sys.stdin.readline()
    sys.exit(7)
signal.pause()
"""


class Run:
    """One run of the child above."""

    def __init__(self, what: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", _CHILD, what],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        assert self.process.stdout is not None
        self.lines: list[str] = []
        os.set_blocking(self.process.stdout.fileno(), False)
        self.reaped = False

    @property
    def pid(self) -> int:
        return self.process.pid

    def ready(self) -> bool:
        assert self.process.stdout is not None
        while line := self.process.stdout.readline():
            self.lines.append(line.strip())
        return "ready" in self.lines

    def end(self) -> None:
        """Let it end by itself, without reaping it."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOWAIT)

    def reap(self) -> int:
        self.reaped = True
        for stream in (self.process.stdin, self.process.stdout):
            assert stream is not None
            stream.close()
        return self.process.wait()


class Supervised:
    """A child with its runs, its clock and its reports."""

    def __init__(self, what: str) -> None:
        self.runs: list[Run] = []
        self.reports: list[str] = []
        self.now_s = 1000.0
        self.refuse = False
        self.child = Child(
            "the child", lambda: self._start(what), self, leads_group=True, clock=lambda: self.now_s
        )

    def _start(self, what: str) -> Run:
        if self.refuse:
            raise SingleHostError("no room")
        self.runs.append(Run(what))
        return self.runs[-1]

    def ended(self, child: Child, code: int, again_s: float) -> None:
        self.reports.append(f"{child.name} {describe_end(code)}, again in {again_s:g} s")

    def not_started(self, child: Child, error: Exception, again_s: float) -> None:
        self.reports.append(f"{child.name}: {error}, again in {again_s:g} s")

    def returned(self, child: Child) -> None:
        self.reports.append(f"{child.name} is back")

    def until(self, state: State) -> None:
        def reached() -> bool:
            self.child.look()
            return self.child.state is state

        wait_until(reached, what=f"it is {state}")

    def run(self) -> None:
        self.child.start()
        self.until(State.RUNNING)


Make = Callable[[str], Supervised]


@pytest.fixture
def supervised() -> Iterator[Make]:
    programs: list[Supervised] = []

    def make(what: str) -> Supervised:
        programs.append(Supervised(what))
        return programs[-1]

    yield make
    for each in programs:
        each.child.kill()


def test_child_that_ends_is_started_again_after_a_wait_that_doubles(supervised: Make) -> None:
    it = supervised("ends")
    it.run()
    for wait_s in (0.5, 1, 2):
        it.runs[-1].end()
        it.until(State.BACKING_OFF)
        it.now_s += wait_s - 0.01
        it.child.look()
        assert it.child.state is State.BACKING_OFF
        it.now_s += 0.01
        it.until(State.RUNNING)
    assert it.reports == [
        "the child ended with exit code 7, again in 0.5 s",
        "the child is back",
        "the child ended with exit code 7, again in 1 s",
        "the child is back",
        "the child ended with exit code 7, again in 2 s",
        "the child is back",
    ]
    assert all(run.reaped for run in it.runs[:-1])


def test_child_that_ran_a_minute_is_started_again_at_once(supervised: Make) -> None:
    it = supervised("ends")
    it.run()
    for ran_s in (1, 1, 61):
        it.now_s += ran_s
        it.runs[-1].end()
        it.until(State.BACKING_OFF)
        it.now_s += 30
        it.until(State.RUNNING)
    assert it.reports[-2] == "the child ended with exit code 7, again in 0.5 s"


def test_end_of_a_child_that_was_never_ready_is_left_to_its_owner(supervised: Make) -> None:
    it = supervised("never-ready")
    it.child.start()
    it.runs[0].end()
    it.until(State.DOWN)
    assert it.child.exit_code == 7
    assert it.reports == []


def test_failed_restart_of_a_child_is_tried_again(supervised: Make) -> None:
    """Without memory for a process, or on a full disk, the supervisor continues."""
    it = supervised("ends")
    it.run()
    it.runs[0].end()
    it.until(State.BACKING_OFF)
    it.refuse = True
    it.now_s += 0.5
    it.child.look()
    it.refuse = False
    it.now_s += 1
    it.until(State.RUNNING)
    assert it.reports[1:] == ["the child: no room, again in 1 s", "the child is back"]


def test_processes_of_a_child_end_with_it(supervised: Make) -> None:
    it = supervised("family")
    it.run()
    grandchild = int(it.runs[0].lines[0])
    it.runs[0].end()
    it.until(State.BACKING_OFF)
    wait_until(lambda: not runs(grandchild), what="the grandchild's end")


def runs(pid: int) -> bool:
    """Return whether a process runs; a zombie does not."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False
    return stat.rpartition(")")[2].split()[0] != "Z"


def test_no_signal_is_sent_to_a_reaped_process_id(
    supervised: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another program may have it by then."""
    sent: list[tuple[int, bool]] = []

    def note(pid: int, number: int) -> None:
        sent.append((pid, any(run.pid == pid and not run.reaped for run in it.runs)))

    it = supervised("ends")
    it.run()
    monkeypatch.setattr(os, "killpg", note)
    monkeypatch.setattr(os, "kill", note)
    it.runs[0].end()
    it.until(State.BACKING_OFF)
    it.child.send(signal.SIGHUP)
    assert stop_all([it.child], 5) == []
    it.child.kill()
    assert it.child.state is State.DOWN
    assert sent == [(it.runs[0].pid, True)]


def test_all_children_are_stopped_at_once_and_killed_after_the_limit(supervised: Make) -> None:
    willing, stubborn, waiting = (supervised(what) for what in ("waits", "stubborn", "ends"))
    for it in (willing, stubborn, waiting):
        it.run()
    waiting.runs[0].end()
    waiting.until(State.BACKING_OFF)
    children = [it.child for it in (willing, stubborn, waiting)]
    assert stop_all(children, 3) == [stubborn.child]
    assert [child.state for child in children] == [State.DOWN] * 3
    assert willing.child.exit_code == -signal.SIGTERM
    assert stubborn.child.exit_code == -signal.SIGKILL


#: In a separate process, because servers of other tests are children of this one.
_ORPHANS = """
import os, subprocess
from smtpfeeds_common.supervision import reap_orphans
def ended(process): os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
print(reap_orphans([]))
ours = subprocess.Popen(["sh", "-c", "read line; exit 7"], stdin=subprocess.PIPE)
orphan = subprocess.Popen(["true"])
ended(orphan)
print(reap_orphans([ours.pid]))
ours.stdin.close()
ended(ours)
print(reap_orphans([ours.pid]))
print(ours.wait())
"""


def test_orphans_are_reaped_and_children_left_to_their_owner() -> None:
    done = subprocess.run(
        [sys.executable, "-c", _ORPHANS], capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == ["0", "1", "0", "7"]


def test_end_of_a_process_in_words() -> None:
    assert describe_end(3) == "ended with exit code 3"
    assert describe_end(-9) == "was killed by SIGKILL"
    assert describe_end(-64 - 3) == "was killed by signal 67"


#: Reports at its end what was lost, as a sensor does.
LOSES = """
import signal
from smtpfeeds_common.systemd import notify, notify_progress
signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
notify("READY=1")
signal.sigwait({signal.SIGTERM})
notify_progress("stopped", {"lost": 3})
"""


class NoReport:
    """Nothing happens to the program that is to be reported."""

    def ended(self, child: object, code: int, again_s: float) -> None:
        raise AssertionError

    def not_started(self, child: object, error: Exception, again_s: float) -> None:
        raise AssertionError

    def returned(self, child: object) -> None:
        raise AssertionError


def test_last_report_of_an_ended_program_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(command_line, "command", lambda arguments: [sys.executable, "-c", LOSES])
    log = BoundedLog(tmp_path / "log")
    program = Program("the sensor", (), log, dict(os.environ), NoReport())
    program.start()

    def is_running() -> bool:
        program.look()
        return program.state is State.RUNNING

    wait_until(is_running, what="the program")
    assert stop_all([program], 60) == []
    assert program.progress == {"lost": 3}
