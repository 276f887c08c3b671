"""Child processes that end with the tests.

If pytest is killed with -9, no server may stay. The kernel therefore kills a child when the thread
that started it ends (PR_SET_PDEATHSIG), so servers must be started from pytest's main thread.
"""

from __future__ import annotations

import os
import random
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable

from smtpfeeds_common.supervision import Child

# Below Linux's default ephemeral range (32768-60999), so that no client socket takes a port
# before the server binds it.
_PORTS = range(20_000, 32_000)
#: Ends a wait that would never end; no test of speed, because a loaded machine is slow.
HANG_LIMIT_S = 120.0
#: Ports that were returned before; a server that is still starting does not listen yet.
_given: set[int] = set()


class NoReport:
    """Ignores reports, for a test that looks at the child itself."""

    def ended(self, child: Child, code: int, again_s: float) -> None: ...

    def not_started(self, child: Child, error: Exception, again_s: float) -> None: ...

    def returned(self, child: Child) -> None: ...


class ServerFailedError(RuntimeError):
    """A test's server failed."""


def free_port() -> int:
    """Return a TCP port of 127.0.0.1 on which nothing listens, a different one at each call."""
    while True:
        port = random.choice(_PORTS)
        if port in _given:
            continue
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            _given.add(port)
            return port


#: The parent may end before setpriv has asked for the signal, which then never comes.
_IF_PARENT_LIVES = '[ "$PPID" = "$0" ] && exec "$@"'


def bound_to_parent(command: list[str]) -> list[str]:
    """Return a command for a child of this process, which the kernel kills when this one ends."""
    shell = ["sh", "-c", _IF_PARENT_LIVES, str(os.getpid())]
    return [*killed_with_parent(), *shell, *command]


def killed_with_parent() -> list[str]:
    """Return the prefix of a command that the kernel kills when its parent ends."""
    setpriv = shutil.which("setpriv")
    if setpriv is None:
        msg = "setpriv (util-linux) is needed so that no server is left after the tests"
        raise ServerFailedError(msg)
    return [setpriv, "--pdeathsig=KILL", "--"]


def end(process: subprocess.Popen[bytes], *, limit_s: float) -> None:
    """Send SIGTERM to a process, and kill it at the time limit."""
    if process.poll() is None:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(limit_s)
        except subprocess.TimeoutExpired:
            process.kill()
    process.wait()


def wait_until(condition: Callable[[], bool], *, what: str, limit_s: float = HANG_LIMIT_S) -> None:
    """Poll until the condition holds.

    Raises:
        ServerFailedError: it does not hold within the limit; the message contains `what`.
    """
    deadline = time.monotonic() + limit_s
    while not condition():
        if time.monotonic() > deadline:
            msg = f"after {limit_s:g} s this is still not true: {what}"
            raise ServerFailedError(msg)
        time.sleep(0.05)
