"""What ingest and publishing ask of origin tables: protocols, so that a test brings its own."""

from collections.abc import Sequence
from datetime import datetime
from typing import Protocol


class OriginLookup(Protocol):
    """Which AS announces an address, as of one generation of the table."""

    @property
    def generation(self) -> str:
        """The stable name of this table."""
        ...

    def lookup_many(self, addresses: Sequence[bytes], /) -> list[int | None]:
        """The origin ASN of each packed address."""
        ...

    def name(self, asn: int, /) -> str | None:
        """The full cleaned name of an AS."""
        ...


class TableDescription(Protocol):
    """Where a table came from, and how large it is."""

    @property
    def source(self) -> str:
        """An address or a path."""
        ...

    @property
    def table_time(self) -> datetime | None:
        """When the routes were seen, where the source has a time."""
        ...

    @property
    def prefixes(self) -> int:
        """How many prefixes it has; 0: no table is loaded."""
        ...

    @property
    def origins(self) -> int:
        """How many autonomous systems announce them."""
        ...


class DescribedLookup(OriginLookup, Protocol):
    """One table with its description; never changed once loaded."""

    @property
    def info(self) -> TableDescription:
        """Where it came from, when, and how large it is."""
        ...
