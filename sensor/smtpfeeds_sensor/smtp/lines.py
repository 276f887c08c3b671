"""Classify a command line: a mail host's name, another protocol, or neither.

Pure functions on octets, separate from the dialogue so that each can be tested alone. They read in
place, so that no copy of a line is left (``erase``). Names follow RFC 5321 4.1.2 and RFC 1035.
"""

import re
from typing import Final

_LETTERS: Final = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz")
#: A TLS record: handshake, version 3.x (RFC 8446 5.1).
TLS_HELLO: Final = b"\x16\x03"
_HTTP_VERBS: Final = b"GET POST HEAD PUT DELETE OPTIONS CONNECT PATCH TRACE PRI PROPFIND".split()
_HTTP: Final = re.compile(rb"(?:%s)(?=\s|\Z)" % b"|".join(_HTTP_VERBS), re.IGNORECASE)
_HEADER_LINE: Final = re.compile(rb"[A-Za-z][A-Za-z0-9_-]*[ \t]*:")
#: The first octet after those that may precede a verb; CR is one if lines end in LF CR.
_FIRST: Final = re.compile(rb"[^ \t\r]")
#: At least two labels, the last not a number.
_HOST_NAME: Final = re.compile(
    rb"(?=.{4,255}\Z)(?:[A-Za-z0-9_](?:[A-Za-z0-9_-]{0,61}[A-Za-z0-9])?\.)+"
    rb"[A-Za-z](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])\.?\Z"
)


def is_junk(line: bytearray) -> bool:
    """Return whether a line without a known verb shows that its sender does not speak SMTP.

    The first octet after leading blanks decides, as in ``begins_junk``; if it is a letter, HTTP and
    header lines are recognised. A blank line is not junk.
    """
    first = _FIRST.search(line)
    if first is None:
        return False
    at = first.start()
    if line[at] not in _LETTERS:
        return True
    return _HTTP.match(line, at) is not None or _HEADER_LINE.match(line, at) is not None


def begins_junk(octets: bytearray) -> bool:
    """Return whether an incomplete line is junk, whatever follows.

    It must agree with ``is_junk`` on the complete line, so that the result does not depend on how
    octets were split. The first octet of a TLS record waits for the second.
    """
    if octets == TLS_HELLO[:1]:
        return False
    first = _FIRST.search(octets)
    return first is not None and octets[first.start()] not in _LETTERS


def is_clean(line: bytearray) -> bool:
    """Return whether a line has neither NUL nor 8-bit octets."""
    return line.isascii() and b"\0" not in line


def is_full_host_name(word: bytes | memoryview) -> bool:
    """Return whether a greet's argument is a full host name, not an address, a label or empty."""
    return _HOST_NAME.match(word) is not None
