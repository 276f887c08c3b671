"""The bounds of what is new in one transaction of ingest, and which prefixes are full. Pure."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date
from typing import Final, NamedTuple

from ..settings import AggregatorSettings

#: A bucket holds what a sensor may report new in so many days: an honest backlog passes.
_BUCKET_DAYS: Final = 3
#: Prefixes that are known to be full, of any day; past it they are learned again.
_FULL_MAX: Final = 4_096
#: Lengths of the wide prefixes, the widest first.
WIDE: Final = (32, 48)


@dataclass(frozen=True, slots=True)
class Bounds:
    """How many new addresses are stored; the rest is counted under a prefix or an account."""

    #: Of an IPv6 prefix of this length, in a UTC day.
    per_prefix64: int = 64
    per_prefix48: int = 1_024
    per_prefix32: int = 16_384
    #: By how many a sensor's bucket fills in a day, and how many it holds.
    per_sensor_day: int = 100_000
    per_sensor: int = 100_000 * _BUCKET_DAYS
    #: How much of what comes in is looked at to estimate how many of it are new, by page.
    sample_percent: float = 3.125
    #: Counts of a /48 and a /32 are rounded, at random, to a multiple of this.
    one_in: int = 16
    #: More than so many new addresses of a /48 or /32 in one collection are looked at one by one.
    many: int = 32
    #: Every statement is to run.
    is_probe: bool = False

    @classmethod
    def of(cls, settings: AggregatorSettings) -> "Bounds":
        """Those of the settings."""
        return cls(
            per_prefix64=settings.addresses_per_prefix64,
            per_prefix48=settings.addresses_per_prefix48,
            per_prefix32=settings.addresses_per_prefix32,
            per_sensor_day=settings.new_addresses_per_day,
            per_sensor=settings.new_addresses_per_day * _BUCKET_DAYS,
        )

    def of_prefix(self, length: int) -> int:
        """The bound of a prefix of this length."""
        return {64: self.per_prefix64, 48: self.per_prefix48, 32: self.per_prefix32}[length]

    @property
    def new_per_s(self) -> float:
        """By how much a sensor's bucket fills in a second."""
        return self.per_sensor_day / 86_400


#: Every statement runs for a batch that is known to be good: two addresses of a /64, and as many
#: others as that batch has.
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
    """The /48s and /32s that this process knows to be full; the database has the counts."""

    def __init__(self) -> None:
        self._full: dict[PrefixDay, None] = {}

    def add(self, prefix_days: Iterable[PrefixDay]) -> None:
        """These are full, as a transaction that is committed has it."""
        self._full |= dict.fromkeys(prefix_days)
        while len(self._full) > _FULL_MAX:
            del self._full[next(iter(self._full))]

    def of_length(self, length: int) -> list[PrefixDay]:
        """Those of a length."""
        return [prefix_day for prefix_day in self._full if prefix_day.length == length]

    def __contains__(self, prefix_day: object) -> bool:
        """Whether a prefix is full on a day."""
        return prefix_day in self._full
