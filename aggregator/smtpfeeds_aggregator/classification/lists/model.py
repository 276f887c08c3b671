"""A list: prefixes of one actor, with a date."""

import socket
from dataclasses import dataclass
from datetime import date
from typing import Any, Final, Literal, NamedTuple

from smtpfeeds_common.addresses import format_address

ListKind = Literal["scanner", "mailer"]
#: Where the date of a list comes from.
DateRule = Literal["version", "stated", "package", "changed"]


#: The upper 96 bits of an IPv4-mapped IPv6 address.
_MAPPED: Final = 0xFFFF


class Prefix(NamedTuple):
    """A prefix: 32 or 128 bits, the first address as a number, the length."""

    bits: int
    start: int
    length: int

    def __str__(self) -> str:
        return f"{format_address(self.start.to_bytes(self.bits // 8))}/{self.length}"


def parse_prefix(text: str) -> Prefix:
    """Parse an address or a prefix, and clear its host bits.

    Raises:
        ValueError: it is neither, or it is IPv4-mapped.
    """
    address, slash, length_text = text.partition("/")
    family, bits = (socket.AF_INET6, 128) if ":" in address else (socket.AF_INET, 32)
    try:
        number = int.from_bytes(socket.inet_pton(family, address))
    except OSError as exc:
        raise ValueError(f"{text!r} is not an address") from exc
    if slash and not (length_text.isascii() and length_text.isdigit()):
        raise ValueError(f"{text!r} has no prefix length")
    length = int(length_text) if slash else bits
    if length > bits:
        raise ValueError(f"{text!r} has no prefix length")
    host = bits - length
    start = number >> host << host
    if bits == 128 and start >> 32 == _MAPPED:
        raise ValueError(f"{text!r} is an IPv4-mapped address")
    return Prefix(bits, start, length)


@dataclass(frozen=True, slots=True)
class AddressList:
    """A checked list."""

    name: str
    kind: ListKind
    #: The organisation, as a short word; for a mailer the list's name.
    actor: str
    home: str
    #: A URL, a path, or the package with its version.
    source: str
    day: date
    day_from: DateRule
    prefixes: tuple[Prefix, ...]
    #: Number of entries left out: unreadable, or not globally routable.
    dropped: int = 0
    #: Why a newer state was refused; this one is then the previous state.
    refused: str = ""
    #: Validators for the next fetch, and the SHA-256 of the content.
    fetched: tuple[tuple[str, str], ...] = ()

    def as_json(self) -> dict[str, Any]:
        """Return it as a generation's file has it."""
        return {
            "name": self.name,
            "kind": self.kind,
            "actor": self.actor,
            "home": self.home,
            "source": self.source,
            "day": self.day.isoformat(),
            "day_from": self.day_from,
            "prefixes": [str(prefix) for prefix in self.prefixes],
            "dropped": self.dropped,
            "refused": self.refused,
            "fetched": dict(self.fetched),
        }

    @classmethod
    def from_json(cls, content: dict[str, Any]) -> "AddressList":
        """Read it from a generation's file.

        Raises:
            KeyError, TypeError, ValueError: `content` is not a list.
        """
        return cls(
            name=content["name"],
            kind=content["kind"],
            actor=content["actor"],
            home=content["home"],
            source=content["source"],
            day=date.fromisoformat(content["day"]),
            day_from=content["day_from"],
            prefixes=tuple(map(parse_prefix, content["prefixes"])),
            dropped=content["dropped"],
            refused=content["refused"],
            fetched=tuple(content["fetched"].items()),
        )
