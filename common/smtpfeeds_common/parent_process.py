"""Ends a child process when its parent ends.

The kernel does this (prctl(2), PR_SET_PDEATHSIG), so it also works if the parent is killed, and in
a container whose first process does not reap orphans. It is separate because every program that
starts child processes uses it.
"""

import ctypes
import os
import signal
from typing import Final

_PR_SET_PDEATHSIG: Final = 1


def end_with_parent(parent: int) -> None:
    """Ask the kernel to kill this process when its parent ends; exit if it has ended already.

    The kernel watches the thread that started this process, so that thread must live as long as
    the parent.

    Args:
        parent: the process id of the parent, as the parent itself sees it.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_PDEATHSIG)")
    if os.getppid() != parent:
        raise SystemExit(1)
