"""Addresses that a command is given: as arguments, or from the standard input, one a line."""

import sys
from collections.abc import Iterable, Iterator
from typing import Final

import click

from smtpfeeds_common.addresses import pack_address
from smtpfeeds_common.errors import AddressError

#: A longer line is not an address.
_MAX_LINE: Final = 200
_WRONG_USE: Final = 2


def texts_of(arguments: tuple[str, ...]) -> Iterable[str]:
    """The arguments, or for a lone `-` the lines of the standard input."""
    return _from_stdin() if arguments == ("-",) else arguments


def addresses_of(arguments: tuple[str, ...]) -> Iterator[bytes]:
    """Packed addresses; names on stderr what is not one. None at all ends with exit code 2."""
    given = malformed = 0
    for text in texts_of(arguments):
        given += 1
        try:
            packed = pack_address(text)
        except AddressError as exc:
            malformed += 1
            click.echo(f"smtpfeeds: {exc.message}", err=True)
        else:
            yield packed
    if given and given == malformed:
        raise click.exceptions.Exit(_WRONG_USE)


def _from_stdin() -> Iterator[str]:
    """The lines of the standard input, without blank ones; over-long ones cut."""
    while line := sys.stdin.buffer.readline(_MAX_LINE):
        if line.strip():
            yield line.decode("ascii", errors="replace").strip()
