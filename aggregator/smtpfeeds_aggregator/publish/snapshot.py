"""The window in one local file, and what becomes of each of its rows.

The file is written by one COPY and read afterwards, so the database is done
with it in seconds. Origins are looked up in one table for the whole window;
rows that are not to be published are counted; the others become records, in
the feeds' order.
"""

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from ipaddress import ip_network
from itertools import islice
from pathlib import Path
from tempfile import TemporaryFile
from typing import Final

from smtpfeeds_common.addresses import format_address, pack_address
from smtpfeeds_common.feeds import DATA, FEED_NAMES, FEEDS, GREET, WINDOW_DAYS

from ..address_ranges import AddressRanges
from ..origin.lookup import OriginLookup
from ..settings import AggregatorSettings
from ..special_purpose import not_global
from ..store.publication import OriginChange, PublicationStore
from .entries import RECORD, pack_record
from .sorting import SortedRecords
from .stopping import KeepGoing, go_on, guarded

#: Rows whose origins are looked up in one call.
LOOKUP_ROWS: Final = 20_000
#: Octets of the address, the address, the feed's place in the database's order, ASN.
_CHANGE_BYTES: Final = 1 + 16 + 1 + 4
_KEY_ORDER: Final = (DATA.name, GREET.name)


def window_end(now: datetime) -> datetime:
    """T: now, rounded up to the minute."""
    cut = now.replace(second=0, microsecond=0)
    return cut if cut == now else cut + timedelta(minutes=1)


def window_start(end: datetime) -> datetime:
    """The first instant that is in the window that ends at T."""
    return end - timedelta(days=WINDOW_DAYS)


@dataclass(frozen=True, slots=True)
class LeftOut:
    """What is not published: sets of addresses, each under the word it is counted by."""

    not_global: AddressRanges
    excluded: AddressRanges

    @classmethod
    def by_settings(cls, settings: AggregatorSettings, excluded: Iterable[str]) -> "LeftOut":
        """As the settings and the stored exclusions say."""
        not_routable = AddressRanges(()) if settings.publish_non_global else not_global()
        return cls(not_routable, AddressRanges(map(ip_network, excluded)))

    def reason(self, packed: bytes) -> str | None:
        """Why an address is not published, if it is not."""
        if packed in self.not_global:
            return "not_global"
        return "excluded" if packed in self.excluded else None


class Window:
    """The rows of all feeds, sorted; the origins that changed; and what was left out."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.records = {name: SortedRecords(folder, RECORD.size) for name in FEED_NAMES}
        self.left_out: dict[str, Counter[str]] = {feed.name: Counter() for feed in FEEDS}
        self.asns: set[int] = set()
        self.rows = 0
        self._changes = SortedRecords(folder, _CHANGE_BYTES)

    def take(
        self,
        store: PublicationStore,
        since: datetime,
        table: OriginLookup | None,
        left_out: LeftOut,
        until: datetime | None = None,
        keep_going: KeepGoing = go_on,
    ) -> None:
        """Copy the window into a local file, and then read that."""
        with TemporaryFile(dir=self._folder) as snapshot:
            store.copy_window(since, until, snapshot)
            snapshot.seek(0)
            self.read(guarded(snapshot, keep_going), table, left_out)

    def read(self, lines: Iterable[bytes], table: OriginLookup | None, left_out: LeftOut) -> None:
        """Take the rows of a COPY; without a table the stored origins stand."""
        iterator = iter(lines)
        while part := [line.split(b"\t") for line in islice(iterator, LOOKUP_ROWS)]:
            packed = [pack_address(fields[0].decode("ascii")) for fields in part]
            stored = [int(fields[7]) or None for fields in part]
            origins = stored if table is None else table.lookup_many(packed)
            for fields, address, was, asn in zip(part, packed, stored, origins, strict=True):
                if asn != was:
                    self._changes.add(_change(address, fields[1], asn))
                self._take(fields, address, asn, left_out)
            self.asns.update(filter(None, origins))
            self.rows += len(part)

    def changes(self) -> Iterator[OriginChange]:
        """The addresses whose origin is not the stored one, in the database's key order."""
        for record in self._changes:
            yield OriginChange(
                format_address(record[1 : 1 + record[0]]),
                _KEY_ORDER[record[17]],
                int.from_bytes(record[18:]) or None,
            )

    def close(self) -> None:
        """Give memory and disk back."""
        for records in (*self.records.values(), self._changes):
            records.close()

    def _take(
        self, fields: list[bytes], address: bytes, asn: int | None, left_out: LeftOut
    ) -> None:
        feed = fields[1].decode("ascii")
        reason = left_out.reason(address)
        if reason is not None:
            self.left_out[feed][reason] += 1
            return
        last_s, first_s, hits, flags, sensors = map(int, fields[2:7])
        self.records[feed].add(
            pack_record(asn, address, last_s, first_s, hits, flags, min(sensors, 0xFFFF_FFFF))
        )


def _change(address: bytes, feed: bytes, asn: int | None) -> bytes:
    place = _KEY_ORDER.index(feed.decode("ascii"))
    return (
        bytes((len(address),)) + address.ljust(16, b"\0") + bytes((place,)) + (asn or 0).to_bytes(4)
    )
