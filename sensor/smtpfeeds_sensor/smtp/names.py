"""Find the sensor's own names in a client's text.

A relay test must recognise its own message: it writes the address that it tests, or the name in the
banner, where no ordinary mail has it. Testers write an address dotted, with dashes, reversed, as a
hexadecimal or a decimal number, and IPv6 short or in full. A name counts only between boundaries:
``192.0.2.1`` is not in ``192.0.2.10``, nor ``mx.example`` in ``mx.example.org``.

Pure. The forms of an address are created once, when they are first needed. A text is searched in
place; if it contains a form, it is copied, and the copy erased.
"""

import re
from collections.abc import Callable, Iterable
from ipaddress import IPv6Address
from typing import Final, NamedTuple

from smtpfeeds_common.addresses import IPv4_BYTES, format_address, pack_address
from smtpfeeds_common.errors import AddressError

from .erase import Octets, erase
from .lines import is_full_host_name

_NOTHING: Final = re.compile(rb"(?!)")
_DIGITS: Final = frozenset(b"0123456789")
_HEX: Final = frozenset(b"0123456789abcdef")
_WORD: Final = frozenset(b"0123456789abcdefghijklmnopqrstuvwxyz")
_HOST: Final = _WORD | frozenset(b"-_")
_IPV6_TAG: Final = b"ipv6:"
#: The octets before the domain of a mailbox.
_OF_MAILBOX: Final = (b"@", b"@[", b"@" + _IPV6_TAG, b"@[" + _IPV6_TAG)
#: An IPv6 address as nibbles with dots.
_LONGEST_ADDRESS: Final = 63
#: Octets before and after a form that decide whether it stands alone, or in a mailbox.
BEFORE: Final = len(b"@[ipv6:")
BEHIND: Final = 2
#: What can be an address or a literal; nothing else is copied to be read as one.
_MAY_BE_ADDRESS: Final = re.compile(
    rb"(?=.{2,52}\Z)(\[(?:ipv6:)?)?([0-9][0-9.]*|[0-9a-f]*:[0-9a-f:.]*)(\]?)\Z", re.IGNORECASE
)


class Form(NamedTuple):
    """One way to write a name, in lower case, and what may not stand beside it."""

    text: bytes
    #: Octets that would make it part of a longer number or word.
    word: frozenset[int]
    #: Separators of its parts: with a part of a number or word beyond, it is part of a longer name.
    separators: bytes = b""
    #: A prefix that is optional, and part of it.
    tag: bytes = b""

    def start_of(self, text: bytearray, at: int) -> int:
        """Return where the name begins whose text is at ``at``; its tag is part of it."""
        return at - len(self.tag) if self.tag and text.endswith(self.tag, 0, at) else at

    def stands_alone(self, text: bytearray, start: int, end: int) -> bool:
        """Return whether the octets around ``text[start:end]`` do not make it part of a longer
        name.
        """
        word = self.word
        if end < len(text):
            if text[end] in word:
                return False
            if text[end] in self.separators and end + 1 < len(text) and text[end + 1] in word:
                return False
        if not start:
            return True
        if text[start - 1] in word:
            return False
        if text[start - 1] not in self.separators or start < 2:
            return True
        # A tag is not part of an address: "[IPv6:2001:db8::1]".
        return text[start - 2] not in word or text.endswith(_IPV6_TAG, 0, start)


class SensorNames:
    """The address that a client connected to, and the banner's name if it is a full host name."""

    __slots__ = (
        "_address",
        "_any_spelling",
        "_forms",
        "_greets_as_host",
        "_host",
        "_texts",
        "longest",
    )

    def __init__(self, address: bytes, hostname: str) -> None:
        """Begin.

        Args:
            address: packed, the one that the client connected to.
            hostname: the name in the banner.
        """
        self._address = address
        host = hostname.lower().rstrip(".").encode("ascii", "replace")
        self._host = host if is_full_host_name(host) else b""
        self._greets_as_host = re.compile(re.escape(self._host) + rb"\.*\Z", re.IGNORECASE)
        self._forms: tuple[Form, ...] = ()
        self._texts: tuple[bytes, ...] = ()
        #: Any of the forms, in any case.
        self._any_spelling = _NOTHING
        #: Octets of the longest form.
        self.longest = max(len(host), _LONGEST_ADDRESS)

    def is_named_by(self, word: memoryview) -> bool:
        """Return whether a greet's argument is one of the names, bare or as an address literal."""
        if self._host and self._greets_as_host.match(word):
            return True
        return read_address(word) == self._address

    def occur_in(self, text: Octets) -> bool:
        """Return whether a text contains a name, in any form."""
        if not self.forms or not self._any_spelling.search(text):
            return False
        copy = bytearray(text)
        lower = copy.lower()
        erase(copy)
        named = self._search(lower, 0, len(lower), _anywhere)
        erase(lower)
        return named

    @property
    def forms(self) -> tuple[Form, ...]:
        """The forms to search for."""
        if not self._forms:
            host = (Form(self._host, _HOST, b"."),) if self._host else ()
            self._forms = _address_forms(self._address) + host
            self._texts = tuple(form.text for form in self._forms)
            self._any_spelling = _any_of(self._texts)
        return self._forms

    def occur_outside_mailboxes(self, text: bytearray, after: int, until: int) -> bool:
        """Return whether a text contains a name that is not a mailbox's domain.

        A message to ``postmaster@[192.0.2.1]`` names its recipient in its headers.

        Args:
            text: in lower case.
            after: names that end there or before are skipped: an earlier piece was searched.
            until: names that end after it are left to the next piece.
        """
        return self._search(text, after, until, _outside_mailbox)

    def _search(
        self, text: bytearray, after: int, until: int, place: Callable[[bytearray, int], bool]
    ) -> bool:
        # One search for each form takes half as long as one regular expression for all, and
        # rfind half as long as find: an eighth, where a text repeats one of the form's letters.
        for form, last in zip(self.forms, map(text.rfind, self._texts), strict=True):
            if last < 0:
                continue
            length = len(form.text)
            first = max(0, after + 1 - length)
            at = last if last + length <= until else text.rfind(form.text, first, until)
            while at >= first:
                start = form.start_of(text, at)
                if form.stands_alone(text, start, at + length) and place(text, start):
                    return True
                at = text.rfind(form.text, first, at + length - 1)
        return False


def _any_of(texts: Iterable[bytes]) -> re.Pattern[bytes]:
    """Return a pattern for any of the texts, in lower or upper case.

    It begins with all first octets as one set, and says behind it which of them it was: the search
    then skips to these octets, which it does with neither alternatives nor IGNORECASE.
    """
    sorted_texts = sorted(set(texts))
    firsts = b"".join(_in_any_case(first) for first in {text[:1] for text in sorted_texts})
    rests = b"|".join(
        b"(?<=[%s])%s" % (_in_any_case(text[:1]), _spelt_in_any_case(text[1:]))
        for text in sorted_texts
    )
    return re.compile(b"[%s](?:%s)" % (firsts, rests))


def _in_any_case(octet: bytes) -> bytes:
    return octet.lower() + octet.upper() if octet.isalpha() else re.escape(octet)


def _spelt_in_any_case(text: bytes) -> bytes:
    return b"".join(b"[%s]" % _in_any_case(text[at : at + 1]) for at in range(len(text)))


def _anywhere(text: bytearray, start: int) -> bool:  # noqa: ARG001 - as every place
    return True


def _outside_mailbox(text: bytearray, start: int) -> bool:
    return not text.endswith(_OF_MAILBOX, 0, start)


def read_address(word: memoryview) -> bytes | None:
    """Parse an address, bare or as a literal: ``[192.0.2.1]``, ``[IPv6:::1]``."""
    match = _MAY_BE_ADDRESS.match(word)
    if match is None or bool(match[1]) != bool(match[3]):
        return None
    try:
        return pack_address(match[2].decode("ascii"))
    except AddressError:
        return None


def _address_forms(address: bytes) -> tuple[Form, ...]:
    number = int.from_bytes(address)
    hexadecimal = address.hex().encode()
    texts = _ipv4_forms(address) if len(address) == IPv4_BYTES else _ipv6_forms(address)
    return (
        *texts,
        Form(hexadecimal, _WORD, tag=b"0x"),
        Form(str(number).encode(), _DIGITS),
    )


def _ipv4_forms(address: bytes) -> tuple[Form, ...]:
    parts = [str(part).encode() for part in address]
    return tuple(
        Form(separator.join(order), _DIGITS, separator)
        for order in (parts, parts[::-1])
        for separator in (b".", b"-")
    )


def _ipv6_forms(address: bytes) -> tuple[Form, ...]:
    short = format_address(address).encode()
    full = IPv6Address(address).exploded.encode()
    groups = b":".join(group.lstrip(b"0") or b"0" for group in full.split(b":"))
    nibbles = b".".join(bytes((digit,)) for digit in reversed(address.hex().encode()))
    colons = dict.fromkeys((short, full, groups))
    return (
        *(Form(text, _HEX, b":") for text in colons),
        *(Form(text.replace(b":", b"-"), _HEX, b"-") for text in colons),
        Form(nibbles, _HEX, b"."),
    )
