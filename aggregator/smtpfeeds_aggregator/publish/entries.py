"""A row of a feed, and what is said about a feed as a whole: what every format writes.

A row is also a record of fixed length whose octets sort the way the feeds are
sorted: by ASN with the unknown ones first, IPv4 before IPv6, then by address.
"""

import struct
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from itertools import groupby
from operator import itemgetter
from typing import Final, NamedTuple, Protocol

from smtpfeeds_common.addresses import IPv4_BYTES, format_address
from smtpfeeds_common.behaviours import Flags
from smtpfeeds_common.feeds import Feed

from ..names import short_name

#: ASN (0: not known), octets of the address, the address, last seen, first seen, hits,
#: flags, sensors.
RECORD: Final = struct.Struct(">IB16sqqqqI")

#: Said in every format that has room for it.
NOTICE: Final = (
    "This is a record of observations and not a block list: an innocent mail client can be in it."
)


class Entry(NamedTuple):
    """One address in one feed, as it is published; times are UTC, in whole seconds."""

    asn: int | None
    name: str
    address: str
    family: int
    last_seen: str
    category: str
    first_seen: str
    hits: int
    sensors: int
    flags: int


_asn_of: Final = itemgetter(Entry._fields.index("asn"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Frame:
    """What a file says about itself besides its rows."""

    feed: Feed
    #: 4, 6, or None for both.
    family: int | None
    window_start: datetime
    window_end: datetime
    generated: datetime
    expires: datetime
    publisher: str
    contact: str
    licence: str


@dataclass(slots=True)
class Counts:
    """What a file's rows add up to; rows come sorted by ASN."""

    addresses: int = 0
    asns: int = 0
    last_asn: int | None = None

    def count(self, entries: list[Entry]) -> None:
        """Take more rows into account."""
        self.addresses += len(entries)
        for asn, _ in groupby(map(_asn_of, entries)):
            if asn != self.last_asn:
                self.asns += 1
                self.last_asn = asn


class Format(Protocol):
    """How one kind of file is written; a module is one."""

    def header(self, frame: Frame) -> str:
        """What comes before the rows."""
        ...

    def row(self, entry: Entry) -> str:
        """One row, with its line feed."""
        ...

    def footer(self, frame: Frame, counts: Counts) -> str:
        """What comes after the rows."""
        ...


def pack_record(
    asn: int | None, packed: bytes, last_s: int, first_s: int, hits: int, flags: int, sensors: int
) -> bytes:
    """Make the record of a row."""
    return RECORD.pack(asn or 0, len(packed), packed, last_s, first_s, hits, flags, sensors)


def entries(records: Iterable[bytes], category: str, names: Mapping[int, str]) -> Iterator[Entry]:
    """The rows of sorted records; a name is cut once for all rows of its ASN."""
    for number, group in groupby(records, key=_record_asn):
        asn = number or None
        name = short_name(names.get(number, ""))
        for record in group:
            _, length, packed, last_s, first_s, hits, flags, sensors = RECORD.unpack(record)
            yield Entry(
                asn,
                name,
                format_address(packed[:length]),
                4 if length == IPv4_BYTES else 6,
                format_time(last_s),
                category,
                format_time(first_s),
                hits,
                sensors,
                flags,
            )


def _record_asn(record: bytes) -> int:
    return int.from_bytes(record[:4])


def format_time(epoch_s: int) -> str:
    """``2026-11-23 11:00:59``, UTC."""
    minute, second = divmod(epoch_s, 60)
    return f"{_minute(minute)}:{second:02}"


#: More than the minutes of a month.
@lru_cache(maxsize=1 << 16)
def _minute(minute: int) -> str:
    return datetime.fromtimestamp(minute * 60, UTC).strftime("%Y-%m-%d %H:%M")


@lru_cache(maxsize=1024)
def tags(flags: int) -> tuple[str, ...]:
    """The notable things about how an address spoke, such as ``bare_lf``."""
    return tuple(flag.name.lower() for flag in Flags if flags & flag and flag.name)
