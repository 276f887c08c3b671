"""`smtpfeeds up`: a private PostgreSQL, the sensor and the aggregator, on this one host.

The sensor and the aggregator are the same two programs that run on hosts of
their own; here the aggregator reads the sensor's spool in place of a broker.
Started in this order: PostgreSQL, the schema, both programs; stopped in the
reverse one. While one of the three is down the others wait for it.
"""

import os
import signal
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Final

from smtpfeeds_common.backoff import Backoff
from smtpfeeds_common.errors import SingleHostError
from smtpfeeds_common.signals import STOP_SIGNALS, Signals

from .bounded_log import BoundedLog
from .home import Home, Wanted
from .listening import listening
from .postgres import PrivatePostgres
from .programs import LONGEST_PAUSE_S, Program, ended

#: A program says that it is ready within this, or the start has failed.
_READY_LIMIT_S: Final = 60.0
#: Both programs together end within this, PostgreSQL within three times its own: 10 s in all.
_STOP_LIMIT_S: Final = 4.0
_POSTGRES_STOP_LIMIT_S: Final = 1.5
_POLL_S: Final = 0.1

Say = Callable[[str], None]


def to_stderr(text: str) -> None:
    """Tell the operator what is going on; stdout is for the line that says `ready`."""
    print(f"smtpfeeds up: {text}", file=sys.stderr, flush=True)  # noqa: T201 - a command's own words


def handle_signals() -> Signals:
    """Stop at SIGINT, SIGTERM and SIGHUP, from here on."""
    # nohup(1) leaves SIGHUP ignored, and means it. A shell's background job is left with SIGINT
    # ignored: one that is sent all the same is meant.
    hangup = signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN
    return Signals().install(
        stop=(*STOP_SIGNALS, signal.SIGHUP) if hangup else STOP_SIGNALS, reload=()
    )


class _Stopped(Exception):
    """A stop was asked for before all was ready."""


class SingleHost:
    """Everything that `smtpfeeds up` runs, in one folder."""

    def __init__(self, home: Home, wanted: Wanted, *, signals: Signals, say: Say) -> None:
        """Nothing is started yet."""
        self._home, self._wanted = home, wanted
        self._signals, self._say = signals, say
        self._postgres = PrivatePostgres(home.folder, stop_limit_s=_POSTGRES_STOP_LIMIT_S)
        self._postgres_backoff = Backoff(LONGEST_PAUSE_S, rng=None)
        self._postgres_started_at = 0.0
        self._postgres_again_at: float | None = None
        environ = home.environment(os.environ, wanted)
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
        return Program(name, (*verb, "--config", str(config)), log, environ)

    def run(self, on_ready: Callable[[], None]) -> None:
        """Start everything, keep it running until a stop is asked for, stop everything.

        Raises:
            SingleHostError: the folder is in use, or something does not start; says why.
        """
        self._home.take()
        try:
            self._start()
            on_ready()
            while not self._signals.stop:
                self._watch()
                self._signals.wait(_POLL_S)
            self._say("stopping")
        except _Stopped:
            self._say("stopped before everything was ready")
        finally:
            self._end()
            self._home.leave()

    def _start(self) -> None:
        self._say(f"starting the private PostgreSQL in {self._home.folder / 'postgres'}")
        self._start_postgres()
        self._home.write_settings(self._wanted, self._postgres.dsn)
        self._migrate()
        self._say("starting the sensor and the aggregator")
        for program in (self._sensor, self._aggregator):
            program.start()
        self._wait_ready(self._sensor, self._aggregator)

    def _start_postgres(self) -> None:
        self._postgres.start()
        self._postgres_started_at = time.monotonic()
        self._postgres_again_at = None

    def _migrate(self) -> None:
        self._migration.start()
        while (code := self._migration.exit_code()) is None:
            self._pause()
        if code != 0:
            raise _failed(self._migration, code)

    def _wait_ready(self, *programs: Program) -> None:
        deadline = time.monotonic() + _READY_LIMIT_S
        while not _all_ready(programs):
            for program in programs:
                code = program.exit_code()
                if code is not None:
                    raise _failed(program, code)
                if time.monotonic() > deadline and not program.ready:
                    raise SingleHostError(
                        f"the {program.name} was not ready after {_READY_LIMIT_S:g} s; "
                        f"the end of {program.log.path}:\n{program.last_words()}"
                    )
            self._pause()

    def _pause(self) -> None:
        if self._signals.stop:
            raise _Stopped
        self._signals.wait(_POLL_S)

    def _watch(self) -> None:
        self._watch_postgres()
        for program in (self._sensor, self._aggregator):
            program.watch(lambda text: self._say(f"the {text}"))

    def _watch_postgres(self) -> None:
        """Bring PostgreSQL back where it has ended; the programs wait for it meanwhile."""
        now = time.monotonic()
        if self._postgres_again_at is None:
            code = self._postgres.poll()
            if code is None:
                return
            pause_s = self._postgres_backoff.after(now - self._postgres_started_at)
            self._postgres_again_at = now + pause_s
            self._say(f"PostgreSQL {ended(code)}; starting it again in {pause_s:g} s")
        elif now >= self._postgres_again_at:
            self._postgres_started_at = now
            try:
                self._start_postgres()
                self._say("PostgreSQL is back")
            except SingleHostError as exc:
                pause_s = self._postgres_backoff.after(0)
                self._postgres_again_at = time.monotonic() + pause_s
                self._say(f"{exc.message}\ntrying again in {pause_s:g} s")

    def _end(self) -> None:
        """Stop what runs: the programs at once, then the database that they use."""
        programs = (self._sensor, self._aggregator, self._migration)
        for program in programs:
            program.ask_to_stop()
        deadline = time.monotonic() + _STOP_LIMIT_S
        for program in programs:
            if not program.wait_or_kill(deadline):
                self._say(f"the {program.name} did not stop within {_STOP_LIMIT_S:g} s: killed")
        self._postgres.stop()


def _all_ready(programs: Iterable[Program]) -> bool:
    """Look at every one of them: what comes is taken."""
    states = [program.ready for program in programs]
    return all(states)


def ready_line(home: Home) -> str:
    """What `smtpfeeds up` prints when everything listens."""
    addresses = ", ".join(map(str, listening(home.spools)))
    return f"ready: SMTP on {addresses}; feeds in {home.feeds}"


def _failed(program: Program, code: int) -> SingleHostError:
    words = program.last_words() or f"(it said nothing in {program.log.path})"
    return SingleHostError(f"the {program.name} {ended(code)} before it was ready:\n{words}")
