"""How a command ends: its exit code says what became of it, whatever went wrong.

    0    done or found; also where the reader of the output has read enough (`… | head -1`)
    1    nothing found, or the answer is no
    2    wrong use
    3    could not be done; a fault of ours too, with its traceback
    130  Ctrl-C

A program that asks can tell an empty answer from none at all: 1 is said by a command
that has its answer, and by nothing else. Python ends with 1 after a traceback, click
ends with 1 where a pipe is closed or Ctrl-C is pressed, so both are kept from it here.
"""

import errno
import os
import select
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Final

import click

from .errors import FAILED
from .printable import printable

INTERRUPTED: Final = 130
#: A full file system or an exhausted quota.
_NO_SPACE: Final = (errno.ENOSPC, errno.EDQUOT)
_OUTPUTS: Final = (1, 2)
_nothing_left: Final[list[bool]] = []


@contextmanager
def ended_by_output() -> Iterator[None]:
    """End the command where its output can no longer be written, or Ctrl-C is pressed.

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
                # click takes any such error for a closed output, and says nothing.
                raise RuntimeError("a connection or pipe of the program broke") from exc
            raise click.exceptions.Exit(0) from exc
        if exc.errno in _NO_SPACE:
            _say_no_space(exc)
            raise click.exceptions.Exit(FAILED) from exc
        raise


def complain(text: str) -> None:
    """Write to stderr, if anyone reads it."""
    try:
        click.echo(printable(text, keep="\n"), err=True)
    except OSError:
        silence_closed_outputs()


def flush(code: int) -> int:
    """Write what is still held for stdout; the exit code after it."""
    try:
        if sys.stdout is not None:  # the command was started without one
            sys.stdout.flush()
    except OSError as exc:
        if exc.errno in _NO_SPACE:
            _say_no_space(exc)
            return FAILED
        silence_closed_outputs()
    return code


def wrong_use(error: click.ClickException) -> int:
    """Say in one line what is wrong with the arguments, and where help is; the exit code."""
    if isinstance(error, click.exceptions.NoArgsIsHelpError):
        complain(error.format_message())
        return error.exit_code
    words = " ".join(error.format_message().split()).rstrip(".")
    words = words[:1].lower() + words[1:]
    context = getattr(error, "ctx", None)
    if context is not None:
        words += f"{'' if words.endswith('?') else ';'} see `{context.command_path} --help`"
    complain(f"smtpfeeds: {words}")
    return error.exit_code


def end_at_once(code: int) -> None:
    """End the program without taking the interpreter apart, which takes as long as an answer.

    Only where the command has said that nothing is left to do, and its output goes to the real
    standard output: a test that calls commands goes on.
    """
    if _nothing_left and sys.stdout is sys.__stdout__ and sys.stderr is sys.__stderr__:
        with suppress(OSError):
            if sys.stderr is not None:
                sys.stderr.flush()
        os._exit(code)


def nothing_is_left() -> None:
    """A command says that its connection is closed, and no thread, file or child is left."""
    _nothing_left.append(True)


def unexpected(error: Exception) -> int:
    """Print the traceback of a fault of ours; the exit code."""
    with suppress(OSError):
        sys.excepthook(type(error), error, error.__traceback__)
    return FAILED


def silence_closed_outputs() -> bool:
    """Throw away what is written to an output that nobody reads any more; whether there is one.

    What is held for it would be tried, and complained of, again at the end.
    """
    poll = select.poll()
    for output in _OUTPUTS:
        poll.register(output, 0)
    closed = [output for output, event in poll.poll(0) if event & (select.POLLERR | select.POLLHUP)]
    for output in closed:
        _throw_away(output)
    return bool(closed)


def _throw_away(output: int) -> None:
    with open(os.devnull, "wb") as nowhere:  # noqa: PTH123 - a device
        os.dup2(nowhere.fileno(), output)


def _say_no_space(exc: OSError) -> None:
    """Say what is full: a question's answer often goes to a file."""
    where = exc.filename or "where the output goes"
    complain(f"smtpfeeds: {exc.strerror}: {where}; what was written is not whole")
    _throw_away(1)
