"""Protocols of the origin tables that ingest and publishing use, so that tests can replace them."""

from collections.abc import Sequence
from datetime import datetime
from typing import Protocol


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


class DescribedLookup(OriginLookup, Protocol):
    """A table with its description; immutable."""

    @property
    def info(self) -> TableDescription:
        """Where it came from, when, and how large it is."""
        ...
