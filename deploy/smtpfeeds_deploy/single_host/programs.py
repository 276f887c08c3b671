"""Runs the sensor and the aggregator as child processes, each with its log and its own session.

Ctrl-C in a terminal reaches only `smtpfeeds up`. When a program ends, its own children are killed.
Start programs from the main thread, because the kernel kills them when the thread that started
them ends.
"""

import os
import subprocess
from collections.abc import Iterable, Mapping
from typing import Any

from smtpfeeds_common.supervision import Child, Report, State

from . import child
from .bounded_log import BoundedLog
from .readiness import Readiness


class Program(Child):
    """A program of smtpfeeds with its log."""

    def __init__(
        self,
        name: str,
        arguments: Iterable[str],
        log: BoundedLog,
        environ: Mapping[str, str],
        report: Report,
    ) -> None:
        """Describe the program; ``start`` starts it.

        Args:
            name: its name for the operator.
            arguments: the arguments of the ``smtpfeeds`` command.
            log: receives its stdout and stderr.
            environ: its environment without NOTIFY_SOCKET.
            report: receives its ends and restarts.
        """
        super().__init__(name, self._run, report, leads_group=True)
        self.log = log
        self._arguments = tuple(arguments)
        self._environ = dict(environ)
        self._log_offset = 0
        self._last_run: _Run | None = None

    @property
    def progress(self) -> Mapping[str, Any]:
        """The last progress report of this run."""
        return {} if self._last_run is None else self._last_run.progress

    def look(self) -> None:
        """Do what is due, and keep the log within its bound."""
        self.log.keep_bound()
        super().look()
        if self.state is State.RUNNING and self._last_run is not None:
            self._last_run.ready()  # also reads its progress reports

    def last_lines(self) -> str:
        """Return the last lines that its last run has logged."""
        return self.log.tail(self._log_offset)

    def _run(self) -> "_Run":
        self._log_offset = self.log.size()
        self._last_run = _Run(child.command(self._arguments), self._environ, self.log)
        return self._last_run


class _Run:
    """One run of a program."""

    def __init__(self, command: list[str], environ: Mapping[str, str], log: BoundedLog) -> None:
        self._readiness = Readiness()
        output = log.open()
        try:
            self._process = subprocess.Popen(
                command,
                env={**environ, "NOTIFY_SOCKET": self._readiness.address},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        except BaseException:
            self._readiness.close()
            raise
        finally:
            os.close(output)

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def progress(self) -> Mapping[str, Any]:
        return self._readiness.progress

    def ready(self) -> bool:
        return self._readiness.look()

    def reap(self) -> int:
        self._readiness.look()  # its last report
        self._readiness.close()
        return self._process.wait()
