"""What the publisher's tests share: a made-up origin table, and feeds made without a database."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

from smtpfeeds_aggregator.address_ranges import AddressRanges
from smtpfeeds_aggregator.names import clean_name
from smtpfeeds_aggregator.publish.check import check_feed
from smtpfeeds_aggregator.publish.entries import Frame, entries
from smtpfeeds_aggregator.publish.files import FeedFile, files_of, write_files
from smtpfeeds_aggregator.publish.snapshot import LeftOut, Window, window_end, window_start
from smtpfeeds_common.addresses import format_address, pack_address
from smtpfeeds_common.feeds import FEED_BY_NAME

#: The time that counts as now where nothing else is said.
NOW = datetime(2026, 11, 23, 10, 59, 30, tzinfo=UTC)

#: AS names as registries hold them: whatever a parser chokes on.
HOSTILE_NAMES = {
    64496: "COGENT-174",
    64497: "Pipe | in  |  the  |  middle",
    64498: '"Quoted" from the start',
    64499: "Burlington USD #244",
    64500: "Commas, Inc, Ltd, LLC, SA",
    64501: "Control\x00\x1b[31m\r\ncharacters\t\u2028here\x85",
    64502: "",
    64503: "N" * 200,
    64504: "eval(__import__('os').system('true'))",
    64505: "1.10.10.10 - Indian Public DNS",
    64506: "AT&amp;T &#124; Services &quot;Inc&quot; &lt;b&gt;",
    64507: "株式会社インターネット",
    64508: " # ",
    64509: "Telefónica del Perú S.A.A.",
    64510: "x" * 29 + ", trailing",
    64511: "# ASN  |  ASname  |  ipaddr",
}


@dataclass
class Info:
    source: str = "made up"
    table_time: datetime | None = None
    prefixes: int = 1
    origins: int = 1


@dataclass
class Origins:
    """An origin table and its source in one: addresses to ASNs, ASNs to cleaned names."""

    asns: dict[str, int] = field(default_factory=dict)
    raw_names: Mapping[int, str] = field(default_factory=lambda: HOSTILE_NAMES)
    generation: str = "table-1"
    info: Info = field(default_factory=Info)

    @property
    def current(self) -> Origins:
        return self

    def lookup_many(self, addresses: Sequence[bytes]) -> list[int | None]:
        return [self.asns.get(format_address(packed)) for packed in addresses]

    def name(self, asn: int) -> str | None:
        return clean_name(self.raw_names.get(asn, ""), has_country=False) or None


@dataclass(frozen=True)
class Seen:
    """One row of the window."""

    ip: str
    asn: int | None = None
    feed: str = "smtpgreet"
    last_seen: datetime = NOW - timedelta(minutes=1)
    first_seen: datetime = NOW - timedelta(days=1)
    hits: int = 1
    flags: int = 0
    sensors: int = 1

    def copied(self) -> bytes:
        """As a COPY writes it."""
        return (
            "\t".join(
                (
                    format_address(pack_address(self.ip)),
                    self.feed,
                    str(int(self.last_seen.timestamp())),
                    str(int(self.first_seen.timestamp())),
                    str(self.hits),
                    str(self.flags),
                    str(self.sensors),
                    str(self.asn or 0),
                )
            ).encode()
            + b"\n"
        )


def frame_of(feed: str) -> Frame:
    return Frame(
        feed=FEED_BY_NAME[feed],
        family=None,
        window_start=window_start(window_end(NOW)),
        window_end=window_end(NOW),
        generated=NOW,
        expires=NOW + timedelta(hours=2),
        publisher="Example Watch",
        contact="feeds@example.net",
        licence="CC0-1.0",
    )


def make_feed(folder: Path, feed: str, rows: Sequence[Seen]) -> list[FeedFile]:
    """Write and check all files of a feed, through everything but the database."""
    window = Window(folder)
    nowhere = AddressRanges(())
    window.read([row.copied() for row in rows], None, LeftOut(nowhere, nowhere))
    names = {asn: clean_name(name, has_country=False) for asn, name in HOSTILE_NAMES.items()}
    files = files_of(FEED_BY_NAME[feed], frame_of(feed))
    write_files(folder, files, entries(window.records[feed], feed, names))
    window.close()
    check_feed(folder, files)
    return files


def hostile_rows(feed: str = "smtpgreet") -> list[Seen]:
    """For every hostile name an IPv4 and an IPv6 address, and some whose origin is not known."""
    rows = [Seen("192.0.2.200", None, feed), Seen("2001:db8::ffff", None, feed)]
    for place, asn in enumerate(HOSTILE_NAMES):
        rows.append(Seen(f"192.0.2.{place}", asn, feed, hits=place))
        rows.append(Seen(f"2001:DB8:0:0:0:0:{place:x}:1", asn, feed, flags=place % 8))
    rows.append(Seen("2001:db8:1234:5678:9abc:def0:1234:5678", 4_294_967_294, feed))
    rows.append(Seen("::ffff:198.51.100.9", 7, feed))
    return rows[::-1]
