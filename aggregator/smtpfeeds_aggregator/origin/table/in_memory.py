"""The table that is in use: immutable, swapped by one reference."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from .index import OriginIndex


@dataclass(frozen=True, slots=True)
class TableInfo:
    """What is known of a table."""

    #: Where it came from: an address or a path.
    source: str
    #: Time of the RIB it was made from, or of the file; UTC.
    table_time: datetime | None
    prefixes_ipv4: int
    prefixes_ipv6: int
    origins: int
    names: int
    #: Lines of the table that were no prefix and origin and were left out.
    bad_lines: int = 0

    @property
    def prefixes(self) -> int:
        """Prefixes of both families."""
        return self.prefixes_ipv4 + self.prefixes_ipv6


NOTHING: Final = TableInfo("none", None, 0, 0, 0, 0)


class OriginTable:
    """One generation of origins and AS names; without an index, it knows nothing.

    Addresses are packed: 4 or 16 octets. An IPv4-mapped IPv6 address has the
    origin of its IPv4 address.
    """

    __slots__ = ("_index", "generation", "info")

    def __init__(
        self, index: OriginIndex | None = None, generation: str = "none", info: TableInfo = NOTHING
    ) -> None:
        self._index = index
        #: Stable name of the table and names: the same content has the same name.
        self.generation = generation
        self.info = info

    @property
    def descriptor(self) -> int | None:
        """The open file of the index, for a child process; None: it knows nothing."""
        return None if self._index is None else self._index.descriptor

    def lookup_many(self, addresses: Sequence[bytes]) -> list[int | None]:
        """The origin ASN of each address, `None` where no announcement is known."""
        if self._index is None:
            return [None] * len(addresses)
        return self._index.lookup_many(addresses)

    def lookup(self, packed: bytes) -> int | None:
        """The origin ASN of one address."""
        return self.lookup_many([packed])[0]

    def find(self, packed: bytes) -> tuple[int, str] | None:
        """The origin ASN of one address, and the announced prefix that it comes from."""
        return self._index.find(packed) if self._index else None

    def prefix(self, packed: bytes) -> str | None:
        """The announced prefix that an address's origin comes from."""
        answer = self.find(packed)
        return answer[1] if answer else None

    def name(self, asn: int) -> str | None:
        """The cleaned name of an AS, whole."""
        return self._index.name(asn) if self._index else None

    def names(self, asns: Iterable[int]) -> dict[int, str]:
        """The names of those of these ASNs that have one."""
        return {asn: name for asn in set(asns) if (name := self.name(asn)) is not None}

    def starts6(self, count: int) -> list[bytes]:
        """Up to `count` first addresses of announced IPv6 ranges, evenly spread: a sample."""
        return self._index.starts6(count) if self._index else []


EMPTY: Final = OriginTable()
