"""Support of the publisher's tests: an invented origin table, and feeds without a database."""

from __future__ import annotations

import struct
import threading
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np

from smtpfeeds_aggregator.clock.database import DatabaseClock
from smtpfeeds_aggregator.names import clean_name
from smtpfeeds_aggregator.publish.check import check_feed
from smtpfeeds_aggregator.publish.chunks import FeedRows
from smtpfeeds_aggregator.publish.columns import Rows, Window
from smtpfeeds_aggregator.publish.entries import Frame
from smtpfeeds_aggregator.publish.files import FeedFile, files_of, write_files
from smtpfeeds_aggregator.publish.judgements import NoLists, judge_window
from smtpfeeds_aggregator.publish.once import Published
from smtpfeeds_aggregator.publish.scheduled import publish_scheduled
from smtpfeeds_aggregator.publish.snapshot import window_end, window_start
from smtpfeeds_aggregator.publish.stopping import PublishStopped
from smtpfeeds_aggregator.settings import AggregatorSettings
from smtpfeeds_common.addresses import format_address, pack_address
from smtpfeeds_common.feeds import FEED_BY_NAME

#: The current time of the tests, unless they pass another.
NOW = datetime(2026, 11, 23, 10, 59, 30, tzinfo=UTC)

#: AS names like those of registries that can break a parser.
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
    """An origin table that is also its source: addresses to ASNs, ASNs to cleaned names."""

    asns: dict[str, int] = field(default_factory=dict)
    raw_names: Mapping[int, str] = field(default_factory=lambda: HOSTILE_NAMES)
    generation: str = "table-1"
    info: Info = field(default_factory=Info)

    @property
    def current(self) -> Origins:
        return self

    def lookup_many(self, addresses: Sequence[bytes]) -> list[int | None]:
        return [self.asns.get(format_address(packed)) for packed in addresses]

    def lookup_columns(self, ipv4: Rows, high: Rows, low: Rows) -> Rows:
        packed = [number.to_bytes(4) for number in ipv4.tolist()]
        halves = zip(high.tolist(), low.tolist(), strict=True)
        packed += [(upper << 64 | lower).to_bytes(16) for upper, lower in halves]
        return np.array([asn or 0 for asn in self.lookup_many(packed)], np.uint32)

    def name(self, asn: int) -> str | None:
        return clean_name(self.raw_names.get(asn, ""), has_country=False) or None


class RunHere:
    """Runs publications in the test's process, with an origin table in memory."""

    def __init__(
        self, settings: AggregatorSettings, origins: Origins, clock: DatabaseClock
    ) -> None:
        self._settings, self._origins, self._clock = settings, origins, clock

    def run(self, unless_made_since: datetime, stop: threading.Event) -> Published | None:
        def keep_going() -> None:
            if stop.is_set():
                raise PublishStopped

        return publish_scheduled(
            self._settings, self._origins, NoLists(), self._clock, unless_made_since, keep_going
        )


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
    targets: int = 0
    day: int = 0
    days: int = 0
    flags_now: int = 0
    flags_before: int = 0

    def copied(self) -> bytes:
        """Write the row as a binary COPY of the window does."""
        packed = pack_address(self.ip)
        number = int.from_bytes(packed)
        ipv6 = len(packed) == 16
        fields = (
            struct.pack(">?", ipv6),
            struct.pack(">?", self.feed == "smtpdata"),
            struct.pack(">Q", number >> 64),
            struct.pack(">Q", number & 0xFFFF_FFFF_FFFF_FFFF),
            struct.pack(">q", _microseconds(self.last_seen)),
            struct.pack(">q", _microseconds(self.first_seen)),
            struct.pack(">q", self.hits),
            struct.pack(">q", self.asn or 0),
            struct.pack(">i", self.day),
            struct.pack(">Q", self.days),
            struct.pack(">q", self.flags),
            struct.pack(">q", self.flags_now),
            struct.pack(">q", self.flags_before),
            struct.pack(">q", self.sensors),
            struct.pack(">q", self.targets),
        )
        return struct.pack(">h", len(fields)) + b"".join(
            struct.pack(">i", len(field)) + field for field in fields
        )


def _microseconds(time: datetime) -> int:
    """Convert to PostgreSQL's time: microseconds since 2000-01-01."""
    return (time - datetime(2000, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1)


def copied_window(rows: Iterable[Seen]) -> list[bytes]:
    """Write a binary COPY of the window, in chunks that do not end at rows."""
    body = b"".join(row.copied() for row in rows)
    octets = b"PGCOPY\n\xff\r\n\0" + bytes(8) + body + b"\xff\xff"
    return [octets[at : at + 1000] for at in range(0, len(octets), 1000)]


def window_of(rows: Iterable[Seen]) -> Window:
    return Window.read(copied_window(rows), int(NOW.timestamp()))


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


def rows_of(feed: str, rows: Iterable[Seen]) -> FeedRows:
    """Return a feed's rows with classes and the hostile names, as a publication has them."""
    window = window_of(rows)
    names = {asn: clean_name(name, has_country=False) for asn, name in HOSTILE_NAMES.items()}
    judgements = judge_window(window, 3, NoLists())
    return FeedRows(window, feed, judgements, names, now_s=int(NOW.timestamp()), exact_counts=True)


def make_feed(folder: Path, feed: str, rows: Sequence[Seen]) -> list[FeedFile]:
    """Write and check all files of a feed as a publication does, but without a database."""
    files = files_of(FEED_BY_NAME[feed], frame_of(feed), ("txt", "csv", "ndjson"))
    write_files(folder, files, rows_of(feed, rows).chunks(7))
    check_feed(folder, files)
    return files


def hostile_rows(feed: str = "smtpgreet") -> list[Seen]:
    """Create an IPv4 and an IPv6 row for each hostile name, and some rows without an origin."""
    rows = [Seen("192.0.2.200", None, feed), Seen("2001:db8::ffff", None, feed)]
    for place, asn in enumerate(HOSTILE_NAMES):
        rows.append(Seen(f"192.0.2.{place}", asn, feed, hits=place))
        rows.append(Seen(f"2001:DB8:0:0:0:0:{place:x}:1", asn, feed, flags=place % 8))
    rows.append(Seen("2001:db8:1234:5678:9abc:def0:1234:5678", 4_294_967_294, feed))
    rows.append(Seen("::ffff:198.51.100.9", 7, feed))
    return rows[::-1]
