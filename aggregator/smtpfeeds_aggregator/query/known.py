"""Join the entries of both feeds by address, for queries by address.

The entries can come from the database or from files. The memory used is that of the feeds.
"""

from collections.abc import Collection, Iterable, Mapping
from typing import Any, NamedTuple

from smtpfeeds_common.addresses import pack_address
from smtpfeeds_common.history import marks

from ..names import NOT_KNOWN
from ..publish.entries import Entry, tags


class Known(NamedTuple):
    """What the feeds know of an address, from one feed or both."""

    entry: Entry
    feeds: tuple[str, ...]

    def record(self) -> dict[str, Any]:
        """Return its fields, by the column names of the published files."""
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
    """Return the entries by packed address.

    Args:
        entries: of one feed or of both.
        classes: only addresses of these classes; if empty, all.
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
    """Sort addresses by last seen, newest first; the first of an IPv6 prefix represents it."""
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
