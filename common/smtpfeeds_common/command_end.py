"""How a command ends: one exit code for each outcome.

    0    done or found; also if the reader of the output closes it early (`… | head -1`)
    1    nothing found, or the answer is no
    2    wrong use
    3    the command failed; for a bug in smtpfeeds, with a traceback
    130  Ctrl-C

Exit code 1 always means that the command has its answer, so a script can tell an empty answer
from a failure. Python exits with 1 after a traceback, and click exits with 1 for a closed pipe
or Ctrl-C; this module prevents both.
"""

import errno
import os
import select
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Final, TextIO

import click

from .errors import FAILED
from .printable import printable

INTERRUPTED: Final = 130
#: A full file system or an exhausted quota.
_NO_SPACE: Final = (errno.ENOSPC, errno.EDQUOT)
_OUTPUTS: Final = (1, 2)
_fast_exit_allowed: Final[list[bool]] = []


@contextmanager
def ended_by_output() -> Iterator[None]:
    """End the command on Ctrl-C, without its output, or without the right to use a file.

    Raises:
        click.exceptions.Exit: with the exit code.
    """
    try:
        yield
    except KeyboardInterrupt:
        raise click.exceptions.Exit(INTERRUPTED) from None
    except OSError as exc:
        if exc.errno == errno.EPIPE:
            if not silence_closed_outputs():
                # click treats every EPIPE as a closed stdout and prints nothing.
                raise RuntimeError("a connection or pipe of the program broke") from exc
            raise click.exceptions.Exit(0) from exc
        if exc.errno in _NO_SPACE:
            _report_no_space(exc)
            raise click.exceptions.Exit(FAILED) from exc
        if isinstance(exc, PermissionError) and exc.filename is not None:
            # Python 3.11 raises it also when it looks whether a file exists.
            print_error(f"smtpfeeds: this user may not use {exc.filename}: {exc.strerror}")
            raise click.exceptions.Exit(FAILED) from exc
        raise


def print_error(text: str) -> None:
    """Write to stderr; a closed stderr is ignored."""
    try:
        click.echo(printable(text, keep="\n"), err=True)
    except OSError:
        silence_closed_outputs()


def flush(code: int) -> int:
    """Flush stdout and return the exit code: 3 if the disk is full, else the given one."""
    try:
        sys.stdout.flush()
    except OSError as exc:
        if exc.errno in _NO_SPACE:
            _report_no_space(exc)
            return FAILED
        silence_closed_outputs()
    return code


def report_usage_error(error: click.ClickException) -> int:
    """Print in one line what is wrong with the arguments, and return the exit code."""
    if isinstance(error, click.exceptions.NoArgsIsHelpError):
        print_error(error.format_message())
        return error.exit_code
    message = " ".join(error.format_message().split()).rstrip(".")
    message = message[:1].lower() + message[1:]
    context = getattr(error, "ctx", None)
    if context is not None:
        see = " See" if message.endswith("?") else "; see"
        message += f"{see} `{context.command_path} --help`"
    print_error(f"smtpfeeds: {message}")
    return error.exit_code


def exit_now(code: int) -> None:
    """Exit without finalizing the interpreter, which takes as long as the command itself.

    Does nothing unless the command has called ``allow_fast_exit`` and writes to the real stdout
    and stderr, so a test that calls commands keeps running.
    """
    if _fast_exit_allowed and sys.stdout is sys.__stdout__ and sys.stderr is sys.__stderr__:
        with suppress(OSError):
            if sys.stderr is not None:
                sys.stderr.flush()
        os._exit(code)


def allow_fast_exit() -> None:
    """Declare that the command has closed its connection and has no thread, file or child left."""
    _fast_exit_allowed.append(True)


def report_bug(error: Exception) -> int:
    """Print the traceback of a bug and return the exit code."""
    with suppress(OSError):
        sys.excepthook(type(error), error, error.__traceback__)
    return FAILED


def open_missing_outputs() -> None:
    """Send stdout and stderr to /dev/null if the command was started without them (`>&-`).

    A file that the command opens would otherwise get their number and their output.
    """
    for output in _OUTPUTS:
        try:
            os.fstat(output)
        except OSError:
            _redirect_to_null(output)
    sys.stdout = sys.stdout or _writer(1)
    sys.stderr = sys.stderr or _writer(2)


def _writer(output: int) -> TextIO:
    return open(output, "w", encoding="utf-8", closefd=False)


def silence_closed_outputs() -> bool:
    """Send a closed stdout or stderr to /dev/null; return whether one was closed.

    Otherwise Python would flush its buffer again at exit, and report the error.
    """
    poll = select.poll()
    for output in _OUTPUTS:
        poll.register(output, 0)
    closed = [output for output, event in poll.poll(0) if event & (select.POLLERR | select.POLLHUP)]
    for output in closed:
        _redirect_to_null(output)
    return bool(closed)


def _redirect_to_null(output: int) -> None:
    nowhere = os.open(os.devnull, os.O_WRONLY)
    if nowhere != output:
        os.dup2(nowhere, output)
        os.close(nowhere)


def _report_no_space(exc: OSError) -> None:
    """Say which file system is full; the output often goes to a file."""
    where = exc.filename or "standard output"
    print_error(f"smtpfeeds: {exc.strerror}: {where}; the output is incomplete")
    _redirect_to_null(1)
