"""The origin table as programs use it: immutable, replaced by swapping one reference."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Final

from .index import OriginIndex

if TYPE_CHECKING:
    # Ingest looks origins up without numpy.
    from .columns import Column


@dataclass(frozen=True, slots=True)
class TableInfo:
    """Source and size of a table."""

    #: A URL or a path.
    source: str
    #: Time of the RIB that it was made from, or of the file; UTC.
    table_time: datetime | None
    prefixes_ipv4: int
    prefixes_ipv6: int
    origins: int
    names: int
    #: Lines of the table that were left out, because they have no prefix and origin.
    bad_lines: int = 0

    @property
    def prefixes(self) -> int:
        """Prefixes of both families."""
        return self.prefixes_ipv4 + self.prefixes_ipv6


NOTHING: Final = TableInfo("none", None, 0, 0, 0, 0)


class OriginTable:
    """One generation of origins and AS names; empty without an index.

    Addresses are packed: 4 or 16 octets. An IPv4-mapped IPv6 address has the
    origin of its IPv4 address.
    """

    __slots__ = ("_index", "generation", "info")

    def __init__(
        self, index: OriginIndex | None = None, generation: str = "none", info: TableInfo = NOTHING
    ) -> None:
        self._index = index
        #: Stable name of table and names; equal content has the same name.
        self.generation = generation
        self.info = info

    @property
    def descriptor(self) -> int | None:
        """The descriptor of the index, for a child process; None for an empty table."""
        return None if self._index is None else self._index.descriptor

    def lookup_many(self, addresses: Sequence[bytes]) -> list[int | None]:
        """Return the origin ASN of each address, `None` if no prefix covers it."""
        if self._index is None:
            return [None] * len(addresses)
        return self._index.lookup_many(addresses)

    def lookup_columns(self, ipv4: "Column", high: "Column", low: "Column") -> "Column":
        """Return the origin ASN of each address, IPv4 first, 0 if no prefix covers it.

        Args:
            ipv4: IPv4 addresses as numbers.
            high: the upper 64 bits of IPv6 addresses.
            low: their lower 64 bits.
        """
        import numpy as np

        from .columns import lookup_columns

        if self._index is None:
            return np.zeros(len(ipv4) + len(high), np.uint32)
        return lookup_columns(self._index, ipv4, high, low)

    def lookup(self, packed: bytes) -> int | None:
        """Return the origin ASN of one address."""
        return self.lookup_many([packed])[0]

    def find(self, packed: bytes) -> tuple[int, str] | None:
        """Return the origin ASN of one address, and the announced prefix that it comes from."""
        return self._index.find(packed) if self._index else None

    def prefix(self, packed: bytes) -> str | None:
        """Return the announced prefix that an address's origin comes from."""
        answer = self.find(packed)
        return answer[1] if answer else None

    def name(self, asn: int) -> str | None:
        """Return the full cleaned name of an AS."""
        return self._index.name(asn) if self._index else None

    def names(self, asns: Iterable[int]) -> dict[int, str]:
        """Return the names of these ASNs, without those that have none."""
        return {asn: name for asn in set(asns) if (name := self.name(asn)) is not None}

    def starts6(self, count: int) -> list[bytes]:
        """Return up to `count` first addresses of announced IPv6 ranges, evenly spread."""
        return self._index.starts6(count) if self._index else []


EMPTY: Final = OriginTable()
