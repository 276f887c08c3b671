"""SIGTERM, SIGINT and SIGHUP for a program with its own main loop.

A handler only sets a flag and writes an octet to a pipe, so that a wait ends at once. It must not
set a ``threading.Event``, whose lock the interrupted thread may hold.
"""

import contextlib
import math
import os
import select
import signal
from collections.abc import Iterable
from types import FrameType
from typing import Final

STOP_SIGNALS: Final = (signal.SIGTERM, signal.SIGINT)


class Signals:
    """The requests of the signals received so far."""

    def __init__(self) -> None:
        #: Whether the program must stop.
        self.stop = False
        self._reload = False
        self._reader, self._writer = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._poll = select.poll()
        self._poll.register(self._reader, select.POLLIN)

    def install(
        self,
        *,
        stop: Iterable[signal.Signals] = STOP_SIGNALS,
        reload: Iterable[signal.Signals] = (signal.SIGHUP,),
    ) -> "Signals":
        """Handle these signals from here on; call it from the main thread."""
        # The parent may have ignored it; the kernel then discards the exit codes of children.
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        for number in stop:
            signal.signal(number, self._on_stop)
        for number in reload:
            signal.signal(number, self._on_reload)
        return self

    def ask_to_stop(self) -> None:
        """Ask the program to stop; safe to call from any thread."""
        self.stop = True
        self._wake()

    def take_reload(self) -> bool:
        """Return whether SIGHUP came since the last call."""
        reload, self._reload = self._reload, False
        return reload

    def wait(self, limit_s: float) -> None:
        """Wait up to ``limit_s`` for a signal; one that came since the last wait ends it."""
        # select(2) stops at 1,024 descriptors, and a sensor on many addresses has more.
        self._poll.poll(max(0, math.ceil(limit_s * 1000)))
        with contextlib.suppress(BlockingIOError):
            os.read(self._reader, 4096)

    def close(self) -> None:
        """Close the pipe. No signal may arrive after this."""
        os.close(self._reader)
        os.close(self._writer)

    def _on_stop(self, _number: int, _frame: FrameType | None) -> None:
        self.ask_to_stop()

    def _on_reload(self, _number: int, _frame: FrameType | None) -> None:
        self._reload = True
        self._wake()

    def _wake(self) -> None:
        # A full pipe wakes the reader as well.
        with contextlib.suppress(BlockingIOError):
            os.write(self._writer, b".")
