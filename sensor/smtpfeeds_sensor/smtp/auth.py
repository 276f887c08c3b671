"""AUTH, if it is offered: send challenges, and read and discard responses.

It follows RFC 4954 and, for LOGIN, the practice of clients. Every attempt is refused after its last
response. A response is never held: two octets of each line show whether it cancels (``*``), is
empty, or is a response. An argument is read in place, because it may contain a login.
"""

import re
import zlib
from typing import Final, NamedTuple

from .erase import erase

#: The mechanisms that are offered, and the number of their responses.
OFFERED: Final = {b"PLAIN": 1, b"LOGIN": 2}
#: Longest line of a response (RFC 4954 section 4).
MAX_RESPONSE_BYTES: Final = 12_288
#: Mechanisms with their own bit among those tried; others share 32 bits by a hash of the name.
_KNOWN: Final = (
    b"PLAIN",
    b"LOGIN",
    b"CRAM-MD5",
    b"DIGEST-MD5",
    b"NTLM",
    b"GSSAPI",
    b"EXTERNAL",
    b"XOAUTH2",
    b"OAUTHBEARER",
    b"SCRAM-SHA-1",
    b"SCRAM-SHA-256",
    b"ANONYMOUS",
)
_BITS: Final = {name: 1 << (32 + at) for at, name in enumerate(_KNOWN)}
_KNOWN_NAME: Final = re.compile(rb"(?:%s)\Z" % b"|".join(_KNOWN), re.IGNORECASE)
_WORDS: Final = re.compile(rb"\s*(\S+)\s*")
#: Arguments that are not a response yet.
_EMPTY_RESPONSE: Final = re.compile(rb"=\s*\Z")
#: Base64 of NTLM's first message, as far as it is always the same.
_NTLM_FIRST: Final = b"TlRMTVNTUAABAAAA"

#: What ``Responses.skip`` returns: more octets are needed; a response; an empty one; the
#: client gives up; a line is too long.
MORE, GIVEN, EMPTY, CANCELLED, TOO_LONG = range(5)


class Attempt(NamedTuple):
    """The content of AUTH's argument."""

    #: The mechanism's name if it is a known one; else empty.
    mechanism: bytes
    #: A bit for the mechanism, to recognise a repeated one.
    bit: int
    #: Whether it has an initial response, also an empty one (``=``).
    given: bool
    #: Whether that response is not empty.
    responds: bool
    #: It begins NTLM, and goes no further. NTLM's first message carries no login: scanners send it
    #: because the reply to it names the host and its domain ([MS-NLMP] section 2.2.1.1; the base64
    #: of ``NTLMSSP``, NUL, and type 1).
    asks_for_the_host: bool


def read_attempt(argument: bytearray) -> Attempt | None:
    """Parse AUTH's argument; return None if it is empty."""
    words = _WORDS.match(argument)
    if words is None:
        return None
    name = memoryview(argument)[words.start(1) : words.end(1)]
    known = _KNOWN_NAME.match(name)
    mechanism = known[0].upper() if known else b""
    given = words.end() < len(argument)
    empty = given and _EMPTY_RESPONSE.match(argument, words.end()) is not None
    return Attempt(
        mechanism,
        _BITS.get(mechanism) or 1 << (_hash(argument[words.start(1) : words.end(1)]) % 32),
        given=given,
        responds=given and not empty,
        asks_for_the_host=mechanism == b"NTLM"
        and (not given or empty or argument.startswith(_NTLM_FIRST, words.end())),
    )


def _hash(name: bytearray) -> int:
    """Return a number for a mechanism without its own bit; erase the name, which is a copy."""
    upper = name.upper()
    number = zlib.crc32(upper)
    erase(name)
    erase(upper)
    return number


class Responses:
    """The responses to one AUTH command."""

    __slots__ = ("_begins", "_left", "awaited", "mechanism")

    def __init__(self, mechanism: bytes, awaited: int) -> None:
        """Begin.

        Args:
            mechanism: one of ``OFFERED``.
            awaited: how many responses are still expected, at least one.
        """
        self.mechanism, self.awaited = mechanism, awaited
        self._begins = b""
        self._left = MAX_RESPONSE_BYTES

    @property
    def held_bytes(self) -> int:
        """Return the number of octets held of a line."""
        return len(self._begins)

    def skip(self, octets: bytearray, at: int) -> tuple[int, int]:
        """Skip from ``at`` to the end of one line.

        Returns:
            One of the outcomes above, and where the next octets begin.
        """
        stop = octets.find(b"\n", at)
        end = len(octets) if stop < 0 else stop
        if len(self._begins) < 2:
            self._begins += bytes(octets[at : min(end, at + 2 - len(self._begins))])
        self._left -= end - at
        if self._left < 0:
            return TOO_LONG, end
        if stop < 0:
            return MORE, end
        begins, self._begins, self._left = self._begins, b"", MAX_RESPONSE_BYTES
        self.awaited -= 1
        if begins in {b"*", b"*\r"}:
            return CANCELLED, stop + 1
        return (EMPTY if begins in {b"", b"\r"} else GIVEN), stop + 1
