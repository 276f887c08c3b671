"""A wall clock that a test steps while a sensor, an aggregator or PostgreSQL runs.

A small library (``clock.c``), compiled when a test first asks for it and preloaded into the
program, adds an offset to what the program reads from its wall clocks. The host's clock and all
monotonic clocks stay as they are. Programs that share one clock are programs of one host.
"""

from __future__ import annotations

import mmap
import os
import shutil
import struct
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

from servers.processes import ServerFailedError

_OFFSET = struct.Struct("=q")
_NS = 1_000  # nanoseconds in a microsecond, which is the grain of a timedelta


def compile_library(folder: Path) -> Path:
    """The library, compiled into a folder that every user may enter."""
    compiler = shutil.which("cc")
    if compiler is None:
        msg = "a C compiler (cc) is needed for tests that step a clock"
        raise ServerFailedError(msg)
    library = folder / "clock.so"
    source = Path(__file__).with_name("clock.c")
    subprocess.run(
        [compiler, "-O2", "-Wall", "-Werror", "-shared", "-fPIC", "-o", library, source, "-ldl"],
        check=True,
    )
    library.chmod(0o755)
    return library


class SteppedClock:
    """The wall clock of every program that is started with it; a program's monotonic clock is real.

    Give it to a program at its start, by `environment` (an argument of Popen), by `command`
    (words before a command), or by `in_environment` (what starts children by itself).
    """

    def __init__(self, library: Path, file: Path) -> None:
        """The clock shows the real time until it is stepped."""
        self._variables = {"LD_PRELOAD": str(library), "SMTPFEEDS_TEST_CLOCK": str(file)}
        file.write_bytes(_OFFSET.pack(0))
        file.chmod(0o644)
        with file.open("r+b") as stream:
            self._shared = mmap.mmap(stream.fileno(), _OFFSET.size)

    @property
    def variables(self) -> Mapping[str, str]:
        """The environment variables alone that give a program this clock."""
        return dict(self._variables)

    @property
    def environment(self) -> dict[str, str]:
        """This process's environment, with the clock in it."""
        return {**os.environ, **self._variables}

    def command(self, *words: str) -> list[str]:
        """The same command, run with this clock."""
        return ["env", *(f"{name}={value}" for name, value in self._variables.items()), *words]

    @contextmanager
    def in_environment(self) -> Iterator[None]:
        """Children that this process starts meanwhile get the clock; itself does not."""
        before = {name: os.environ.get(name) for name in self._variables}
        os.environ.update(self._variables)
        try:
            yield
        finally:
            for name, value in before.items():
                if value is None:
                    del os.environ[name]
                else:
                    os.environ[name] = value

    @property
    def offset(self) -> timedelta:
        """How far the clock is ahead of the real one."""
        (nanoseconds,) = _OFFSET.unpack_from(self._shared)
        return timedelta(microseconds=nanoseconds // _NS)

    @offset.setter
    def offset(self, ahead: timedelta) -> None:
        microseconds = ahead // timedelta(microseconds=1)
        _OFFSET.pack_into(self._shared, 0, microseconds * _NS)

    def step(self, by: timedelta) -> None:
        """Move the clock, from one reading of it to the next."""
        self.offset += by

    def set(self, time: datetime) -> None:
        """Have the clock show a time now and go on from there."""
        self.offset = time - datetime.now(UTC)

    def now(self) -> datetime:
        """What the clock shows."""
        return datetime.now(UTC) + self.offset
