"""SIGTERM, SIGINT and SIGHUP for a program that has a main loop of its own.

A handler only sets a flag and writes an octet to a pipe, so a wait ends at once. It must not set
a ``threading.Event``: that takes a lock, which the very thread that the signal interrupts may hold.
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
    """What the signals that came so far ask for."""

    def __init__(self) -> None:
        #: Whether the program is to stop.
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
        # A caller may have left it ignored: then nobody learns how a child ended.
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        for number in stop:
            signal.signal(number, self._on_stop)
        for number in reload:
            signal.signal(number, self._on_reload)
        return self

    def ask_to_stop(self) -> None:
        """Ask for a stop without a signal; from any thread."""
        self.stop = True
        self._wake()

    def take_reload(self) -> bool:
        """Whether SIGHUP came since this was last called."""
        asked, self._reload = self._reload, False
        return asked

    def wait(self, limit_s: float) -> None:
        """Wait until a signal comes, at most for so long; one that came meanwhile ends it too."""
        # Not select(2): a sensor on many addresses has descriptors past its 1,024.
        self._poll.poll(max(0, math.ceil(limit_s * 1000)))
        with contextlib.suppress(BlockingIOError):
            os.read(self._reader, 4096)

    def close(self) -> None:
        """Close the pipe; no signal may come any more."""
        os.close(self._reader)
        os.close(self._writer)

    def _on_stop(self, _number: int, _frame: FrameType | None) -> None:
        self.ask_to_stop()

    def _on_reload(self, _number: int, _frame: FrameType | None) -> None:
        self._reload = True
        self._wake()

    def _wake(self) -> None:
        # A full pipe wakes too.
        with contextlib.suppress(BlockingIOError):
            os.write(self._writer, b".")
