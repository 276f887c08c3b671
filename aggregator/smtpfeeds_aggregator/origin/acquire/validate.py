"""Decides whether a new table may replace the one in use. Pure: it returns objections.

A routing table changes by a fraction of a percent a day. A table that lost a family,
shrank, gives wrong answers for known addresses, or other origins for much of a fixed
sample has a fault: a collector that lost its peers, a file that was truncated
unnoticed, or a mistake of the archive.
"""

import random
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from smtpfeeds_aggregator.settings import AggregatorSettings
from smtpfeeds_common.addresses import format_address, pack_address
from smtpfeeds_common.errors import AddressError, SettingsError

from ..table.in_memory import OriginTable, TableInfo

#: Addresses in the fixed sample on which the old and the new table are compared.
SAMPLE_ADDRESSES: Final = 20_000
#: With fewer known origins in the sample, the comparison is not reliable.
_MIN_KNOWN: Final = 50
_CLOCK_SLACK: Final = timedelta(days=1)


@dataclass(frozen=True, slots=True)
class Bounds:
    """The bounds that a new table must keep to."""

    min_prefixes_ipv4: int
    min_prefixes_ipv6: int
    min_origins: int
    max_change_percent: float
    max_moved_percent: float
    max_age: timedelta
    #: Packed addresses with their known origin.
    known: tuple[tuple[bytes, int], ...]


def bounds_of(settings: AggregatorSettings) -> Bounds:
    """Return the bounds of the settings.

    Raises:
        SettingsError: a known answer is not `ADDRESS=ASN`.
    """
    return Bounds(
        settings.origin_min_prefixes_ipv4,
        settings.origin_min_prefixes_ipv6,
        settings.origin_min_origins,
        settings.origin_max_change_percent,
        settings.origin_max_moved_percent,
        timedelta(days=settings.origin_max_age_days),
        tuple(_known(text) for text in settings.origin_known_answers),
    )


def objections(new: OriginTable, old: OriginTable, bounds: Bounds, now: datetime) -> Iterable[str]:
    """Yield all objections to the new table; none if it may be used."""
    yield from _counts(new.info, old.info, bounds)
    yield from _age(new.info, bounds, now)
    for packed, expected in bounds.known:
        answer = new.lookup(packed)
        if answer != expected:
            yield f"{format_address(packed)} has origin {answer}, not {expected}"
    moved = moved_percent(new, old)
    if moved > bounds.max_moved_percent:
        yield (
            f"{moved:.1f} % of a fixed sample have another origin than in the table in use, "
            f"more than {bounds.max_moved_percent:g} %"
        )


def _counts(new: TableInfo, old: TableInfo, bounds: Bounds) -> Iterable[str]:
    rows = (
        ("IPv4 prefixes", new.prefixes_ipv4, old.prefixes_ipv4, bounds.min_prefixes_ipv4),
        ("IPv6 prefixes", new.prefixes_ipv6, old.prefixes_ipv6, bounds.min_prefixes_ipv6),
        ("origin ASNs", new.origins, old.origins, bounds.min_origins),
    )
    for noun, count, before, least in rows:
        if count < least:
            yield f"{count} {noun}, fewer than {least}"
        elif before and abs(count - before) * 100 > before * bounds.max_change_percent:
            yield (
                f"{count} {noun}, {before} in the table in use: "
                f"a change of more than {bounds.max_change_percent:g} %"
            )


def _age(new: TableInfo, bounds: Bounds, now: datetime) -> Iterable[str]:
    if new.table_time is None:
        yield "the time of the table is not known"
    elif now - new.table_time > bounds.max_age:
        age = (now - new.table_time).days
        yield (
            f"it is from {new.table_time:%Y-%m-%d}, {age} days old, more than {bounds.max_age.days}"
        )
    elif new.table_time - now > _CLOCK_SLACK:
        yield f"it is from {new.table_time:%Y-%m-%d}, in the future: check this host's clock"


def moved_percent(new: OriginTable, old: OriginTable) -> float:
    """Return the share of the sample's known origins that differ in the new table."""
    sample = sample_addresses(old)
    pairs = zip(old.lookup_many(sample), new.lookup_many(sample), strict=True)
    known = [(before, after) for before, after in pairs if before is not None]
    if len(known) < _MIN_KNOWN:
        return 0.0
    return sum(before != after for before, after in known) * 100 / len(known)


def sample_addresses(table: OriginTable) -> list[bytes]:
    """Return addresses of both families, spread over the table; equal for equal tables."""
    chance = random.Random(20261123)  # noqa: S311 - a fixed sample, no secret
    half = SAMPLE_ADDRESSES // 2
    return [chance.randbytes(4) for _ in range(half)] + table.starts6(half)


def _known(text: str) -> tuple[bytes, int]:
    address, _, asn = text.rpartition("=")
    try:
        return pack_address(address.strip()), int(asn.strip().upper().removeprefix("AS"))
    except (AddressError, ValueError) as exc:
        raise SettingsError(
            f"origin_known_answers: {text!r} is not ADDRESS=ASN, such as 8.8.8.8=15169"
        ) from exc
