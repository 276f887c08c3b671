"""What a command line shows of its sender: a mail host's name, another protocol, neither.

Pure judgements on octets, apart from the dialogue so that each can be read and
tested by itself. RFC 5321 4.1.2 and RFC 1035 for names.
"""

import re
from typing import Final

_LETTERS: Final = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz")
#: What may stand before a verb; CR is there where lines end by LF CR.
BLANKS: Final = b" \t\r"
#: A TLS record: handshake, version 3.x (RFC 8446 5.1).
TLS_HELLO: Final = b"\x16\x03"
_HTTP_VERBS: Final = frozenset(
    b"GET POST HEAD PUT DELETE OPTIONS CONNECT PATCH TRACE PRI PROPFIND".split()
)
_HEADER_LINE: Final = re.compile(rb"[A-Za-z][A-Za-z0-9_-]*[ \t]*:")
#: At least two labels, the last not a number.
_HOST_NAME: Final = re.compile(
    rb"(?=.{4,255}\Z)(?:[A-Za-z0-9_](?:[A-Za-z0-9_-]{0,61}[A-Za-z0-9])?\.)+"
    rb"[A-Za-z](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])\.?\Z"
)


def split_verb(line: bytes) -> tuple[bytes, bytes]:
    """The first word of a line as it is spelt, and what follows it; blanks around both go.

    Blanks, tabs and CR (from lines that end by LF CR) may stand before the word, blanks and tabs
    behind it: real clients send all of these.
    """
    line = line.lstrip(BLANKS)
    if not line or line[0] not in _LETTERS:
        return b"", b""
    words = line.split(None, 1)
    return words[0], words[1].rstrip() if len(words) > 1 else b""


def is_junk(line: bytes) -> bool:
    """Whether a line that begins with no known verb shows that its sender does not speak SMTP.

    Its first octet after leading blanks decides, as in ``begins_junk``; where that is a letter,
    HTTP and header lines are recognized. A blank line is no junk.
    """
    line = line.lstrip(BLANKS)
    if not line:
        return False
    if line[0] not in _LETTERS:
        return True
    return line.split(None, 1)[0].upper() in _HTTP_VERBS or _HEADER_LINE.match(line) is not None


def begins_junk(octets: bytes) -> bool:
    """Whether a line that is not whole yet is junk already, whatever follows.

    It must agree with ``is_junk`` on the whole line, so that a verdict does not depend on how
    octets were cut. The first octet of a TLS record waits for the second.
    """
    if octets == TLS_HELLO[:1]:
        return False
    octets = octets.lstrip(BLANKS)
    return bool(octets) and octets[0] not in _LETTERS


def is_clean(line: bytes) -> bool:
    """Whether a line has neither NUL nor 8-bit octets."""
    return line.isascii() and b"\0" not in line


def is_full_host_name(argument: bytes) -> bool:
    """Whether a greet's argument is a full host name, not an address, a label or nothing."""
    return b"." in argument and _HOST_NAME.match(argument) is not None
