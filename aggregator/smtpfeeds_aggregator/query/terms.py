"""Parse terms as people write them: addresses, prefixes, ranges, ASNs and names. Pure.

A term can be copied from a log or a report as it is: defanged (`192.0.2[.]1`, `hxxp://`), in
brackets, with a port. A prefix with host bits set means the prefix, with a hint.
"""

import re
import socket
from dataclasses import dataclass
from typing import Final, NamedTuple

from smtpfeeds_common.addresses import IPv4_BYTES, IPv6_BYTES, format_address, pack_address
from smtpfeeds_common.errors import AddressError, SettingsError

MAX_ASN: Final = 2**32 - 1
#: A longer text is not a term, unless it is a URL.
MAX_TEXT: Final = 200
_ASN: Final = re.compile(r"(?:AS)?([0-9]{1,10})", re.IGNORECASE | re.ASCII)
_DOT: Final = re.compile(r"\[\.\]|\(\.\)|\{\.\}|\[dot\]|\(dot\)", re.IGNORECASE)
_COLON: Final = re.compile(r"\[:\]|\(:\)")
_URL: Final = re.compile(r"h(?:tt|xx)ps?://(?:[^/@]*@)?([^/?#]*).*", re.IGNORECASE)
_BRACKETS: Final = re.compile(r"\[(?:IPv6:)?([0-9A-Fa-f:.]+)\](?::[0-9]{1,5})?", re.IGNORECASE)
_PORT: Final = re.compile(r"([0-9]+(?:\.[0-9]+){3}):[0-9]{1,5}", re.ASCII)
_LETTER: Final = re.compile(r"[^\W\d_a-fA-F]")
_QUAD: Final = re.compile(r"[0-9]+\.[0-9]+\.[0-9]+", re.ASCII)
_MAPPED: Final = b"\0" * 10 + b"\xff\xff"


@dataclass(frozen=True, slots=True)
class Range:
    """A range of packed addresses of one family, both ends included."""

    low: bytes
    high: bytes

    def __contains__(self, packed: bytes) -> bool:
        """Return whether an address is in the range."""
        return len(packed) == len(self.low) and self.low <= packed <= self.high

    @property
    def is_single(self) -> bool:
        """Return whether it is a single address."""
        return self.low == self.high

    @property
    def bounds(self) -> tuple[str, str]:
        """Return both ends as texts."""
        low = _text(self.low)
        return low, low if self.is_single else _text(self.high)


class Term(NamedTuple):
    """A term: a range, an ASN, or a word that may be a name."""

    text: str
    range: Range | None = None
    asn: int | None = None
    #: A word that lists or AS names may contain.
    word: str | None = None
    #: How the text was read, if it may be a mistake.
    hint: str = ""


EVERYTHING_IPV4: Final = Range(bytes(IPv4_BYTES), b"\xff" * IPv4_BYTES)
EVERYTHING_IPV6: Final = Range(bytes(IPv6_BYTES), b"\xff" * IPv6_BYTES)


def _text(packed: bytes) -> str:
    """Format one end of a range; an IPv4-mapped address stays an IPv6 address."""
    is_mapped = len(packed) == IPv6_BYTES and packed.startswith(_MAPPED)
    return socket.inet_ntop(socket.AF_INET6, packed) if is_mapped else format_address(packed)


def parse_term(text: str) -> Term:
    """Read one term.

    Raises:
        SettingsError: it is not one.
    """
    try:
        packed = socket.inet_pton(socket.AF_INET, text)
    except (OSError, ValueError):  # ValueError: an embedded NUL; UnicodeError is one
        return _parse_other(text)
    return Term(text, Range(packed, packed))


def _parse_other(text: str) -> Term:
    plain = refanged(text)
    match = _ASN.fullmatch(plain)
    if match is not None:
        asn = int(match[1])
        if not 1 <= asn <= MAX_ASN:
            raise SettingsError(f"{text!r} is not an ASN: they go from 1 to {MAX_ASN}")
        return Term(text, asn=asn)
    try:
        if "/" in plain and not _looks_like_a_word(plain):
            return _prefix(text, plain)
        if "-" in plain and not _looks_like_a_word(plain):
            low, _, high = plain.partition("-")
            return Term(text, _span(pack_address(low.strip()), pack_address(high.strip())))
        packed = pack_address(plain)
    except AddressError as exc:
        if _looks_like_a_word(plain):
            return Term(text, word=text.strip())
        raise SettingsError(
            f"{text[:MAX_TEXT]!r} is not an address, prefix (192.0.2.0/24), range "
            "(192.0.2.1-192.0.2.9), ASN (AS64496), AS name or actor: " + exc.message
        ) from exc
    return Term(text, Range(packed, packed))


def refanged(text: str) -> str:
    """Return a term without surrounding quotes and brackets, and with real dots and colons. Of a
    text longer than ``MAX_TEXT``, such as a URL, return the host; empty if it has none.
    """
    plain = text.strip().strip("\"'<>,;").strip()
    is_long = len(plain) > MAX_TEXT
    plain = _COLON.sub(":", _DOT.sub(".", plain[:MAX_TEXT]))
    if (url := _URL.fullmatch(plain)) is not None and not (is_long and plain.endswith(url[1])):
        plain = url[1]
    elif is_long:
        # The rest of a truncated address may be another address.
        return ""
    if (inner := _BRACKETS.fullmatch(plain)) is not None:
        return inner[1]
    if (with_port := _PORT.fullmatch(plain)) is not None:
        return with_port[1]
    return plain.removesuffix(".")


def _looks_like_a_word(text: str) -> bool:
    """Return whether it can be a name: it has a letter that no address has, or no digits."""
    if ":" in text or len(text) < 2 or not text.isprintable() or _QUAD.match(text):
        return False
    if "\ufffd" in text:  # octets that are not UTF-8: the file is not a list of terms
        return False
    has_digit = any(char.isdigit() for char in text)
    return bool(_LETTER.search(text)) or (not has_digit and any(map(str.isalpha, text)))


def _prefix(text: str, plain: str) -> Term:
    address, _, length_text = plain.partition("/")
    packed = pack_address(address)
    bits = len(packed) * 8
    if not (length_text.isascii() and length_text.isdecimal() and len(length_text) <= 3):
        raise AddressError(f"{length_text!r} is not a prefix length")
    length = int(length_text)
    if len(packed) == IPv4_BYTES and ":" in address:
        length -= 96
    if not 0 <= length <= bits:
        raise AddressError(f"/{length_text} is too long or too short for a prefix of {bits} bits")
    number, host = int.from_bytes(packed), bits - length
    start = number >> host << host
    low = start.to_bytes(len(packed))
    high = (start | (1 << host) - 1).to_bytes(len(packed))
    hint = ""
    if low != packed:
        hint = f"{text.strip()} is taken as {format_address(low)}/{length}: it has host bits"
    return Term(text, Range(low, high), hint=hint)


def _span(low: bytes, high: bytes) -> Range:
    if len(low) != len(high):
        raise AddressError("a range has both ends in one family")
    if low > high:
        raise AddressError("a range goes from the lower address to the higher one")
    return Range(low, high)
