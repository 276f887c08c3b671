"""The bounds on new addresses in an ingest transaction, and which prefixes are full. Pure."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date
from typing import Final, NamedTuple

from ..settings import AggregatorSettings

#: A bucket has room for the new addresses of this many days, so that an honest backlog fits.
_BUCKET_DAYS: Final = 3
#: Most prefixes that are remembered as full; the database still has the counts of the others.
_FULL_MAX: Final = 4_096
#: Lengths of the wide prefixes, widest first.
WIDE: Final = (32, 48)


@dataclass(frozen=True, slots=True)
class Bounds:
    """How many new addresses are stored; others are counted under a prefix or an account."""

    #: New addresses of an IPv6 prefix of this length, in a UTC day.
    per_prefix64: int = 64
    per_prefix48: int = 1_024
    per_prefix32: int = 16_384
    #: How much a sensor's bucket refills in a day, and its size.
    per_sensor_day: int = 100_000
    per_sensor: int = 100_000 * _BUCKET_DAYS
    #: Share of the pages of ``incoming`` that are sampled to estimate the new addresses.
    sample_percent: float = 3.125
    #: Counts of a /48 and a /32 are rounded, at random, to a multiple of this.
    one_in: int = 16
    #: With more new addresses in one collection, a /48 or /32 is checked address by address.
    many: int = 32
    #: Run every statement, even if the rows do not need it.
    is_probe: bool = False

    @classmethod
    def of(cls, settings: AggregatorSettings) -> "Bounds":
        """Return the bounds of the settings."""
        return cls(
            per_prefix64=settings.addresses_per_prefix64,
            per_prefix48=settings.addresses_per_prefix48,
            per_prefix32=settings.addresses_per_prefix32,
            per_sensor_day=settings.new_addresses_per_day,
            per_sensor=settings.new_addresses_per_day * _BUCKET_DAYS,
        )

    def of_prefix(self, length: int) -> int:
        """Return the bound of a prefix of this length."""
        return {64: self.per_prefix64, 48: self.per_prefix48, 32: self.per_prefix32}[length]

    @property
    def new_per_s(self) -> float:
        """How much a sensor's bucket refills in a second."""
        return self.per_sensor_day / 86_400


#: With these bounds the known-good batch runs every statement: it exceeds each of them.
PROBE_BOUNDS: Final = Bounds(
    per_prefix64=1,
    per_prefix48=1,
    per_prefix32=1,
    per_sensor_day=1,
    per_sensor=130,
    sample_percent=100,
    one_in=1,
    many=0,
    is_probe=True,
)


class PrefixDay(NamedTuple):
    """An IPv6 prefix on a UTC day."""

    #: As PostgreSQL writes it.
    prefix: str
    length: int
    day: date


class FullPrefixes:
    """The /48s and /32s that this process has seen full; the database has the counts."""

    def __init__(self) -> None:
        self._full: dict[PrefixDay, None] = {}

    def add(self, prefix_days: Iterable[PrefixDay]) -> None:
        """Add prefixes that a committed transaction found full."""
        self._full |= dict.fromkeys(prefix_days)
        while len(self._full) > _FULL_MAX:
            del self._full[next(iter(self._full))]

    def of_length(self, length: int) -> list[PrefixDay]:
        """Return the full prefixes of a length."""
        return [prefix_day for prefix_day in self._full if prefix_day.length == length]

    def __contains__(self, prefix_day: object) -> bool:
        """Whether a prefix is full on a day."""
        return prefix_day in self._full
