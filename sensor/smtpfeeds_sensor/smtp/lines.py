"""What a command line shows of its sender: a mail host's name, another protocol, neither.

Pure judgements on octets, apart from the dialogue so that each can be read and
tested by itself. RFC 5321 4.1.2 and RFC 1035 for names.
"""

import re
from typing import Final

_LETTERS: Final = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz")
#: What a line may begin with before it is judged as a whole.
LINE_STARTS: Final = _LETTERS | frozenset(b"\r\n \t")
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


def is_junk(line: bytes) -> bool:
    """Whether a line, without its end, shows that its sender does not speak SMTP.

    A line that begins with what is in ``LINE_STARTS`` is judged when it is whole, any other at
    once: both ways must agree on it. A blank line is no junk.
    """
    if not line:
        return False
    if line[0] not in _LETTERS:
        return line[0] not in LINE_STARTS or not line.isspace()
    word = line.split(None, 1)[0]
    return word.upper() in _HTTP_VERBS or _HEADER_LINE.match(line) is not None


def is_clean(line: bytes) -> bool:
    """Whether a line has neither NUL nor 8-bit octets."""
    return line.isascii() and b"\0" not in line


def is_full_host_name(argument: bytes) -> bool:
    """Whether a greet's argument is a full host name, not an address, a label or nothing."""
    return b"." in argument and _HOST_NAME.match(argument) is not None
