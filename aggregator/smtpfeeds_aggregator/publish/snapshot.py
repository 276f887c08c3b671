"""The window of a publication: its times, what is left out, and its origins."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from ipaddress import ip_network
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from smtpfeeds_common.addresses import format_address
from smtpfeeds_common.feeds import DATA, FEED_NAMES, FEEDS, GREET, WINDOW_DAYS

from ..address_ranges import AddressRanges
from ..origin.lookup import DescribedLookup
from ..settings import AggregatorSettings
from ..special_purpose import not_global
from ..store.publication import OriginChange
from .columns import Addresses, Window

#: The database's order of the feeds.
_KEY_ORDER: Final = (DATA.name, GREET.name)

Mask = npt.NDArray[np.bool_]


def window_end(now: datetime) -> datetime:
    """Return T: now, rounded up to the minute."""
    cut = now.replace(second=0, microsecond=0)
    return cut if cut == now else cut + timedelta(minutes=1)


def window_start(end: datetime) -> datetime:
    """Return the first instant of the window that ends at T."""
    return end - timedelta(days=WINDOW_DAYS)


@dataclass(frozen=True, slots=True)
class LeftOut:
    """The addresses that are not published: sets, by the reason under which they are counted."""

    not_global: AddressRanges
    excluded: AddressRanges

    @classmethod
    def by_settings(cls, settings: AggregatorSettings, excluded: Iterable[str]) -> "LeftOut":
        """Return the sets by the settings and the stored exclusions."""
        not_routable = AddressRanges(()) if settings.publish_non_global else not_global()
        return cls(not_routable, AddressRanges(map(ip_network, excluded)))

    def of_addresses(self, ipv4: Any, high: Any, low: Any) -> Mask:
        """Return which addresses are not published; IPv6 ones by their upper and lower 64 bits."""
        return in_ranges(self.not_global, ipv4, high, low) | in_ranges(
            self.excluded, ipv4, high, low
        )

    def apply(self, window: Window) -> tuple[Window, dict[str, dict[str, int]]]:
        """Return the published part of a window, and how many addresses are left out, by feed and
        reason.
        """
        columns4, columns6 = window.ipv4, (window.high, window.low)
        reserved = in_ranges(self.not_global, columns4, *columns6)
        excluded = in_ranges(self.excluded, columns4, *columns6) & ~reserved
        counts: dict[str, dict[str, int]] = {
            feed.name: {
                "not_global": int(reserved[columns.address].sum()),
                "excluded": int(excluded[columns.address].sum()),
            }
            for feed, columns in zip(FEEDS, window.feeds, strict=True)
        }
        gone = reserved | excluded
        return (window.select(~gone) if gone.any() else window), counts


def in_ranges(ranges: AddressRanges, ipv4: Any, high: Any, low: Any) -> Mask:
    """Return which addresses are in a set.

    Args:
        ranges: the set.
        ipv4: IPv4 addresses as numbers.
        high: the upper 64 bits of IPv6 addresses.
        low: their lower 64 bits.
    """
    four = np.array([int.from_bytes(bound) for bound in ranges.boundaries(4)], dtype=np.uint32)
    in4 = np.searchsorted(four, ipv4, side="right") % 2 == 1
    bounds6 = ranges.boundaries(16)
    in6 = np.zeros(len(low), bool)
    for start, end in zip(bounds6[::2], [*bounds6[1::2], None][: len(bounds6[::2])], strict=True):
        is_before_end = True if end is None else ~_at_or_after(high, low, end)
        in6 |= _at_or_after(high, low, start) & is_before_end
    return np.concatenate((in4, in6))


def _at_or_after(high: Any, low: Any, packed: bytes) -> Any:
    bound_high, bound_low = (np.uint64(int.from_bytes(part)) for part in (packed[:8], packed[8:]))
    return (high > bound_high) | ((high == bound_high) & (low >= bound_low))


def with_origins(window: Window, table: DescribedLookup) -> Window:
    """Return the window with origins of one table instead of the stored ones."""
    return replace(window, asn=table.lookup_columns(window.ipv4, window.high, window.low))


def origin_changes(before: Window, after: Window) -> Iterator[OriginChange]:
    """Yield the rows whose origin differs from the stored one, in the database's key order.

    Until they are read, it holds only the changed addresses, and neither window.

    Args:
        before: a window with its stored origins.
        after: the same window with those of a table.
    """
    changed = before.asn != after.asn
    held = {
        name: _mask(len(before), columns.address)[changed]
        for name, columns in zip(FEED_NAMES, before.feeds, strict=True)
    }
    return _changes(after.addresses(changed), held)


def _changes(addresses: Addresses, held: Mapping[str, Mask]) -> Iterator[OriginChange]:
    for number in range(len(addresses)):
        address = format_address(addresses.packed(number, number + 1)[0])
        for name in _KEY_ORDER:
            if held[name][number]:
                yield OriginChange(address, name, int(addresses.asn[number]) or None)


def _mask(length: int, numbers: Any) -> Mask:
    mask = np.zeros(length, bool)
    mask[numbers] = True
    return mask


def origins_in(window: Window) -> set[int]:
    """Return all origins in a window."""
    return set(np.unique(window.asn).tolist()) - {0}
