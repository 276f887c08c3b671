"""Ends a child process with the process that started it, however that ends.

It stands alone because each program that starts children of its own needs it. The kernel
does it (prctl(2), PR_SET_PDEATHSIG), so it works after a kill too, and in a container whose
first process does not look after orphans.
"""

import ctypes
import os
import signal
from typing import Final

_PR_SET_PDEATHSIG: Final = 1


def end_with_parent(parent: int) -> None:
    """Have this process killed when its parent ends; end now if the parent has ended.

    The kernel watches the thread that started this process: it must live as long as the parent.

    Args:
        parent: the parent's process id, as the parent itself sees it.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_PDEATHSIG)")
    if os.getppid() != parent:
        raise SystemExit(1)
