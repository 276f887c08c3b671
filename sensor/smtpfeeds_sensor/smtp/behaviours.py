"""Derive behaviours from the arguments of HELO, EHLO, MAIL and RCPT.

Pure: the input is an argument, the output bits of ``smtpfeeds_common.behaviours.Flags``. The
dialogue itself notes what a verb or its place in a session shows. Arguments are read in place,
without a copy (``erase``). The rules are those of RFC 5321 sections 4.1.1.1 to 4.1.1.3 and 4.1.2;
deviations from them are behaviours too.
"""

import re
from typing import Final, NamedTuple

from smtpfeeds_common.behaviours import Flags

from .lines import is_full_host_name
from .names import SensorNames, read_address
from .personas import EIGHT_BIT, SIZE

# Plain integers: arithmetic on an IntFlag costs a microsecond.
_FULL_HOST_NAME: Final = int(Flags.FULL_HOST_NAME)
_ADDRESS_LITERAL: Final = int(Flags.ADDRESS_LITERAL)
_NO_ARGUMENT: Final = int(Flags.NO_ARGUMENT)
_NAMED_SENSOR: Final = int(Flags.NAMED_SENSOR)
_SHORT_NAME: Final = int(Flags.SHORT_NAME)
_NULL_SENDER: Final = int(Flags.NULL_SENDER)
_SENDER: Final = int(Flags.SENDER)
_LOOSE_PATH: Final = int(Flags.LOOSE_PATH)
_EXTENSION: Final = int(Flags.EXTENSION)
_RELAY_PROBE: Final = int(Flags.RELAY_PROBE)
_ROUTED: Final = int(Flags.ROUTED_RECIPIENT)

#: Outside the domain of a recipient: another host, or a route to it.
_ROUTES: Final = re.compile(rb"[%!@:]")
#: Before a path: RFC 5321 requires a colon and no blanks.
_KEYWORD: Final = re.compile(rb"\s*(?:FROM|TO)(?:([ \t]*:[ \t]*)|[ \t]+)", re.IGNORECASE)
#: A sender and a recipient as nearly all clients write them: strict form, nothing after a sender,
#: and a single "@" in a recipient.
_PLAIN_SENDER: Final = re.compile(rb"FROM:<[^>]+>\Z")
_PLAIN_RECIPIENT: Final = re.compile(rb"TO:<([^%!@:>]*)@[^@>]*>")
_OPEN, _CLOSE = b"[]"
_WORD: Final = re.compile(rb"\S+")
_BLANKS: Final = re.compile(rb"\s*")
_SIZE_GIVEN: Final = re.compile(rb" SIZE=", re.IGNORECASE)
_BODY_GIVEN: Final = re.compile(rb" BODY=", re.IGNORECASE)


class Path(NamedTuple):
    """Where the path of MAIL or RCPT is in their argument."""

    #: Without the brackets.
    start: int
    end: int
    #: Where the parameters after it begin.
    rest: int
    bracketed: bool
    #: Whether there is a blank before it, no brackets, or no keyword.
    loose: bool


def greet_behaviours(argument: bytearray, names: SensorNames) -> int:
    """Return the behaviours of a greet's argument, at least one bit."""
    match = _WORD.search(argument)
    if match is None:
        return _NO_ARGUMENT
    word = memoryview(argument)[match.start() : match.end()]
    bits = _NAMED_SENSOR if names.is_named_by(word) else 0
    if is_full_host_name(word):
        return bits | _FULL_HOST_NAME
    if word[0] == _OPEN and word[-1] == _CLOSE and read_address(word) is not None:
        return bits | _ADDRESS_LITERAL
    return bits or _SHORT_NAME


def mail_behaviours(argument: bytearray, names: SensorNames, offered: int) -> int:
    """Return the behaviours of MAIL's argument.

    Args:
        argument: of MAIL.
        names: the names that a relay test would use.
        offered: extensions that this client was offered.
    """
    probes = _RELAY_PROBE if names.occur_in(argument) else 0
    if _PLAIN_SENDER.match(argument):
        return probes | _SENDER
    path = read_path(argument, b"FROM:")
    bits = probes | _LOOSE_PATH if path.loose else probes
    if path.start < path.end:
        bits |= _SENDER
    elif path.bracketed:
        bits |= _NULL_SENDER
    if path.rest < len(argument) and (
        (offered & SIZE and _SIZE_GIVEN.search(argument, path.rest))
        or (offered & EIGHT_BIT and _BODY_GIVEN.search(argument, path.rest))
    ):
        bits |= _EXTENSION
    return bits


def rcpt_behaviours(argument: bytearray, names: SensorNames) -> int:
    """Return the behaviours of RCPT's argument.

    The domain of the last mailbox is ignored: mail to ``postmaster@[192.0.2.1]`` is ordinary.
    """
    plain = _PLAIN_RECIPIENT.match(argument)
    if plain is not None:
        local_part = memoryview(argument)[plain.start(1) : plain.end(1)]
        return _RELAY_PROBE if names.occur_in(local_part) else 0
    path = read_path(argument, b"TO:")
    bits = _LOOSE_PATH if path.loose else 0
    at = argument.rfind(b"@", path.start, path.end)
    outside = memoryview(argument)[path.start : at if at >= 0 else path.end]
    if _ROUTES.search(outside):
        bits |= _ROUTED
    if names.occur_in(outside):
        bits |= _RELAY_PROBE
    return bits


def read_path(argument: bytearray, keyword: bytes) -> Path:
    """Return the path after ``FROM:`` or ``TO:``, as loosely as clients write it."""
    at, length, loose = len(keyword), len(argument), False
    if not argument.startswith(keyword) or not argument.startswith(b"<", at):
        match = _KEYWORD.match(argument) or _BLANKS.match(argument)
        assert match is not None
        at = match.end()
        loose = match.re is _BLANKS or match[1] != b":"
    if not argument.startswith(b"<", at):
        blank = argument.find(b" ", at)
        end = blank if blank >= 0 else length
        return Path(at, end, end, bracketed=False, loose=not argument.isspace() and length > 0)
    end = argument.find(b">", at)
    if end < 0:
        return Path(at + 1, length, length, bracketed=True, loose=True)
    return Path(at + 1, end, end + 1, bracketed=True, loose=loose)
