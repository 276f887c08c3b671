"""Protocols of the origin tables that ingest and publishing use, so that tests can replace them."""

from collections.abc import Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    # Ingest looks origins up without numpy.
    import numpy.typing as npt

    Column = npt.NDArray[Any]


class OriginLookup(Protocol):
    """Which AS announces an address, as of one generation of the table."""

    @property
    def generation(self) -> str:
        """The stable name of the table."""
        ...

    def lookup_many(self, addresses: Sequence[bytes], /) -> list[int | None]:
        """Return the origin ASN of each packed address, None if it has none."""
        ...

    def name(self, asn: int, /) -> str | None:
        """Return the full cleaned name of an AS."""
        ...


class TableDescription(Protocol):
    """Where a table came from, and how large it is."""

    @property
    def source(self) -> str:
        """A URL or a path."""
        ...

    @property
    def table_time(self) -> datetime | None:
        """When the routes were collected, if the source has a time."""
        ...

    @property
    def prefixes(self) -> int:
        """Number of prefixes; 0 if no table is loaded."""
        ...

    @property
    def origins(self) -> int:
        """Number of ASNs that announce them."""
        ...


class DescribedLookup(Protocol):
    """What a publication asks: whole columns of addresses, and the table's description."""

    @property
    def generation(self) -> str:
        """The stable name of the table."""
        ...

    def lookup_columns(self, ipv4: "Column", high: "Column", low: "Column", /) -> "Column":
        """Return the origin ASN of each address, IPv4 first, 0 if it has none."""
        ...

    def name(self, asn: int, /) -> str | None:
        """Return the full cleaned name of an AS."""
        ...

    @property
    def info(self) -> TableDescription:
        """Where it came from, when, and how large it is."""
        ...
