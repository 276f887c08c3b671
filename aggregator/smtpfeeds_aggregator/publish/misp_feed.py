"""The MISP feed's folder: what was published of past days stays, what is new is added.

    misp/manifest.json      which events there are, and when each changed
    misp/hashes.csv         in which event each value is
    misp/UUID.json          an event: addresses of one feed and UTC day
    misp/index.json         for us: which event is of which feed and day

An event is open for its day and for 24 hours more. An address stands in the day of its last event.
Where that day is closed, it stands in the day on which it arrived, with its true time. An event's
timestamp moves only with its content, and a file that does not change is a hard link to the one of
the edition before. A closed day changes only where an address was excluded or forgotten.
"""

import logging
from collections import defaultdict
from collections.abc import Iterable
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Final

import msgspec

from smtpfeeds_common.errors import PublishError
from smtpfeeds_common.feeds import WINDOW_DAYS
from smtpfeeds_common.logs import fields

from .chunks import FeedRows
from .formats import misp
from .formats.misp import Event, EventFile, Listed
from .layout import link_or_copy
from .stopping import KeepGoing, each_guarded
from .withdrawn import Withdrawn
from .written import Written, write_whole

logger = logging.getLogger(__name__)

FOLDER: Final = "misp"
MANIFEST: Final = f"{FOLDER}/manifest.json"
_HASHES: Final = f"{FOLDER}/hashes.csv"
_INDEX: Final = f"{FOLDER}/index.json"
#: Raised when a field of the index changes its meaning or goes.
_VERSION: Final = 1
#: MISP loads an event whole.
EVENT_ATTRIBUTES: Final = 10_000
#: Of one feed; more would make MISP's database of it the larger part.
DAY_ATTRIBUTES: Final = 100_000
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


class _Held:
    """An event that may change."""

    def __init__(self, feed: str, day: date, part: int, event: Event, before: _Indexed | None):
        self.feed, self.day, self.part, self.event = feed, day, part, event
        #: As it was; None where it is new or has changed.
        self.before = before

    def touch(self, at_s: int) -> None:
        """Its content has changed."""
        self.before = None
        self.event.timestamp = self.event.publish_timestamp = str(at_s)


class MispFeed:
    """The folder of one generation, from that of the generation before."""

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
        """Read what the generation before had.

        Args:
            folder: of the generation that is written.
            before: of the one before, where there is one.
            publisher: who publishes.
            now: when the generation is made.
            days: how many days are kept, today included.
            withdrawn: what is not published any more.
        """
        self._folder, self._before, self._publisher = folder, before, publisher
        self._at_s, self._today = int(now.timestamp()), now.date()
        self._days = max(days, WINDOW_DAYS + 2)
        #: By feed and day, how many addresses were too many.
        self.left_out: dict[tuple[str, date], int] = defaultdict(int)
        self._kept: list[_Indexed] = []
        self._held: dict[tuple[str, date], list[_Held]] = defaultdict(list)
        self._places: dict[tuple[str, date], dict[str, tuple[_Held, int]]] = defaultdict(dict)
        #: By feed and address: the last event that is in the folder, and the first.
        self._newest: dict[str, dict[str, tuple[str, str]]] = defaultdict(dict)
        index = self._read_index()
        self._is_first = not index
        for entry in index:
            self._take_over(entry, withdrawn)

    def _read_index(self) -> list[_Indexed]:
        if self._before is None or not (self._before / _INDEX).exists():
            return []
        try:
            octets = (self._before / _INDEX).read_bytes()
            return msgspec.json.decode(octets, type=_Index).events
        except msgspec.MsgspecError as exc:
            logger.warning("MISP feed begins anew: damaged index", extra=fields(error=str(exc)))
            return []

    def _take_over(self, entry: _Indexed, withdrawn: Withdrawn) -> None:
        age = self._today - entry.day
        if age >= self._days * _DAY:
            return
        # Rows of the window may be known from any of its days.
        if age > (WINDOW_DAYS + 1) * _DAY and not withdrawn.is_new:
            self._kept.append(entry)
            return
        assert self._before is not None
        octets = (self._before / _name(entry.uuid)).read_bytes()
        try:
            event = msgspec.json.decode(octets, type=EventFile).Event
        except msgspec.MsgspecError as exc:
            raise PublishError(f"{_name(entry.uuid)} of {self._before}: {exc}") from exc
        held = _Held(entry.feed, entry.day, entry.part, event, entry)
        if withdrawn.is_new:
            left = [each for each in event.Attribute if not withdrawn.holds(each.value)]
            if len(left) < len(event.Attribute):
                event.Attribute = left
                held.touch(self._at_s)
        self._held[entry.feed, entry.day].append(held)
        places, newest = self._places[entry.feed, entry.day], self._newest[entry.feed]
        for place, each in enumerate(event.Attribute):
            places[each.value] = held, place
            times = each.last_seen, each.first_seen
            newest[each.value] = max(newest.get(each.value, ("", "")), times)

    def add(self, rows: FeedRows, keep_going: KeepGoing) -> None:
        """Add what is new in a feed."""
        newest = self._newest[rows.category]
        for chunk in each_guarded(rows.chunks(), keep_going):
            for address, first, last, judgement, asn, name in zip(
                chunk.address,
                chunk.first_seen,
                chunk.last_seen,
                chunk.judgement,
                chunk.asn,
                chunk.name,
                strict=True,
            ):
                first_seen, last_seen = misp.time_text(first), misp.time_text(last)
                known = newest.get(address)
                if known is None or self._is_news(first_seen, last_seen, *reversed(known)):
                    comment = misp.comment(judgement, asn, name)
                    self._put(rows.category, address, first_seen, last_seen, comment)

    def _is_news(self, first: str, last: str, known_first: str, known_last: str) -> bool:
        """Whether a row says more than is known; an earlier beginning alone opens no closed day."""
        if last == known_last:
            return first < known_first and not self._is_closed(date.fromisoformat(last[:10]))
        return last > known_last

    def _is_closed(self, day: date) -> bool:
        return not self._is_first and day < self._today - _DAY

    def _put(self, feed: str, address: str, first: str, last: str, comment: str) -> None:
        day = date.fromisoformat(last[:10])
        if self._is_closed(day):
            day = self._today
        known = self._places[feed, day].get(address)
        if known is None:
            held = self._room(feed, day)
            if held is None:
                self.left_out[feed, day] += 1
                return
            place = len(held.event.Attribute)
        else:
            held, place = known
        made = misp.attribute(held.event, feed, address, first, last, comment, self._at_s)
        held.event.Attribute[place : place + 1] = [made]
        held.touch(self._at_s)
        self._places[feed, day][address] = held, place

    def _room(self, feed: str, day: date) -> _Held | None:
        """The event that takes one more address of a day; None where the day is full."""
        of_day = self._held[feed, day]
        if sum(len(held.event.Attribute) for held in of_day) >= DAY_ATTRIBUTES:
            return None
        if of_day and len(of_day[-1].event.Attribute) < EVENT_ATTRIBUTES:
            return of_day[-1]
        part = of_day[-1].part + 1 if of_day else 1
        event = misp.new_event(self._publisher, feed, day, part)
        of_day.append(_Held(feed, day, part, event, None))
        return of_day[-1]

    def write(self) -> list[Written]:
        """Write the folder."""
        (self._folder / FOLDER).mkdir()
        listed, hashes = self._unchanged()
        entries = [self._link(entry) for entry in self._kept]
        for of_day in self._held.values():
            for held in of_day:
                if not held.event.Attribute:
                    continue  # all of it was withdrawn
                if held.before is not None:
                    entries.append(self._link(held.before))
                    continue
                entries.append(self._write_event(held))
                listed[held.event.uuid] = misp.listed(held.event)
                hashes.append(misp.hash_lines(held.event))
        entries.sort(key=lambda entry: (entry.day, entry.feed, entry.part))
        index = _Index(_VERSION, entries)
        return [
            write_whole(self._folder, MANIFEST, msgspec.json.encode(listed)),
            write_whole(self._folder, _HASHES, "".join(hashes).encode("ascii")),
            write_whole(self._folder, _INDEX, msgspec.json.encode(index)),
            *(
                Written(_name(entry.uuid), entry.bytes, entry.sha256, entry.feed, entry.attributes)
                for entry in entries
            ),
        ]

    def _unchanged(self) -> tuple[dict[str, Listed], list[str]]:
        """What manifest and hashes had of the events that stay as they are."""
        stay = {entry.uuid for entry in self._kept}
        stay |= {
            held.event.uuid
            for of_day in self._held.values()
            for held in of_day
            if held.before is not None
        }
        if not stay:
            return {}, []
        assert self._before is not None
        manifest = msgspec.json.decode(
            (self._before / MANIFEST).read_bytes(), type=dict[str, Listed]
        )
        with (self._before / _HASHES).open(encoding="ascii") as lines:
            hashes = [line for line in lines if line.rstrip("\n").partition(",")[2] in stay]
        return {uuid: entry for uuid, entry in manifest.items() if uuid in stay}, hashes

    def _link(self, entry: _Indexed) -> _Indexed:
        assert self._before is not None
        name = _name(entry.uuid)
        link_or_copy(self._before / name, self._folder / name)
        return entry

    def _write_event(self, held: _Held) -> _Indexed:
        octets = msgspec.json.encode(EventFile(held.event))
        written = write_whole(self._folder, _name(held.event.uuid), octets)
        return _Indexed(
            held.event.uuid,
            held.feed,
            held.day,
            held.part,
            len(held.event.Attribute),
            written.size,
            written.sha256,
        )


def _name(uuid: str) -> str:
    return f"{FOLDER}/{uuid}{misp.SUFFIX}"


def too_many(left_out: Iterable[tuple[tuple[str, date], int]]) -> dict[str, str]:
    """In words, what is not in the MISP feed."""
    return {
        f"{FOLDER}/ {feed} {day}": f"{count} addresses beyond {DAY_ATTRIBUTES} of a day"
        for (feed, day), count in left_out
    }
