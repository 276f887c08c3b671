"""The newest client that was stored, and the AS that announces it: shown by `smtpfeeds up`.

Kept only where somebody is notified. It is one address in memory, replaced by the next one; it is
never logged.
"""

from typing import NamedTuple

from smtpfeeds_common.addresses import format_address

from .handover import Collection


class LastClient(NamedTuple):
    """A client of the newest second."""

    ip: str
    #: None: not known.
    asn: int | None
    name: str | None
    #: Unix time by the sensor's clock.
    seen_s: float


class LastClientNote:
    """Holds the newest; ``note`` from the thread that stores, ``newest`` from any."""

    def __init__(self) -> None:
        self.newest: LastClient | None = None

    def note(self, collection: Collection) -> None:
        """Look at a collection that was committed."""
        rows = [row for batch in collection.batches for row in batch.rows]
        if not rows:
            return
        packed, seen = max(rows, key=lambda row: row[1].last_ms)
        seen_s = seen.last_ms / 1000
        # A spool that comes back after days holds older ones.
        if self.newest is not None and self.newest.seen_s > seen_s:
            return
        (asn,) = collection.origin.lookup_many([packed])
        name = None if asn is None else collection.origin.name(asn)
        self.newest = LastClient(format_address(packed), asn, name, seen_s)
