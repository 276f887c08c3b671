"""What the feeds say of each address, both feeds together, for those who ask by address.

Made of entries, wherever they come from. The memory it takes is that of the feed.
"""

from collections.abc import Collection, Iterable, Mapping
from typing import Any, NamedTuple

from smtpfeeds_common.addresses import pack_address
from smtpfeeds_common.history import marks

from ..names import NOT_KNOWN
from ..publish.entries import Entry, tags


class Known(NamedTuple):
    """An address in one feed or in both."""

    entry: Entry
    feeds: tuple[str, ...]

    def record(self) -> dict[str, Any]:
        """Its fields, by the names of the columns in the published files."""
        entry = self.entry
        return {
            "ipaddr": entry.address,
            "class": str(entry.judgement.cls),
            "feeds": self.feeds,
            "lastseen": entry.last_seen,
            "days": marks(entry.days),
            "hits": entry.hits,
            "ASN": entry.asn,
            "ASname": None if entry.name == NOT_KNOWN else entry.name,
            "actor": entry.judgement.actor,
            "first_seen": entry.first_seen,
            "sensors": entry.sensors,
            "why": entry.judgement.why,
            "tags": tags(entry.flags),
            "new": entry.new,
        }


def known_addresses(entries: Iterable[Entry], classes: Collection[str] = ()) -> dict[bytes, Known]:
    """The addresses of entries, packed.

    Args:
        entries: of one feed or of both.
        classes: only addresses of these; none: all.
    """
    held: dict[bytes, Known] = {}
    for entry in entries:
        if classes and entry.judgement.cls not in classes:
            continue
        packed = pack_address(entry.address)
        before = held.get(packed)
        held[packed] = Known(entry, (entry.category,)) if before is None else _both(before, entry)
    return held


def newest_first(known: Mapping[bytes, Known]) -> list[bytes]:
    """The addresses, those seen last first: of an IPv6 prefix the first stands for it."""
    return sorted(known, key=lambda packed: known[packed].entry.last_seen, reverse=True)


def _both(before: Known, entry: Entry) -> Known:
    one = before.entry
    together = one._replace(
        last_seen=max(one.last_seen, entry.last_seen),
        first_seen=min(one.first_seen, entry.first_seen),
        hits=max(one.hits, entry.hits),
        sensors=max(one.sensors, entry.sensors),
        targets=max(one.targets, entry.targets),
        flags=one.flags | entry.flags,
        days=one.days | entry.days,
        new=one.new and entry.new,
    )
    return Known(together, (*before.feeds, entry.category))
