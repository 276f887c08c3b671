"""`smtpfeeds up`: runs a private PostgreSQL, the sensor and the aggregator on one host.

The sensor and the aggregator are the same programs as on separate hosts, but the aggregator reads
the sensor's spool instead of a broker. The start order is PostgreSQL, schema, both programs; the
stop order is the reverse. While one of the three is down, the others wait for it. PostgreSQL cannot
start on a full disk. The sensor is then started first, and the rest when there is space.
"""

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

from smtpfeeds_common.backoff import Backoff
from smtpfeeds_common.errors import SingleHostError
from smtpfeeds_common.signals import STOP_SIGNALS, Signals
from smtpfeeds_common.supervision import (
    LONGEST_RESTART_S,
    Child,
    State,
    describe_end,
    reap_orphans,
    stop_all,
)

from .bounded_log import BoundedLog
from .home import Home, Options
from .listening import listening
from .postgres import PrivatePostgres
from .programs import Program
from .status_line import Facts, RunFacts, StatusLine

#: The start fails if a program does not report that it is ready within this time: far more than
#: it needs on a busy machine. A program that ends fails it at once.
_READY_LIMIT_S: Final = 180.0
#: The programs end within this, then PostgreSQL within 3.5 s (2 s of them for an immediate
#: shutdown): together less than 10 s.
_STOP_LIMIT_S: Final = 4.0
_POSTGRES_STOP_LIMIT_S: Final = 1.5
_POLL_S: Final = 0.1

Say = Callable[[str], None]


def handle_signals() -> Signals:
    """Handle signals from now on: SIGINT and SIGTERM stop `smtpfeeds up`.

    With a terminal, SIGHUP means that the terminal is closed, and stops it. A service has no
    terminal; SIGHUP then makes the programs read their files again. If nohup(1) has set SIGHUP to
    be ignored, it stays ignored. A shell starts a background job with SIGINT ignored; SIGINT is
    handled all the same, because someone has sent it on purpose.
    """
    if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:
        return Signals().install(reload=())
    if _has_terminal():
        return Signals().install(stop=(*STOP_SIGNALS, signal.SIGHUP), reload=())
    return Signals().install()


def _has_terminal() -> bool:
    """Return whether there is a controlling terminal; stdin and stdout do not matter."""
    try:
        os.close(os.open("/dev/tty", os.O_RDONLY | os.O_NOCTTY))
    except OSError:
        return False
    return True


class _Stopped(Exception):
    """A signal asked for a stop before everything was ready."""


class SingleHost:
    """Everything that `smtpfeeds up` runs, in one folder."""

    def __init__(
        self, home: Home, options: Options, *, signals: Signals, status_line: StatusLine
    ) -> None:
        """Create the children; ``run`` starts them."""
        self._home, self._options = home, options
        self._signals, self._status_line, self._say = signals, status_line, status_line.say
        self._facts = RunFacts()
        self._report = _ToOperator(status_line.say)
        self._postgres = PrivatePostgres(
            home.folder, stop_limit_s=_POSTGRES_STOP_LIMIT_S, waiting=self._check_stop
        )
        self._server = Child("PostgreSQL", lambda: _Server(self._postgres), self._report)
        environ = home.environment(os.environ, options)
        self._migration = self._program(
            "migration", ("aggregator", "migrate"), home.aggregator_file, environ
        )
        self._sensor = self._program("sensor", ("sensor", "run"), home.sensor_file, environ)
        self._aggregator = self._program(
            "aggregator", ("aggregator", "run"), home.aggregator_file, environ
        )

    def _program(
        self, name: str, verb: tuple[str, str], config: Path, environ: dict[str, str]
    ) -> Program:
        log = BoundedLog(self._home.log(name))
        arguments = (*verb, "--config", str(config))
        return Program(f"the {name}", arguments, log, environ, self._report)

    def run(self, on_ready: Callable[[], None]) -> None:
        """Start everything, run until a signal asks for a stop, and stop everything.

        Raises:
            SingleHostError: the folder is in use, or a program does not start.
        """
        self._home.take()
        try:
            self._start()
            on_ready()
            while not self._signals.stop:
                self._look()
                self._status_line.show(self._gather)
                self._signals.wait(_POLL_S)
            self._status_line.end()
            self._say("stopping")
        except _Stopped:
            self._say("stopped before everything was ready")
        finally:
            self._status_line.end()
            self._end()
            self._home.leave()

    def _gather(self) -> Facts:
        children = (self._server, self._sensor, self._aggregator)
        down = [f"{each.name} is down" for each in children if each.state is not State.RUNNING]
        return self._facts.gather(self._sensor.progress, self._aggregator.progress, down)

    def _start(self) -> None:
        self._say(f"starting the private PostgreSQL in {self._home.folder / 'postgres'}")
        self._until_there_is_room(self._start_database)
        self._say(f"starting the sensor and the aggregator; their logs are in {self._home.logs}")
        for program in (self._sensor, self._aggregator):
            if program.state is State.DOWN:
                program.start()
        self._wait_ready(self._sensor, self._aggregator)

    def _start_database(self) -> None:
        if self._server.state is State.DOWN:
            self._server.start()
            self._say_another_user()
        self._home.write_settings(self._options, self._postgres.dsn)
        self._migrate()

    def _say_another_user(self) -> None:
        if self._postgres.another_user:
            self._say(
                "PostgreSQL does not run as root, and user namespaces are off here: it runs as "
                f"{self._postgres.another_user}, who now owns its folder"
            )

    def _until_there_is_room(self, start: Callable[[], None]) -> None:
        """Call ``start``; while the disk is full, run the sensor alone and try again.

        The sensor needs no database. It uses the settings of the run before and keeps events in
        memory, within its bound.
        """
        backoff = Backoff(LONGEST_RESTART_S, rng=None)
        while True:
            try:
                start()
            except SingleHostError as exc:
                if not self._home.is_full or not self._home.sensor_file.exists():
                    raise
                wait_s = backoff.next_s()
                self._say(f"{exc.message}\nthe disk is full; trying again in {wait_s:g} s")
            else:
                return
            if self._sensor.state is State.DOWN:
                self._sensor.start()
                self._say("the sensor runs meanwhile")
            until_s = time.monotonic() + wait_s
            while time.monotonic() < until_s:
                self._sensor.look()
                self._pause()

    def _migrate(self) -> None:
        self._migration.start()
        while self._migration.state is not State.DOWN:
            self._pause()
            self._migration.look()
        if self._migration.exit_code != 0:
            raise _failed(self._migration)

    def _wait_ready(self, *programs: Program) -> None:
        deadline_s = time.monotonic() + _READY_LIMIT_S
        while any(program.state is not State.RUNNING for program in programs):
            for program in programs:
                program.look()
                if program.state is State.DOWN:
                    raise _failed(program)
                if program.state is State.STARTING and time.monotonic() > deadline_s:
                    raise SingleHostError(
                        f"{program.name} was not ready after {_READY_LIMIT_S:g} s; "
                        f"the end of {program.log.path}:\n{program.last_lines()}"
                    )
            self._pause()

    def _check_stop(self) -> None:
        if self._signals.stop:
            raise _Stopped

    def _pause(self) -> None:
        self._check_stop()
        self._server.look()
        self._signals.wait(_POLL_S)

    def _look(self) -> None:
        """Restart children that ended, and act on SIGHUP."""
        children = (self._server, self._sensor, self._aggregator)
        for child in children:
            child.look()
        self._postgres.keep_log_bound()
        reap_orphans([child.pid for child in children])
        if self._signals.take_reload():
            self._say("SIGHUP: the sensor and the aggregator read their files again")
            for program in (self._sensor, self._aggregator):
                program.send(signal.SIGHUP)

    def _end(self) -> None:
        """Stop the programs at the same time, then PostgreSQL."""
        for program in stop_all((self._sensor, self._aggregator, self._migration), _STOP_LIMIT_S):
            self._say(f"{program.name} did not stop within {_STOP_LIMIT_S:g} s: killed")
        if lost := self._sensor.progress.get("lost", 0):
            self._say(
                f"events lost: {lost}. They were in memory, because the spool could not be written "
                f"({self._sensor.log.path}); free space before you stop it"
            )
        self._postgres.stop()


class _Server:
    """One run of the private PostgreSQL, started and ready."""

    def __init__(self, postgres: PrivatePostgres) -> None:
        postgres.start()
        self._postgres = postgres
        pid = postgres.pid
        if pid is None:
            raise SingleHostError(f"PostgreSQL ended at once; see {postgres.log_path}")
        self.pid = pid

    def ready(self) -> bool:
        return True

    def reap(self) -> int:
        return self._postgres.poll() or 0


class _ToOperator:
    """Reports to the operator when a child ends or returns."""

    def __init__(self, say: Say) -> None:
        self._say = say

    def ended(self, child: Child, code: int, again_s: float) -> None:
        log = f" ({child.log.path})" if isinstance(child, Program) else ""
        self._say(f"{child.name} {describe_end(code)}; starting it again in {again_s:g} s{log}")

    def not_started(self, child: Child, error: Exception, again_s: float) -> None:
        self._say(f"{child.name} cannot be started: {error}; trying again in {again_s:g} s")

    def returned(self, child: Child) -> None:
        self._say(f"{child.name} is back")


def ready_line(home: Home) -> str:
    """Return the line that `smtpfeeds up` prints when everything is ready."""
    addresses = ", ".join(map(str, listening(home.spools)))
    return f"ready: SMTP on {addresses}; feeds in {home.feeds}"


def _failed(program: Program) -> SingleHostError:
    output = program.last_lines() or f"(it wrote nothing to {program.log.path})"
    end = describe_end(program.exit_code or 0)
    return SingleHostError(f"{program.name} {end} before it was ready:\n{output}")
