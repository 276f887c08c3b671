"""A wall clock that a test steps while a sensor, an aggregator or PostgreSQL runs.

A small library (``clock.c``) is compiled when a test first needs it and preloaded into the program.
It adds an offset to the wall clocks that the program reads. The host's clock and all monotonic
clocks do not change. Programs that share one clock simulate programs of one host.
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
    """Compile the library into a folder that every user may enter, and return its path."""
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
    """The wall clock of every program that is started with it; monotonic clocks stay real.

    A program gets it at its start: pass `environment` to Popen, or run the result of `command`, or
    use `in_environment` around code that starts children.
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
        """The environment variables that give a program this clock."""
        return dict(self._variables)

    @property
    def environment(self) -> dict[str, str]:
        """This process's environment with the variables of the clock."""
        return {**os.environ, **self._variables}

    def command(self, *words: str) -> list[str]:
        """Return a command that runs ``words`` with this clock."""
        return ["env", *(f"{name}={value}" for name, value in self._variables.items()), *words]

    @contextmanager
    def in_environment(self) -> Iterator[None]:
        """Give the clock to children that this process starts in the block, not to itself."""
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
        """Set the clock to a time; it continues from there."""
        self.offset = time - datetime.now(UTC)

    def now(self) -> datetime:
        """Return the time that the clock shows."""
        return datetime.now(UTC) + self.offset
