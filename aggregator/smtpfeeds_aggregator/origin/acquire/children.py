"""Start a child process for an origin task, follow it, end it in time."""

import json
import os
import selectors
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from typing import Any, Final

from smtpfeeds_common.errors import OriginError

_CHILD: Final = "smtpfeeds_aggregator.origin.acquire.child"
#: How often a waiting parent looks whether it is to stop.
_LOOK_S: Final = 0.5
#: Of what a child writes to stderr this much is kept for the message.
_MAX_STDERR: Final = 2_000

Progress = Callable[[str], None]


def run_child(
    command: str,
    arguments: dict[str, Any],
    *,
    timeout_s: float,
    pass_fds: tuple[int, ...] = (),
    stop: threading.Event | None = None,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Run one command of `child` and give its result.

    Raises:
        OriginError: it failed, died, took longer than `timeout_s`, or was stopped.
    """
    environ = {k: v for k, v in os.environ.items() if k != "PYTHONOPTIMIZE"}
    try:
        child = subprocess.Popen(
            [sys.executable, "-P", "-m", _CHILD, command, json.dumps(arguments)],
            # Never written to: its end tells the child that this process is gone.
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=environ,
            pass_fds=pass_fds,
        )
    except OSError as exc:
        raise OriginError(f"no process could be started for the origin table: {exc}") from exc
    try:
        said, errors = _follow(child, time.monotonic() + timeout_s, stop, progress)
        child.wait(timeout=10)
    except TimeoutError as exc:
        raise OriginError(f"the origin table took longer than {timeout_s:g} s: {exc}") from exc
    finally:
        if child.poll() is None:
            child.kill()
        child.wait()
        for stream in (child.stdin, child.stdout, child.stderr):
            if stream:
                stream.close()
    if "result" in said:
        result: dict[str, Any] = said["result"]
        return result
    if "error" in said:
        raise OriginError(said["error"])
    last = errors.strip().splitlines()[-1:] or [f"exit code {child.returncode}"]
    raise OriginError(f"the process for the origin table failed: {last[0]}")


def _follow(
    child: "subprocess.Popen[bytes]",
    deadline: float,
    stop: threading.Event | None,
    progress: Progress | None,
) -> tuple[dict[str, Any], str]:
    """Read both pipes until they end; the last message and the tail of stderr."""
    assert child.stdout is not None
    assert child.stderr is not None
    buffers = {child.stdout: b"", child.stderr: b""}
    last: dict[str, Any] = {}
    with selectors.DefaultSelector() as selector:
        for stream in buffers:
            selector.register(stream, selectors.EVENT_READ)
        while selector.get_map():
            if stop is not None and stop.is_set():
                raise OriginError("stopped while the origin table was being made")
            if time.monotonic() > deadline:
                raise TimeoutError("the process was ended")
            for key, _ in selector.select(_LOOK_S):
                piece = os.read(key.fd, 65536)
                if not piece:
                    selector.unregister(key.fileobj)
                    continue
                if key.fileobj is child.stderr:
                    buffers[child.stderr] = (buffers[child.stderr] + piece)[-_MAX_STDERR:]
                    continue
                *lines, rest = (buffers[child.stdout] + piece).split(b"\n")
                buffers[child.stdout] = rest
                for line in lines:
                    last = _message(line)
                    if progress and "progress" in last:
                        progress(last["progress"])
    return last, buffers[child.stderr].decode(errors="replace")


def _message(line: bytes) -> dict[str, Any]:
    try:
        message = json.loads(line)
    except ValueError:
        return {}
    return message if isinstance(message, dict) else {}
