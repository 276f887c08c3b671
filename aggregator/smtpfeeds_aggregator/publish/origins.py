"""What publishing asks of the origin tables; ``smtpfeeds_aggregator.origin`` has the real ones."""

from collections.abc import Sequence
from datetime import datetime
from typing import Protocol


class OriginInfo(Protocol):
    """Where a table came from, and how large it is."""

    @property
    def source(self) -> str:
        """An address or a path."""
        ...

    @property
    def table_time(self) -> datetime | None:
        """When the routes were seen, where the source tells."""
        ...

    @property
    def prefixes(self) -> int:
        """How many prefixes it has; 0: no table is loaded."""
        ...

    @property
    def origins(self) -> int:
        """How many autonomous systems announce them."""
        ...


class OriginTable(Protocol):
    """One origin table with its AS names, never changed once loaded."""

    @property
    def generation(self) -> str:
        """What names this table among all."""
        ...

    @property
    def info(self) -> OriginInfo:
        """Where it came from, when, and how large it is."""
        ...

    def lookup_many(self, addresses: Sequence[bytes], /) -> list[int | None]:
        """The origin ASN of each packed address."""
        ...

    def name(self, asn: int, /) -> str | None:
        """The full cleaned name of an autonomous system."""
        ...


class OriginSource(Protocol):
    """Holds the table that is current."""

    @property
    def current(self) -> OriginTable:
        """The newest table that could be loaded."""
        ...
