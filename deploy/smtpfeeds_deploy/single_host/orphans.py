"""Servers that outlived their owner: recognised by program and folder, and ended.

A postmaster and all its children are the program `postgres` and work in the data folder. Neither
alone is enough: an operator's shell may stand in that folder, and the number in postmaster.pid
may after a crash be another program's. A process is held by a descriptor (pidfd_open(2)) before it
is looked at, so the signal goes to what was looked at and not to a later process of that number.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final

_SERVER: Final = "postgres"
#: What the kernel appends to the path of a program that was replaced meanwhile, by an upgrade.
_REPLACED: Final = " (deleted)"


def servers_in(folder: Path) -> list[int]:
    """PostgreSQL's processes that work in this folder, as far as we may see."""
    numbers = [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit()]
    return [pid for pid in numbers if _is_server_in(pid, folder)]


def is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def end_servers_in(folder: Path, first: int | None, *, limit_s: float) -> bool:
    """End the servers that still work in this folder.

    Args:
        folder: The data folder.
        first: The postmaster's process id, if known: it is asked for a fast shutdown, in which it
            ends its children itself.
        limit_s: After this long all are asked to quit, after twice as long killed.

    Returns:
        Whether none is left.
    """
    if first is not None:
        _send([first], folder, signal.SIGINT)
    for sent in (None, signal.SIGQUIT, signal.SIGKILL):
        if sent is not None:
            _send(servers_in(folder), folder, sent)
        deadline = time.monotonic() + limit_s
        while servers_in(folder):
            if time.monotonic() > deadline:
                break
            time.sleep(0.05)
        else:
            return True
    return False


def _is_server_in(pid: int, folder: Path) -> bool:
    entry = Path("/proc") / str(pid)
    try:
        program = str((entry / "exe").readlink()).removesuffix(_REPLACED)
        return Path(program).name == _SERVER and str((entry / "cwd").readlink()) == str(folder)
    except OSError:  # it ended, or is another user's
        return False


def _send(pids: Iterable[int], folder: Path, number: signal.Signals) -> None:
    for pid in pids:
        with contextlib.suppress(ProcessLookupError, PermissionError), _held(pid) as held:
            if not _is_server_in(pid, folder):
                continue
            if held is None:
                os.kill(pid, number)
            else:
                signal.pidfd_send_signal(held, number)


@contextlib.contextmanager
def _held(pid: int) -> Iterator[int | None]:
    """A descriptor of the process; None where the kernel or a sandbox has no such thing."""
    try:
        held = os.pidfd_open(pid)
    except ProcessLookupError:
        raise
    except OSError:
        yield None
        return
    try:
        yield held
    finally:
        os.close(held)
