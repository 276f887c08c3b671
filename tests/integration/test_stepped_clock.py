"""The stepped clock of the tests: programs see the step, but not in their monotonic clock."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import psycopg
import pytest

from servers.clock import SteppedClock
from servers.postgres import PostgresServer
from servers.processes import bound_to_parent

MARGIN = timedelta(seconds=60)
#: For each line, prints the wall clock by four calls, and the monotonic clock around a sleep.
PROGRAM = """
import datetime, sys, threading, time
for line in sys.stdin:
    before = time.monotonic()
    time.sleep(0.01)
    threading.Event().wait(0.01)
    print(time.time(), datetime.datetime.now().timestamp(),
          time.clock_gettime(time.CLOCK_REALTIME), time.mktime(time.localtime()),
          time.monotonic() - before, flush=True)
"""
STEPS = [
    timedelta(seconds=1),
    timedelta(hours=-1),
    timedelta(days=40),
    timedelta(days=-3650),
    timedelta(days=3650, microseconds=1),
]


def test_running_program_sees_each_step_and_sleeps_as_long_as_before(clock: SteppedClock) -> None:
    with subprocess.Popen(
        bound_to_parent([sys.executable, "-c", PROGRAM]),
        env=clock.environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as program:
        assert program.stdin is not None
        assert program.stdout is not None
        for step in [timedelta(0), *STEPS]:
            clock.step(step)
            program.stdin.write("\n")
            program.stdin.flush()
            *walls, slept = map(float, program.stdout.readline().split())
            shown = clock.now().timestamp()
            assert all(abs(wall - shown) < MARGIN.total_seconds() for wall in walls)
            assert 0.02 <= slept < MARGIN.total_seconds()
        program.stdin.close()


def test_clock_can_be_set_to_the_beginning_of_the_epoch(clock: SteppedClock) -> None:
    clock.set(datetime(1970, 1, 1, tzinfo=UTC))
    shown = subprocess.run(
        clock.command("date", "+%Y"), capture_output=True, text=True, check=True
    ).stdout
    assert shown == "1970\n"


def test_two_clocks_are_two_hosts(make_clock: Callable[[], SteppedClock]) -> None:
    ahead, right = make_clock(), make_clock()
    ahead.step(timedelta(days=366))
    years = [
        int(subprocess.run(each.command("date", "+%Y"), capture_output=True, check=True).stdout)
        for each in (ahead, right)
    ]
    assert years == [ahead.now().year, right.now().year]
    assert years[0] > years[1]


def test_postgresql_follows_a_step_within_a_session(
    clock: SteppedClock, tmp_path_factory: pytest.TempPathFactory
) -> None:
    server = PostgresServer(tmp_path_factory.mktemp("stepped"), clock=clock)
    with server.private, psycopg.connect(server.create_database(), autocommit=True) as connection:
        for step in [timedelta(0), *STEPS]:
            clock.step(step)
            row = connection.execute("SELECT now(), pg_sleep(0.01)").fetchone()
            assert row is not None
            assert abs(row[0] - clock.now()) < MARGIN


def test_clock_library_without_its_file_ends_the_program(clock_library: Path) -> None:
    """A test whose clock cannot be stepped must fail instead of using the real time."""
    ended = subprocess.run(["true"], env={"LD_PRELOAD": str(clock_library)}, check=False)
    assert ended.returncode < 0
