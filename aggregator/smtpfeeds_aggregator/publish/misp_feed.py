"""Write the MISP feed's folder: past days stay, new rows are added.

    misp/manifest.json      the events, and when each changed
    misp/hashes.csv         the event of each value
    misp/UUID.json          an event: addresses of one feed and UTC day
    misp/index.json         for smtpfeeds: feed and day of each event

An event is open for its day and for 24 hours more. An address belongs to the day of its last event.
If that day is closed, it is in the day on which it arrived, with its true time. An event's
timestamp changes only with its content, and an unchanged file is a hard link to that of the
previous edition. A closed day changes only if an address was excluded or forgotten.

Damage to the previous edition does not stop the feeds. Without its index, manifest or hashes the
feed starts again. An event that is damaged or missing is left out, and its rows of the window are
new.
"""

import hashlib
import logging
from collections import defaultdict
from collections.abc import Iterable, Iterator
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Final, TypeVar

import msgspec

from smtpfeeds_common.feeds import WINDOW_DAYS
from smtpfeeds_common.logs import fields

from .chunks import Chunk, FeedRows
from .entries import Columns
from .formats import misp
from .formats.misp import Event, EventFile, Listed
from .layout import is_there, link_or_copy
from .stopping import KeepGoing, each_guarded
from .withdrawn import Withdrawn
from .written import Written, write_whole

logger = logging.getLogger(__name__)

T = TypeVar("T")

FOLDER: Final = "misp"
MANIFEST: Final = f"{FOLDER}/manifest.json"
_HASHES: Final = f"{FOLDER}/hashes.csv"
_INDEX: Final = f"{FOLDER}/index.json"
#: Increased if a field of the index changes its meaning or is removed.
_VERSION: Final = 1
#: MISP loads a whole event.
EVENT_ATTRIBUTES: Final = 10_000
#: For one feed. An open day is held in memory, some 20 MB at this bound.
DAY_ATTRIBUTES: Final = 20_000
_DAY: Final = timedelta(days=1)


class _Indexed(msgspec.Struct, frozen=True):
    uuid: str
    feed: str
    day: date
    part: int
    attributes: int
    bytes: int
    sha256: str


class _Index(msgspec.Struct, frozen=True):
    version: int
    events: list[_Indexed]


class _Known(msgspec.Struct, frozen=True, gc=False):
    """The fields of an attribute in a closed day."""

    value: str
    last_seen: str


class _ClosedEvent(msgspec.Struct, frozen=True):
    Attribute: list[_Known]


class _ClosedFile(msgspec.Struct, frozen=True):
    Event: _ClosedEvent


class _Held:
    """An event that may change."""

    def __init__(self, day: date, part: int, event: Event, before: _Indexed | None) -> None:
        self.day, self.part, self.event = day, part, event
        #: The previous event; None if it is new or has changed.
        self.before = before

    def touch(self, at_s: int) -> None:
        """Record that its content has changed."""
        self.before = None
        self.event.timestamp = self.event.publish_timestamp = str(at_s)


class MispFeed:
    """The folder of one generation, based on that of the previous generation."""

    def __init__(
        self,
        folder: Path,
        before: Path | None,
        publisher: str,
        now: datetime,
        *,
        days: int,
        withdrawn: Withdrawn,
    ) -> None:
        """Read the events of the previous generation.

        Args:
            folder: the folder of the generation that is written.
            before: the folder of the previous one, if any.
            publisher: the name of the publisher.
            now: the time of the generation.
            days: how many days are kept, including today.
            withdrawn: the addresses that are no longer published.
        """
        self._folder, self._before = folder, before
        self._publisher, self._withdrawn = publisher, withdrawn
        self._at_s, self._today = int(now.timestamp()), now.date()
        index, self._listed_before = self._read_before()
        self._is_first = not index
        kept = max(days, WINDOW_DAYS + 2) * _DAY
        self._index = [entry for entry in index if self._today - entry.day < kept]
        #: How many addresses were left out, by feed and day.
        self.left_out: dict[tuple[str, date], int] = defaultdict(int)
        self._entries: list[_Indexed] = []
        self._unchanged: set[str] = set()
        self._listed: dict[str, Listed] = {}
        self._hashes: list[str] = []
        (folder / FOLDER).mkdir()

    def add(self, rows: FeedRows, keep_going: KeepGoing) -> None:
        """Write one feed's events, including new rows."""
        # A new feed has no closed day, so each day needs the memory of an open one.
        for chunks in rows.days() if self._is_first else (rows.chunks(),):
            self._add(rows.category, chunks, keep_going)

    def _add(self, feed: str, chunks: Iterator[Chunk], keep_going: KeepGoing) -> None:
        days = _Days(feed, self._publisher, self._at_s, self._today, is_first=self._is_first)
        for entry in self._index:
            if entry.feed == feed:
                keep_going()
                try:
                    self._take_over(entry, days)
                except (FileNotFoundError, ValueError) as exc:
                    logger.warning(
                        "MISP feed continues without an event: it is damaged or missing",
                        extra=fields(event=entry.uuid, error=str(exc)),
                    )
        for chunk in each_guarded(chunks, keep_going):
            days.add(chunk)
        for held in days.events():
            if held.before is not None:
                self._link(held.before)
            elif held.event.Attribute:
                self._write_event(feed, held)
        for day, count in days.left_out.items():
            self.left_out[feed, day] += count

    def _take_over(self, entry: _Indexed, days: "_Days") -> None:
        """Hold an event that may change; link any other, and keep its known addresses."""
        if not days.is_closed(entry.day) or self._withdrawn.is_new:
            event = self._read(entry, EventFile).Event
            held = _Held(entry.day, entry.part, event, entry)
            left = event.Attribute
            if self._withdrawn.is_new:
                left = [each for each in left if not self._withdrawn.holds(each.value)]
            if len(left) < len(event.Attribute):
                event.Attribute = left
                held.touch(self._at_s)
            days.hold(held)
            return
        # Rows of the window may be known from any of these days.
        if self._today - entry.day <= (WINDOW_DAYS + 1) * _DAY:
            for each in self._read(entry, _ClosedFile).Event.Attribute:
                days.know(each.value, each.last_seen)
        self._link(entry)

    def _read(self, entry: _Indexed, kind: type[T]) -> T:
        """Read an event of the previous edition.

        Raises:
            FileNotFoundError: it is missing.
            ValueError: it is damaged.
        """
        assert self._before is not None
        octets = (self._before / _name(entry.uuid)).read_bytes()
        if hashlib.sha256(octets).hexdigest() != entry.sha256:
            raise ValueError("its SHA-256 is not the one in the index")
        return msgspec.json.decode(octets, type=kind)

    def _read_before(self) -> tuple[list[_Indexed], dict[str, Listed]]:
        """Return the previous index and manifest; both are empty if the feed starts."""
        if self._before is None or not is_there(self._before / _INDEX):
            return [], {}
        index, manifest, hashes = (self._before / name for name in (_INDEX, MANIFEST, _HASHES))
        try:
            events = msgspec.json.decode(index.read_bytes(), type=_Index).events
            listed = msgspec.json.decode(manifest.read_bytes(), type=dict[str, Listed])
            hashes.stat()
        except (FileNotFoundError, ValueError) as exc:
            logger.warning(
                "MISP feed starts again: its index, manifest or hashes are damaged or missing",
                extra=fields(error=str(exc)),
            )
            return [], {}
        return events, listed

    def _link(self, entry: _Indexed) -> None:
        assert self._before is not None
        name = _name(entry.uuid)
        link_or_copy(self._before / name, self._folder / name)
        self._entries.append(entry)
        self._unchanged.add(entry.uuid)

    def _write_event(self, feed: str, held: _Held) -> None:
        event = held.event
        octets = msgspec.json.encode(EventFile(event))
        written = write_whole(self._folder, _name(event.uuid), octets)
        count, size, digest = len(event.Attribute), written.size, written.sha256
        self._entries.append(_Indexed(event.uuid, feed, held.day, held.part, count, size, digest))
        self._listed[event.uuid] = misp.listed(event)
        self._hashes.append(misp.hash_lines(event))

    def write(self) -> list[Written]:
        """Write the files that list the events, after all feeds are added."""
        stay = self._unchanged
        listed = {uuid: entry for uuid, entry in self._listed_before.items() if uuid in stay}
        entries = sorted(self._entries, key=lambda entry: (entry.day, entry.feed, entry.part))
        octets = b"".join(self._hashes_before()) + "".join(self._hashes).encode("ascii")
        return [
            write_whole(self._folder, MANIFEST, msgspec.json.encode(listed | self._listed)),
            write_whole(self._folder, _HASHES, octets),
            write_whole(self._folder, _INDEX, msgspec.json.encode(_Index(_VERSION, entries))),
            *(
                Written(_name(entry.uuid), entry.bytes, entry.sha256, entry.feed, entry.attributes)
                for entry in entries
            ),
        ]

    def _hashes_before(self) -> list[bytes]:
        """Return the lines of unchanged events."""
        stay = {uuid.encode("ascii") for uuid in self._unchanged}
        if not stay:
            return []
        assert self._before is not None
        with (self._before / _HASHES).open("rb") as lines:
            return [line for line in lines if line.rstrip(b"\n").partition(b",")[2] in stay]


class _Days:
    """The days of one feed: the open events, and the known times of each address."""

    def __init__(
        self, feed: str, publisher: str, at_s: int, today: date, *, is_first: bool
    ) -> None:
        self._feed, self._publisher, self._at_s, self._today = feed, publisher, at_s, today
        self._is_first = is_first
        self._held: dict[date, list[_Held]] = defaultdict(list)
        self._places: dict[date, dict[str, tuple[_Held, int]]] = defaultdict(dict)
        #: The last event of each address in the folder.
        self._newest: dict[str, str] = {}
        self.left_out: dict[date, int] = defaultdict(int)
        #: By the date of a row, the day that it belongs to, where that is full.
        self._full: dict[str, date] = {}

    def is_closed(self, day: date) -> bool:
        """Return whether a day is closed; a new feed has no closed day."""
        return not self._is_first and day < self._today - _DAY

    def events(self) -> Iterator[_Held]:
        """Return all held events."""
        for of_day in self._held.values():
            yield from of_day

    def hold(self, held: _Held) -> None:
        """Hold an event that may change."""
        self._held[held.day].append(held)
        places = self._places[held.day]
        for place, each in enumerate(held.event.Attribute):
            places[each.value] = held, place
            self.know(each.value, each.last_seen)

    def know(self, address: str, last_seen: str) -> None:
        """Record that an address is in the folder with this time of its last event."""
        last = misp.row_time(last_seen)
        if self._newest.get(address, "") < last:
            self._newest[address] = last

    def add(self, rows: Columns) -> None:
        """Add new rows."""
        known_of = self._newest.get
        for address, first, last, judgement, asn, name in zip(
            rows.address,
            rows.first_seen,
            rows.last_seen,
            rows.judgement,
            rows.asn,
            rows.name,
            strict=True,
        ):
            known = known_of(address)
            if known is None:
                # Most rows of a large feed end here.
                full = self._full.get(last[:10])
                if full is not None and address not in self._places[full]:
                    self.left_out[full] += 1
                    continue
            elif not self._is_news(address, first, last, known):
                continue
            day = date.fromisoformat(last[:10])
            if self.is_closed(day):
                day = self._today
            place = self._place(day, address)
            if place is None:
                self.left_out[day] += 1
                self._full[last[:10]] = day
            else:
                self._put(day, place, address, first, last, misp.comment(judgement, asn, name))

    def _is_news(self, address: str, first: str, last: str, known: str) -> bool:
        """Return whether a row is new; an earlier first time alone changes no closed day."""
        if last != known:
            return last > known
        day = date.fromisoformat(last[:10])
        if self.is_closed(day) or address not in self._places[day]:
            return False
        held, place = self._places[day][address]
        return first < misp.row_time(held.event.Attribute[place].first_seen)

    def _place(self, day: date, address: str) -> tuple[_Held, int] | None:
        """Return the place of an address in a day; None if the day is full."""
        known = self._places[day].get(address)
        if known is not None:
            return known
        held = self._room(day)
        return None if held is None else (held, len(held.event.Attribute))

    def _put(
        self, day: date, at: tuple[_Held, int], address: str, first: str, last: str, comment: str
    ) -> None:
        held, place = at
        times = misp.time_text(first), misp.time_text(last)
        attribute = misp.attribute(held.event, self._feed, address, *times, comment, self._at_s)
        held.event.Attribute[place : place + 1] = [attribute]
        held.touch(self._at_s)
        self._places[day][address] = at

    def _room(self, day: date) -> _Held | None:
        """Return the event for one more address of a day; None if the day is full."""
        of_day = self._held[day]
        if len(self._places[day]) >= DAY_ATTRIBUTES:
            return None
        if of_day and len(of_day[-1].event.Attribute) < EVENT_ATTRIBUTES:
            return of_day[-1]
        part = of_day[-1].part + 1 if of_day else 1
        event = misp.new_event(self._publisher, self._feed, day, part)
        of_day.append(_Held(day, part, event, None))
        return of_day[-1]


def _name(uuid: str) -> str:
    return f"{FOLDER}/{uuid}{misp.SUFFIX}"


def too_many(left_out: Iterable[tuple[tuple[str, date], int]]) -> dict[str, str]:
    """Return a text about what is not in the MISP feed."""
    return {
        f"{FOLDER}/ {feed} {day}": f"{count} addresses beyond {DAY_ATTRIBUTES} of a day"
        for (feed, day), count in left_out
    }
