"""`smtpfeeds up`: everything on one host, restarted, killed, stopped, started again."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import socket
import subprocess
import termios
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import pytest

from acceptance.harness import (
    FEEDS,
    STOP_LIMIT_S,
    Truth,
    clean_environment,
    run_clients,
    wait_for,
    wait_to_agree,
)
from acceptance.processes import Process, descendants, only, still_there
from smtpfeeds_deploy.simulation import synthetic
from smtpfeeds_deploy.simulation.ledger import Session, expected_rows
from smtpfeeds_deploy.simulation.simulate import Target
from smtpfeeds_deploy.single_host import child
from smtpfeeds_deploy.single_host.home import SENSOR
from smtpfeeds_deploy.single_host.listening import listening

START_LIMIT_S = 120.0


@dataclass
class Up:
    """One run of `smtpfeeds up`."""

    folder: Path
    options: list[str]
    process: subprocess.Popen[str] = field(init=False)
    targets: list[Target] = field(init=False, default_factory=list)

    def start(self) -> None:
        with (self.folder.parent / "up.stderr").open("w") as stderr:
            self.process = subprocess.Popen(
                child.command(["up", "--dir", str(self.folder), *self.options]),
                env=clean_environment(),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=stderr,
                text=True,
                # Without a terminal, even if the tests run in one.
                start_new_session=True,
            )

    def wait_ready(self) -> None:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line.startswith("ready"), self.output()
        where = re.findall(r"(\[[0-9a-f:]+\]|[0-9.]+):(\d+)", line)
        self.targets = [Target(host.strip("[]"), int(port), SENSOR) for host, port in where]

    def output(self) -> str:
        return (self.folder.parent / "up.stderr").read_text()

    def family(self) -> set[Process]:
        return descendants(self.process.pid)

    def stop(self, number: signal.Signals) -> float:
        """Send a signal; return how long it took to end."""
        began = time.monotonic()
        self.process.send_signal(number)
        self.process.wait(STOP_LIMIT_S + 20)
        return time.monotonic() - began


@contextmanager
def running(folder: Path, origins: dict[str, str]) -> Iterator[Up]:
    """Run `smtpfeeds up` until it is ready; stop it after the block if it still runs."""
    up = Up(folder, options(origins))
    up.start()
    try:
        up.wait_ready()
        yield up
    finally:
        if up.process.poll() is None:
            up.stop(signal.SIGTERM)
        up.process.communicate()


def options(origins: dict[str, str]) -> list[str]:
    return [
        "--smtp=127.0.0.1:0",
        "--smtp=[::1]:0",
        "--trusted-proxy=127.0.0.0/8",
        "--trusted-proxy=::1/128",
        f"--origin-table={origins['origin_table']}",
        f"--as-names={origins['as_names']}",
        "--publish-every=1",
        "--publish-non-global",
        "--publish-exact-counts",
    ]


def published(sessions: list[Session], folder: Path) -> list[str]:
    """Describe each difference between the published files and what the clients did."""
    origins = {session.source: synthetic.origin_of(session.source) for session in sessions}
    return Truth(sessions, origins, synthetic.AS_NAMES).published(folder / "feeds")


def test_stopped_in_time_without_a_trace_and_everything_there_at_the_next_start(
    tmp_path: Path, synthetic_origins: dict[str, str]
) -> None:
    """After SIGINT or SIGTERM it exits with 0 within 10 s, no process is left, and counts stay."""
    folder = tmp_path / "site"
    sessions: list[Session] = []
    for seed, number in ((1, signal.SIGINT), (2, signal.SIGTERM)):
        with running(folder, synthetic_origins) as up:
            sessions += run_clients(synthetic.visits(80, up.targets, seed=seed))
            wait_to_agree(partial(published, sessions, folder), "the files")
            family = up.family()
            assert len(family) > 3
            assert up.stop(number) < STOP_LIMIT_S
            assert up.process.returncode == 0
            assert still_there(family) == set()
            assert up.targets != []
    assert published(sessions, folder) == []


def test_children_that_are_killed_come_back_and_nothing_is_lost(
    tmp_path: Path, synthetic_origins: dict[str, str]
) -> None:
    """The test kills sensor, aggregator and PostgreSQL with -9; clients come before and after."""
    folder = tmp_path / "site"
    sessions: list[Session] = []
    with running(folder, synthetic_origins) as up:
        for seed, word in enumerate(("sensor run", "aggregator run", "bin/postgres")):
            sessions += run_clients(synthetic.visits(40, up.targets, seed=seed))
            victim = only(
                {p for p in up.family() if " -D " in p.command or "run" in p.command}, word
            )
            os.kill(victim, signal.SIGKILL)
            wait_for_another(up, victim, word)
            up.targets = listening_again(folder)
        sessions += run_clients(synthetic.visits(40, up.targets, seed=9))
        wait_to_agree(partial(published, sessions, folder), "the files")
        assert up.output().count("was killed by SIGKILL; starting it again") == 3
        for part in ("the sensor", "the aggregator", "PostgreSQL"):
            wait_for_line(up, f"{part} is back")
        assert up.stop(signal.SIGTERM) < STOP_LIMIT_S


def wait_for_another(up: Up, killed: int, word: str) -> None:
    """Wait until a killed child is gone and another with this word in its command runs."""
    wait_for(lambda: all(p.pid != killed for p in up.family()), "it is dead")
    wait_for(lambda: any(word in p.command for p in up.family()), f"{word} is back")


def wait_for_line(up: Up, line: str) -> None:
    wait_for(lambda: f"{line}\n" in up.output(), f"the line {line!r}")


def listening_again(folder: Path) -> list[Target]:
    """Wait until the sensor accepts connections; return where it listens."""

    def answers() -> bool:
        try:
            for address in listening(folder / "spool"):
                socket.create_connection(address, timeout=2).close()
        except OSError:
            return False
        return True

    wait_for(answers, "the sensor listens")
    return [Target(host, port, SENSOR) for host, port in listening(folder / "spool")]


def test_killed_itself_it_leaves_no_process_and_loses_nothing(
    tmp_path: Path, synthetic_origins: dict[str, str]
) -> None:
    """After kill -9 of `smtpfeeds up` its children end too, and the same folder starts again."""
    folder = tmp_path / "site"
    with running(folder, synthetic_origins) as up:
        sessions = run_clients(synthetic.visits(60, up.targets, seed=5))
        family = up.family()
        up.process.kill()
        up.process.wait()
        wait_for(lambda: still_there(family) == set(), "every process is gone", 10)
    with running(folder, synthetic_origins) as up:
        sessions += run_clients(synthetic.visits(40, up.targets, seed=6))
        wait_to_agree(partial(published, sessions, folder), "the files")


@pytest.mark.parametrize("columns", [80, 120])
def test_terminal_shows_what_is_heard_and_published(
    tmp_path: Path, synthetic_origins: dict[str, str], columns: int
) -> None:
    """It shows greets, data, the last client with its AS, the last publication, and problems."""
    up = Up(tmp_path / "site", options(synthetic_origins))
    ours, its = os.openpty()
    termios.tcsetwinsize(its, (24, columns))
    shown = Screen(ours)
    up.process = subprocess.Popen(
        child.command(["up", "--dir", str(up.folder), *up.options]),
        env={**clean_environment(), "TERM": "xterm"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=its,
        text=True,
        start_new_session=True,
    )
    os.close(its)
    try:
        up.wait_ready()
        sessions = run_clients(synthetic.visits(80, up.targets, seed=1))
        counts = "greets {}  data {}  published ".format(
            *(events(sessions, feed) for feed in FEEDS)
        )
        wait_for(lambda: shown.line().startswith(counts), counts)
        client = re.compile(r"Z  last [0-9a-f.:]+ (AS\d|NA)")
        wait_for(lambda: client.search(shown.line()) is not None, "the client")
        assert f"logs are in {up.folder}/log" in shown.text().replace("\r\n", "")
        programs = {process for process in up.family() if "run" in process.command}
        os.kill(only(programs, "sensor run"), signal.SIGKILL)
        wait_for(lambda: shown.line().startswith("! the sensor is down  "), "the fault")
        wait_for(lambda: shown.line().startswith(counts), "the counts go on")
        assert max(map(len, shown.drawn)) <= columns - 3
        up.stop(signal.SIGTERM)
        assert shown.line() == ""
    finally:
        if up.process.poll() is None:
            up.stop(signal.SIGTERM)
        up.process.communicate()
        os.close(ours)


def events(sessions: list[Session], feed: str) -> int:
    return sum(row.hits for key, row in expected_rows(sessions).items() if key[0] == feed)


class Screen:
    """What a program shows on its terminal."""

    def __init__(self, terminal: int) -> None:
        self._terminal = terminal
        self._octets = b""
        #: Every line that was drawn, including erased ones.
        self.drawn: list[str] = []
        os.set_blocking(terminal, False)

    def text(self) -> str:
        """Return all output so far."""
        with contextlib.suppress(BlockingIOError, OSError):  # OSError: the writer has closed
            while piece := os.read(self._terminal, 65_536):
                self._octets += piece
        return self._octets.decode()

    def line(self) -> str:
        """Return the current status line."""
        text = self.text()
        drawn = [part.partition("\r\n")[0] for part in text.split("\r\x1b[K")[1:]]
        self.drawn = [part for part in drawn if not part.startswith("smtpfeeds up: ")]
        last = text.rpartition("\r\n")[2]
        return last.rpartition("\r\x1b[K")[2]


def test_hangup_of_a_service_reads_files_again_and_stops_nothing(
    tmp_path: Path, synthetic_origins: dict[str, str]
) -> None:
    """Without a terminal SIGHUP is not a hang-up; with one, it ends `up`."""
    folder = tmp_path / "site"
    with running(folder, synthetic_origins) as up:
        # Database sessions and helper processes of the aggregator start and end.
        family = {each for each in up.family() if "single_host.child" in each.command}
        assert {"sensor", "aggregator"} <= {
            word for each in family for word in each.command.split()
        }
        up.process.send_signal(signal.SIGHUP)
        wait_for(
            lambda: "files read again" in (folder / "log" / "sensor.log").read_text(), "the sensor"
        )
        wait_for(lambda: "SIGHUP" in (folder / "log" / "aggregator.log").read_text(), "the other")
        assert still_there(family) == family
        assert up.stop(signal.SIGTERM) < STOP_LIMIT_S


def test_second_one_on_the_same_folder_is_told_so(
    tmp_path: Path, synthetic_origins: dict[str, str]
) -> None:
    folder = tmp_path / "site"
    with running(folder, synthetic_origins) as up:
        second = run_to_the_end(folder, *options(synthetic_origins))
        assert second.returncode == 3
        assert f"in use by another `smtpfeeds up` (process {up.process.pid})" in second.stderr
        assert up.process.poll() is None


def run_to_the_end(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        child.command(["up", "--dir", str(folder), *arguments]),
        env=clean_environment(),
        capture_output=True,
        text=True,
        timeout=START_LIMIT_S,
        check=False,
    )


def test_port_that_is_taken_ends_the_start_with_the_reason(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        where = f"127.0.0.1:{taken.getsockname()[1]}"
        ended = run_to_the_end(tmp_path / "site", f"--smtp={where}")
    assert ended.returncode == 3
    assert "ready" not in ended.stdout
    assert f"cannot listen on {where}: Address already in use" in ended.stderr


def test_stop_during_the_start_is_heard(tmp_path: Path, synthetic_origins: dict[str, str]) -> None:
    """If it must stop before it is ready, it says so and leaves no process."""
    up = Up(tmp_path / "site", options(synthetic_origins))
    up.start()
    wait_for(lambda: "starting the private PostgreSQL" in up.output(), "it has begun")
    up.process.send_signal(signal.SIGTERM)
    wait_for(lambda: up.process.poll() is not None, "it has ended", STOP_LIMIT_S)
    output, _ = up.process.communicate()
    assert "ready" not in output
    assert "stopped before everything was ready" in up.output()


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (["--smtp=127.0.0.1"], "lacks a port"),
        (["--smtp=127.0.0.1:0", "--trusted-proxy=10.0.0.1/8"], "is an address inside a prefix"),
        (["--smtp=127.0.0.1:0", "--origin-table=/nowhere"], "does not exist"),
        ([], "missing option '--smtp'"),
    ],
)
def test_wrong_use_is_exit_code_2_before_anything_is_made(
    tmp_path: Path, wrong: list[str], message: str
) -> None:
    ended = run_to_the_end(tmp_path / "site", *wrong)
    assert ended.returncode == 2
    assert message in ended.stderr
    assert not (tmp_path / "site").exists()


def test_demo_shows_both_feeds_and_checks_itself(tmp_path: Path) -> None:
    """The whole demo runs with few clients; a second run in the same folder starts anew.

    In the second run, libpq's variables name another database.
    """
    command = child.command(["demo", "--dir", str(tmp_path / "demo"), "--clients", "60"])
    elsewhere = {"PGHOSTADDR": "192.0.2.1", "PGPORT": "1", "PGSERVICE": "nowhere", "PGDATA": "/"}
    for environ in (clean_environment(), clean_environment() | elsewhere):
        ended = subprocess.run(
            command,
            env=environ,
            capture_output=True,
            text=True,
            check=False,
        )
        assert ended.returncode == 0, ended.stdout + ended.stderr
        assert "Checked: the feeds match exactly what 60 clients did" in ended.stdout
        assert "University of Examples" in ended.stdout
        assert "changes, archive and hashes agree with them" in " ".join(ended.stdout.split())
        assert "The feeds, by class" in ended.stdout
        assert f"{tmp_path / 'demo'}/feeds/index.html" in ended.stdout
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "precious").touch()
    command = child.command(["demo", "--dir", str(tmp_path / "mine")])
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ended.returncode == 3
    assert "is not from an earlier demo" in ended.stderr
    assert (tmp_path / "mine" / "precious").exists()
