"""Read the addresses of a command: arguments, or lines of the standard input."""

import sys
from collections.abc import Iterable, Iterator
from typing import Final

import click

from smtpfeeds_common.addresses import pack_address
from smtpfeeds_common.errors import AddressError

#: A longer line is not an address.
_MAX_LINE: Final = 200
_USAGE_ERROR: Final = 2


def texts_of(arguments: tuple[str, ...]) -> Iterable[str]:
    """Return the arguments, or for a single `-` the lines of the standard input."""
    return _from_stdin() if arguments == ("-",) else arguments


def addresses_of(arguments: tuple[str, ...]) -> Iterator[bytes]:
    """Return packed addresses; name on stderr what is not one. Without any, exit with code 2."""
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
        raise click.exceptions.Exit(_USAGE_ERROR)


def _from_stdin() -> Iterator[str]:
    """Yield the lines of the standard input without blank ones; shorten those that are too long."""
    while line := sys.stdin.buffer.readline(_MAX_LINE):
        if line.strip():
            yield line.decode("ascii", errors="replace").strip()
