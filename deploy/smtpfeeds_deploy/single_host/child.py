"""Run one of the programs so that it never outlives the process that started it.

``python -m smtpfeeds_deploy.single_host.child PARENT COMMAND…`` is ``smtpfeeds COMMAND…``,
except that the kernel kills it when its parent ends (prctl(2),
PR_SET_PDEATHSIG), however that ends. A killed sensor or aggregator loses
nothing: what was answered is in the spool, what was applied is in the database.
"""

import ctypes
import os
import signal
import sys
from collections.abc import Sequence
from typing import Final

from smtpfeeds_common.cli import main

_PR_SET_PDEATHSIG: Final = 1


def command(arguments: Sequence[str]) -> list[str]:
    """The command line that runs ``smtpfeeds ARGUMENTS…`` as a child of this process."""
    return [sys.executable, "-m", __name__, str(os.getpid()), *arguments]


def die_with(parent: int) -> None:
    """Ask the kernel to kill this process when its parent ends; end now where it has ended."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_PDEATHSIG)")
    if os.getppid() != parent:
        raise SystemExit(1)


if __name__ == "__main__":
    die_with(int(sys.argv[1]))
    main(sys.argv[2:], prog_name="smtpfeeds")
