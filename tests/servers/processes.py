"""Child processes that never outlive the tests.

A pytest that is killed with -9 must leave no broker behind: children ask the kernel, by
PR_SET_PDEATHSIG, to be killed when the thread that started them ends. So servers are started from
pytest's main thread.
"""

from __future__ import annotations

import random
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable

from smtpfeeds_common.supervision import Child

# Under Linux's default ephemeral range (32768-60999), so that no client socket takes a port
# between our choosing it and the server's binding it.
_PORTS = range(20_000, 32_000)
#: No promise of a program: it only ends a wait for what never comes. A loaded machine is slow.
HANG_LIMIT_S = 60.0
#: What was given already: a server that is still starting does not listen yet.
_given: set[int] = set()


class NoReport:
    """For a child whose ends and returns a test looks at by itself."""

    def ended(self, child: Child, code: int, again_s: float) -> None: ...

    def not_started(self, child: Child, error: Exception, again_s: float) -> None: ...

    def returned(self, child: Child) -> None: ...


class ServerFailedError(RuntimeError):
    """A test's server did not do what was asked of it."""


def free_port() -> int:
    """A TCP port of 127.0.0.1 on which nothing listens now, and another one at each call."""
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


def bound_to_parent(command: list[str]) -> list[str]:
    """The same command, killed by the kernel when its parent ends."""
    setpriv = shutil.which("setpriv")
    if setpriv is None:
        msg = "setpriv (util-linux) is needed so that no server outlives the tests"
        raise ServerFailedError(msg)
    return [setpriv, "--pdeathsig=KILL", "--", *command]


def end(process: subprocess.Popen[bytes], *, limit_s: float) -> None:
    """Ask the process to stop; kill it when the limit has passed."""
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
        ServerFailedError: It does not hold within the limit; `what` is in the message.
    """
    deadline = time.monotonic() + limit_s
    while not condition():
        if time.monotonic() > deadline:
            msg = f"after {limit_s:g} s this is still not true: {what}"
            raise ServerFailedError(msg)
        time.sleep(0.05)
