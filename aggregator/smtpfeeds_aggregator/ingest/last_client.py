"""The client that was stored last, and the AS that announces it, for `smtpfeeds up`.

The aggregator keeps it only if a service manager is notified. It is one address in memory, which
the next one replaces; it is never logged.
"""

from typing import NamedTuple

from smtpfeeds_common.addresses import format_address

from .handover import Collection


class LastClient(NamedTuple):
    """The client that was seen last."""

    ip: str
    #: None if it is not known.
    asn: int | None
    name: str | None
    #: Unix time by the sensor's clock.
    seen_s: float


class LastClientNote:
    """Holds the last client; the writer calls `note`, any thread reads `newest`."""

    def __init__(self) -> None:
        self.newest: LastClient | None = None

    def note(self, collection: Collection) -> None:
        """Take the last client of a committed collection."""
        rows = [row for batch in collection.batches for row in batch.rows]
        if not rows:
            return
        packed, seen = max(rows, key=lambda row: row[1].last_ms)
        seen_s = seen.last_ms / 1000
        # A sensor that was offline for days delivers older clients.
        if self.newest is not None and self.newest.seen_s > seen_s:
            return
        (asn,) = collection.origin.lookup_many([packed])
        name = None if asn is None else collection.origin.name(asn)
        self.newest = LastClient(format_address(packed), asn, name, seen_s)
