"""What a command line shows of its sender: a mail host's name, another protocol, neither.

Pure judgements on octets, apart from the dialogue so that each can be read and
tested by itself; made in place, so that no copy of a line is left (``erase``).
RFC 5321 4.1.2 and RFC 1035 for names.
"""

import re
from typing import Final

_LETTERS: Final = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz")
#: A TLS record: handshake, version 3.x (RFC 8446 5.1).
TLS_HELLO: Final = b"\x16\x03"
_HTTP_VERBS: Final = b"GET POST HEAD PUT DELETE OPTIONS CONNECT PATCH TRACE PRI PROPFIND".split()
_HTTP: Final = re.compile(rb"(?:%s)(?=\s|\Z)" % b"|".join(_HTTP_VERBS), re.IGNORECASE)
_HEADER_LINE: Final = re.compile(rb"[A-Za-z][A-Za-z0-9_-]*[ \t]*:")
#: The first octet behind what may stand before a verb; CR is there where lines end by LF CR.
_FIRST: Final = re.compile(rb"[^ \t\r]")
#: At least two labels, the last not a number.
_HOST_NAME: Final = re.compile(
    rb"(?=.{4,255}\Z)(?:[A-Za-z0-9_](?:[A-Za-z0-9_-]{0,61}[A-Za-z0-9])?\.)+"
    rb"[A-Za-z](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])\.?\Z"
)


def is_junk(line: bytearray) -> bool:
    """Whether a line that begins with no known verb shows that its sender does not speak SMTP.

    Its first octet after leading blanks decides, as in ``begins_junk``; where that is a letter,
    HTTP and header lines are recognized. A blank line is not junk.
    """
    first = _FIRST.search(line)
    if first is None:
        return False
    at = first.start()
    if line[at] not in _LETTERS:
        return True
    return _HTTP.match(line, at) is not None or _HEADER_LINE.match(line, at) is not None


def begins_junk(octets: bytearray) -> bool:
    """Whether a line that is not whole yet is junk already, whatever follows.

    It must agree with ``is_junk`` on the whole line, so that a verdict does not depend on how
    octets were cut. The first octet of a TLS record waits for the second.
    """
    if octets == TLS_HELLO[:1]:
        return False
    first = _FIRST.search(octets)
    return first is not None and octets[first.start()] not in _LETTERS


def is_clean(line: bytearray) -> bool:
    """Whether a line has neither NUL nor 8-bit octets."""
    return line.isascii() and b"\0" not in line


def is_full_host_name(word: bytes | memoryview) -> bool:
    """Whether a greet's argument is a full host name, not an address, a label or nothing."""
    return _HOST_NAME.match(word) is not None
