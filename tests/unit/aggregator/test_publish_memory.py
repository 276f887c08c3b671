"""Threads of a publishing process share one arena of the C library."""

from __future__ import annotations

import os
import subprocess
import sys

#: Threads that hold memory at the same time, and the C library's own report.
PROGRAM = """
import ctypes, sys, threading
from smtpfeeds_aggregator.publish.memory import use_one_arena

if sys.argv[1] == "one":
    use_one_arena()
libc = ctypes.CDLL(None)
libc.malloc.restype, libc.malloc.argtypes = ctypes.c_void_p, [ctypes.c_size_t]
together = threading.Barrier(4)

def allocate():
    together.wait()
    libc.malloc(100_000)
    together.wait()

threads = [threading.Thread(target=allocate) for _ in range(4)]
for thread in threads: thread.start()
for thread in threads: thread.join()
libc.fdopen.restype = ctypes.c_void_p
stream = ctypes.c_void_p(libc.fdopen(1, b"w"))
libc.malloc_info(0, stream)
libc.fflush(stream)
"""


def arenas(how: str) -> int:
    # A host may set the number of arenas for all its programs.
    fixed = ("MALLOC_ARENA_", "GLIBC_TUNABLES")
    environ = {name: value for name, value in os.environ.items() if not name.startswith(fixed)}
    command = [sys.executable, "-c", PROGRAM, how]
    done = subprocess.run(command, check=True, capture_output=True, text=True, env=environ)
    return done.stdout.count("<heap nr=")


def test_threads_share_one_arena() -> None:
    assert (arenas("one"), arenas("default") > 1) == (1, True)
