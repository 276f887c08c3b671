"""The files of a MISP feed: events of one feed and day, and the manifest that lists them.

The fields are exactly those that `pymisp` writes for a feed; a test compares both. Every attribute
is an observation: `to_ids` is false.

https://www.misp-project.org/datamodels/
"""

import hashlib
from datetime import date
from functools import lru_cache
from typing import Final

import msgspec

from ...classification.classes import Judgement
from .identifiers import identifier

#: An event's uuid in its file's name.
SUFFIX: Final = ".json"

# Python 3.14 reads an annotation in its class, where a field hides a type of the same name.
_Date = date


class Organisation(msgspec.Struct, frozen=True):
    """The publisher."""

    name: str
    uuid: str


class Tag(msgspec.Struct, frozen=True):
    """A label of an event."""

    colour: str = "#ffffff"
    local: bool = False
    name: str = "tlp:clear"
    relationship_type: str = ""


class Attribute(msgspec.Struct, gc=False):
    """An address."""

    uuid: str
    value: str
    comment: str
    first_seen: str
    last_seen: str
    timestamp: str
    category: str = "Network activity"
    disable_correlation: bool = False
    to_ids: bool = False
    type: str = "ip-src"


_Attribute = Attribute
_Tag = Tag


class Event(msgspec.Struct):
    """Addresses of one feed and day; a large day has several events."""

    uuid: str
    info: str
    date: _Date
    timestamp: str
    publish_timestamp: str
    Orgc: Organisation
    Attribute: list[_Attribute]
    Tag: list[_Tag]
    analysis: str = "2"
    extends_uuid: str = ""
    protected: bool = False
    published: bool = True
    threat_level_id: str = "4"


_Event = Event


class EventFile(msgspec.Struct):
    """The file of an event."""

    Event: _Event


class Listed(msgspec.Struct, frozen=True):
    """An event in the manifest."""

    Orgc: Organisation
    Tag: list[_Tag]
    info: str
    date: _Date
    analysis: int
    threat_level_id: int
    timestamp: int


def organisation(publisher: str) -> Organisation:
    """Return the publisher, with an identifier that follows from the name."""
    return Organisation(publisher, identifier("publisher", publisher))


def new_event(publisher: str, feed: str, day: date, part: int) -> Event:
    """Return an event without addresses."""
    more = f", part {part}" if part > 1 else ""
    return Event(
        uuid=identifier("event", publisher, feed, day.isoformat(), str(part)),
        info=f"{feed} {day}{more}: observations of SMTP clients, not a block list",
        date=day,
        timestamp="0",
        publish_timestamp="0",
        Orgc=organisation(publisher),
        Attribute=[],
        Tag=[Tag()],
    )


def attribute(
    event: Event, feed: str, address: str, first_seen: str, last_seen: str, comment: str, at_s: int
) -> Attribute:
    """Return an address as an attribute of its day's event."""
    publisher = event.Orgc.uuid
    return Attribute(
        uuid=identifier("attribute", publisher, feed, event.date.isoformat(), address),
        value=address,
        comment=comment,
        first_seen=first_seen,
        last_seen=last_seen,
        timestamp=str(at_s),
    )


def listed(event: Event) -> Listed:
    """Return an event in the form of the manifest."""
    return Listed(
        event.Orgc,
        event.Tag,
        event.info,
        event.date,
        int(event.analysis),
        int(event.threat_level_id),
        int(event.timestamp),
    )


def hash_lines(event: Event) -> str:
    """Lines of `hashes.csv`, by which MISP finds the event of a value."""
    return "".join(
        f"{hashlib.md5(each.value.encode(), usedforsecurity=False).hexdigest()},{event.uuid}\n"
        for each in event.Attribute
    )


@lru_cache(maxsize=1 << 12)
def comment(judgement: Judgement, asn: int, name: str) -> str:
    """Return a text of the class, its reasons, and the origin."""
    origin = f"; AS{asn} {name}" if asn else ""
    return f"{judgement.cls}: {' '.join(judgement.why)}{origin}"


def time_text(text: str) -> str:
    """``2026-11-23T11:00:59+00:00`` for ``2026-11-23 11:00:59``."""
    return f"{text[:10]}T{text[11:]}+00:00"


def row_time(text: str) -> str:
    """Convert in the other direction."""
    return f"{text[:10]} {text[11:19]}"
