"""Read the terms of a command: arguments, a file, or the standard input."""

import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import BinaryIO, Final

import click

from smtpfeeds_common.errors import SettingsError

from ..query.terms import Term, parse_term

#: Terms from a stream that are queried together.
TERMS_AT_ONCE: Final = 10_000
#: The rest of a longer line is not read: it is not a term, unless it is a URL.
_LINE_BYTES_MAX: Final = 4_096
#: At most this many of the lines that are not terms are shown.
_NAMED: Final = 20
_USAGE_ERROR: Final = 2


def read_terms(arguments: tuple[str, ...], file: Path | None = None) -> Iterator[Term]:
    """Yield blocks of terms; a line of a stream that is not a term is shown on stderr and skipped.

    Raises:
        SettingsError: an argument is not a term.
        click.exceptions.Exit: none of the lines is a term.
    """
    if file is not None:
        with file.open("rb") as stream:
            yield from _of_lines(_lines(stream), file.name)
    elif arguments == ("-",):
        yield from _of_lines(_lines(sys.stdin.buffer), "standard input")
    else:
        yield from map(parse_term, arguments)


def _lines(stream: BinaryIO) -> Iterator[tuple[int, str]]:
    """Yield numbered lines without blank ones and comments; shorten lines that are too long."""
    number, is_rest = 1, False
    while line := stream.readline(_LINE_BYTES_MAX):
        is_whole = line.endswith(b"\n")
        text = line.decode("utf-8", errors="replace").strip().lstrip("\ufeff")
        if text and not is_rest and not text.startswith("#"):
            yield number, text
        is_rest = not is_whole
        number += is_whole


def _of_lines(lines: Iterable[tuple[int, str]], name: str) -> Iterator[Term]:
    terms = wrong = 0
    for number, text in lines:
        try:
            term = parse_term(text)
        except SettingsError as exc:
            wrong += 1
            if wrong <= _NAMED:
                click.echo(f"smtpfeeds: {name}, line {number}: {exc.message}", err=True)
        else:
            terms += 1
            yield term
    if wrong > _NAMED:
        click.echo(f"smtpfeeds: {name}: {wrong} lines are not terms", err=True)
    if wrong and not terms:
        raise click.exceptions.Exit(_USAGE_ERROR)
