"""Servers that outlived whoever started them: found by the folder they work in, and ended.

A postmaster and all its children have the data folder as working directory. That says more than
the number in postmaster.pid, which after a crash may be another program's by now.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Iterable
from pathlib import Path


def processes_in(folder: Path) -> list[int]:
    """Processes whose working directory is this folder, as far as we may see."""
    wanted = str(folder)
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                if str((entry / "cwd").readlink()) == wanted:
                    found.append(int(entry.name))
    return found


def is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def end_processes_in(folder: Path, first: int | None, *, limit_s: float) -> bool:
    """End what still works in this folder.

    Args:
        folder: The data folder.
        first: The postmaster's process id, if known: it is asked for a fast shutdown, in which it
            ends its children itself.
        limit_s: After this long all are told to quit, after twice as long killed.

    Returns:
        Whether none is left.
    """
    if first in processes_in(folder):
        _send([first], signal.SIGINT)
    for sent in (None, signal.SIGQUIT, signal.SIGKILL):
        if sent is not None:
            _send(processes_in(folder), sent)
        deadline = time.monotonic() + limit_s
        while processes_in(folder):
            if time.monotonic() > deadline:
                break
            time.sleep(0.05)
        else:
            return True
    return False


def _send(pids: Iterable[int], number: signal.Signals) -> None:
    for pid in pids:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(pid, number)
