"""What the arguments of HELO, EHLO, MAIL and RCPT show of their sender, as behaviours.

Pure: an argument in, bits of ``smtpfeeds_common.behaviours.Flags`` out. What a
verb alone shows, or its place in a session, the dialogue notes itself. Nothing
of an argument outlives the call. RFC 5321 sections 4.1.1.1 to 4.1.1.3 and
4.1.2; clients that are laxer than it are part of what is noted.
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
_ROUTES: Final = frozenset(b"%!@:")
#: Before a path: with a colon and no blanks it is as RFC 5321 has it.
_KEYWORD: Final = re.compile(rb"(?:FROM|TO)(?:([ \t]*:[ \t]*)|[ \t]+)", re.IGNORECASE)


class Path(NamedTuple):
    """The path of MAIL or RCPT."""

    #: Without its brackets.
    text: bytes
    #: What stands behind it: parameters.
    rest: bytes
    bracketed: bool
    #: A blank before it, no brackets, or no keyword.
    loose: bool


def greet_behaviours(argument: bytes, names: SensorNames) -> int:
    """What a greet's argument is; one bit at least."""
    words = argument.split(None, 1)
    if not words:
        return _NO_ARGUMENT
    word = words[0]
    bits = _NAMED_SENSOR if names.is_named_by(word) else 0
    if is_full_host_name(word):
        return bits | _FULL_HOST_NAME
    if word[:1] == b"[" and word[-1:] == b"]" and read_address(word) is not None:
        return bits | _ADDRESS_LITERAL
    return bits or _SHORT_NAME


def mail_behaviours(argument: bytes, names: SensorNames, offered: int) -> int:
    """What MAIL's argument shows.

    Args:
        argument: of MAIL.
        names: what a relay test would put in it.
        offered: extensions that this client was offered.
    """
    path = read_path(argument, b"FROM:")
    bits = _LOOSE_PATH if path.loose else 0
    if path.text:
        bits |= _SENDER
    elif path.bracketed:
        bits |= _NULL_SENDER
    if path.rest and offered:
        parameters = path.rest.upper()
        if (offered & SIZE and b" SIZE=" in parameters) or (
            offered & EIGHT_BIT and b" BODY=" in parameters
        ):
            bits |= _EXTENSION
    if names.found_in(argument):
        bits |= _RELAY_PROBE
    return bits


def rcpt_behaviours(argument: bytes, names: SensorNames) -> int:
    """What RCPT's argument shows.

    The domain of the last mailbox is not looked at: mail to ``postmaster@[192.0.2.1]`` strayed.
    """
    path = read_path(argument, b"TO:")
    bits = _LOOSE_PATH if path.loose else 0
    outside, at, domain = path.text.rpartition(b"@")
    if not at:
        outside = domain
    if not _ROUTES.isdisjoint(outside):
        bits |= _ROUTED
    if outside and names.found_in(outside):
        bits |= _RELAY_PROBE
    return bits


def read_path(argument: bytes, keyword: bytes) -> Path:
    """The path behind ``FROM:`` or ``TO:``, as loosely as clients write it."""
    at, loose = len(keyword), False
    if argument[: at + 1] != keyword + b"<":
        argument = argument.lstrip()
        match = _KEYWORD.match(argument)
        at = match.end() if match else 0
        loose = match is None or match[1] != b":"
    if argument[at : at + 1] != b"<":
        text, _, rest = argument[at:].partition(b" ")
        return Path(text, b" " + rest, bracketed=False, loose=bool(argument))
    end = argument.find(b">", at)
    if end < 0:
        return Path(argument[at + 1 :], b"", bracketed=True, loose=True)
    return Path(argument[at + 1 : end], argument[end + 1 :], bracketed=True, loose=loose)
