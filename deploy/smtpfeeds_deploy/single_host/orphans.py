"""Ends PostgreSQL servers whose program has ended.

A postmaster and its children run the program `postgres` in the data folder. Both are checked,
because an operator's shell may be in that folder, and after a crash another program may have the
process id in postmaster.pid. Folders are compared as the kernel knows them, not by path: a
container whose processes are visible here may have another folder with the same path. The process
is opened (pidfd_open(2)) before the check, so the signal cannot reach a later process with the
same id.
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
#: The kernel appends this to the path of a program that an upgrade has replaced.
_REPLACED: Final = " (deleted)"


def servers_in(folder: Path) -> list[int]:
    """Return the visible PostgreSQL processes in this folder."""
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
    """End the servers that still run in this folder.

    Args:
        folder: the data folder.
        first: the process id of the postmaster, if known; it gets SIGINT first, the fast shutdown
            in which it ends its children.
        limit_s: after this time all get SIGQUIT, after twice this time SIGKILL.

    Returns:
        Whether all have ended.
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
        return Path(program).name == _SERVER and (entry / "cwd").samefile(folder)
    except OSError:  # it has ended, or belongs to another user; or there is no such folder
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
    """Open a process; None if the kernel or a sandbox lacks pidfd_open."""
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
