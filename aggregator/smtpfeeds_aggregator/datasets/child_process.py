"""Runs work on a data set in a child process, within a time limit.

A download has no time limit of its own, and a parser can hold the interpreter lock or crash in
C; in a child process none of that reaches ingest. The child runs a module of the data set's
package, which calls `serve` with its commands. It writes progress, result and error to standard
output, one JSON object a line.

    python -P -m MODULE COMMAND ARGUMENTS-AS-JSON

The child ends when its standard input closes, because the parent has ended then.
"""

import json
import os
import selectors
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from smtpfeeds_common.errors import DatasetError

#: How often a waiting parent checks whether it must stop.
_LOOK_S: Final = 0.5
#: The end of a child's stderr that is kept for the message, in octets.
_MAX_STDERR: Final = 2_000

Progress = Callable[[str], None]
Command = Callable[[dict[str, Any]], dict[str, Any]]


@dataclass(frozen=True, slots=True)
class ChildProgram:
    """A child's program, and the noun and class of its errors."""

    module: str
    #: What a child makes: "origin table".
    noun: str
    error: type[DatasetError]

    def run(
        self,
        command: str,
        arguments: dict[str, Any],
        *,
        timeout_s: float,
        pass_fds: tuple[int, ...] = (),
        stop: threading.Event | None = None,
        progress: Progress | None = None,
    ) -> dict[str, Any]:
        """Run one command and return its result.

        Raises:
            DatasetError: the child failed, crashed, took longer than `timeout_s` or was stopped.
        """
        environ = {k: v for k, v in os.environ.items() if k != "PYTHONOPTIMIZE"}
        try:
            child = subprocess.Popen(
                [sys.executable, "-P", "-m", self.module, command, json.dumps(arguments)],
                # Nothing is written to it: it closes when this process ends, and so the child ends.
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                env=environ,
                pass_fds=pass_fds,
            )
        except OSError as exc:
            raise self.error(f"no process could be started for the {self.noun}: {exc}") from exc
        try:
            deadline_s = time.monotonic() + timeout_s
            last, errors = self._follow(child, deadline_s, stop, progress)
            child.wait(max(0.0, deadline_s - time.monotonic()))
        except (TimeoutError, subprocess.TimeoutExpired) as exc:
            raise self.error(
                f"the {self.noun} took longer than {timeout_s:g} s: the process was ended"
            ) from exc
        finally:
            _end(child)
        if "result" in last:
            result: dict[str, Any] = last["result"]
            return result
        if "error" in last:
            raise self.error(last["error"])
        line = errors.strip().splitlines()[-1:] or [f"exit code {child.returncode}"]
        raise self.error(f"the process for the {self.noun} failed: {line[0]}")

    def _follow(
        self,
        child: "subprocess.Popen[bytes]",
        deadline_s: float,
        stop: threading.Event | None,
        progress: Progress | None,
    ) -> tuple[dict[str, Any], str]:
        """Read both pipes until they end; return the last message and the end of stderr."""
        assert child.stdout is not None
        assert child.stderr is not None
        buffers = {child.stdout: b"", child.stderr: b""}
        last: dict[str, Any] = {}
        with selectors.DefaultSelector() as selector:
            for stream in buffers:
                selector.register(stream, selectors.EVENT_READ)
            while selector.get_map():
                if stop is not None and stop.is_set():
                    raise self.error(f"stopped while the {self.noun} was being created")
                if time.monotonic() > deadline_s:
                    raise TimeoutError
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


def _end(child: "subprocess.Popen[bytes]") -> None:
    if child.poll() is None:
        child.kill()
    child.wait()
    for stream in (child.stdin, child.stdout, child.stderr):
        if stream:
            stream.close()


def _message(line: bytes) -> dict[str, Any]:
    try:
        message = json.loads(line)
    except ValueError:
        return {}
    return message if isinstance(message, dict) else {}


def report(**message: Any) -> None:
    """In a child: send a message to the parent."""
    sys.stdout.write(json.dumps(message) + "\n")
    sys.stdout.flush()


def report_progress(text: str) -> None:
    """In a child: send progress to the parent."""
    report(progress=text)


def fetch_file(arguments: dict[str, Any]) -> dict[str, Any]:
    """Fetch one file; `arguments` are those of `fetch.fetch`."""
    from .fetch import fetch

    target = Path(arguments.pop("target"))
    url = arguments.pop("url")
    return fetch(url, target, progress=report_progress, **arguments)


def serve(commands: Mapping[str, Command], noun: str) -> int:
    """Run one command as a child's main function; the last line is its result or error."""
    if sys.flags.optimize:
        report(error="python -O removes the checks of pyasn's readers: start without it")
        return 2
    threading.Thread(target=_end_with_parent, daemon=True).start()
    try:
        report(result=commands[sys.argv[1]](json.loads(sys.argv[2])))
    except DatasetError as exc:
        report(error=exc.message)
        return 1
    except OSError as exc:
        place = f" {exc.filename}" if exc.filename else ""
        report(error=f"cannot write the new {noun}{place}: {exc.strerror or exc}")
        return 1
    return 0


def _end_with_parent() -> None:
    """End this process when its parent ends: two must never write the same file."""
    while os.read(0, 1024):
        pass
    os._exit(3)
