"""A row of a feed, and the interface of formats: rows, header and footer of a file.

The formats take rows as columns: lists of the same length, one for each field. A
publication gives them from a window (``chunks.Chunk``), a question from the rows that
it found (``EntryColumns``). So a row of an answer is written as a published one is.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import groupby
from typing import TYPE_CHECKING, Any, Final, Literal, NamedTuple, Protocol

from smtpfeeds_common.behaviours import Flags
from smtpfeeds_common.feeds import Feed

from ..classification.classes import Judgement

if TYPE_CHECKING:
    # Queries use this module, and start without numpy.
    from .columns import Rows

#: What many rows share. ``origin``: ASN and name; ``counts``: hits and sensors; ``week``: days,
#: targets and whether it is new. A format writes what is in one of them side by side.
Repeated = Literal["origin", "counts", "flags", "judgement", "week"]
#: A part of each row: one text for all of them, or one for each.
Piece = str | Sequence[str]
#: A notice in every format that has a place for it.
NOTICE: Final = (
    "This is a record of observations and not a block list: an innocent mail client can be in it."
)


class Columns(Protocol):
    """Rows of one feed, one list for each field; all lists have the same length."""

    def __len__(self) -> int: ...

    @property
    def category(self) -> str:
        """The feed's name."""
        ...

    @property
    def asn(self) -> list[int]:
        """The origin; 0 if unknown."""
        ...

    @property
    def name(self) -> list[str]:
        """The AS name, shortened to the feeds' column; ``NA`` if unknown."""
        ...

    @property
    def address(self) -> list[str]:
        """Dotted, or as RFC 5952 writes it."""
        ...

    @property
    def is_ipv4(self) -> list[bool]:
        """Which rows are of IPv4."""
        ...

    @property
    def last_seen(self) -> list[str]:
        """``2026-11-23 11:00:59``, UTC, cut to the second."""
        ...

    @property
    def first_seen(self) -> list[str]:
        """The same."""
        ...

    @property
    def hits(self) -> list[int]:
        """Events."""
        ...

    @property
    def sensors(self) -> list[int]:
        """Sensors that saw it in the window."""
        ...

    @property
    def targets(self) -> list[int]:
        """Addresses of sensors that it connected to."""
        ...

    @property
    def flags(self) -> list[int]:
        """Behaviours, as flags."""
        ...

    @property
    def judgement(self) -> list[Judgement]:
        """The class, with its reasons."""
        ...

    @property
    def days(self) -> list[int]:
        """The past seven days; bit n: seen n days ago."""
        ...

    @property
    def new(self) -> list[bool]:
        """Whether it was first seen within a day."""
        ...

    def seen(self, template: str) -> list[str]:
        """Return a text for each row, from a template with ``{last}`` and ``{first}`` for the
        times.
        """
        ...

    def texts(self, column: Repeated, text: Callable[[Any], str]) -> Sequence[str]:
        """Return a text for each value of a column; ``text`` is called once for equal values."""
        ...


class Entry(NamedTuple):
    """One address in one feed; times are UTC, in whole seconds."""

    asn: int | None
    name: str
    address: str
    family: int
    last_seen: str
    category: str
    first_seen: str
    hits: int
    sensors: int
    flags: int
    targets: int
    judgement: Judgement
    days: int
    new: bool


class EntryColumns:
    """Entries of one feed as columns."""

    def __init__(self, entries: Sequence[Entry]) -> None:
        columns = list(map(list, zip(*entries, strict=True)))
        self.category: str = entries[0].category
        self.asn: list[int] = [entry.asn or 0 for entry in entries]
        self.is_ipv4: list[bool] = [entry.family == 4 for entry in entries]
        for name in _SAME:
            setattr(self, name, columns[Entry._fields.index(name)])
        self._length = len(entries)

    name: list[str]
    address: list[str]
    last_seen: list[str]
    first_seen: list[str]
    hits: list[int]
    sensors: list[int]
    targets: list[int]
    flags: list[int]
    judgement: list[Judgement]
    days: list[int]
    new: list[bool]

    def __len__(self) -> int:
        return self._length

    def seen(self, template: str) -> list[str]:
        """See `Columns.seen`."""
        times = zip(self.last_seen, self.first_seen, strict=True)
        return [template.format(last=last, first=first) for last, first in times]

    def texts(self, column: Repeated, text: Callable[[Any], str]) -> Sequence[str]:
        """See `Columns.texts`."""
        if column == "judgement":
            return _judgement_texts(self.judgement, text)
        values = self._values(column)
        texts = {value: text(value) for value in set(values)}
        return list(map(texts.__getitem__, values))

    def _values(self, column: Repeated) -> list[Any]:
        if column == "origin":
            return list(zip(self.asn, self.name, strict=True))
        if column == "counts":
            return list(zip(self.hits, self.sensors, strict=True))
        if column == "week":
            return list(zip(self.days, self.targets, self.new, strict=True))
        return self.flags


_SAME: Final = (
    *("name", "address", "last_seen", "first_seen", "hits", "sensors", "targets", "flags"),
    *("judgement", "days", "new"),
)


def rows_of(entries: Iterable[Entry], form: "Format", together: int) -> Iterator[str]:
    """Yield entries of any feeds in a format, some at a time."""
    for part in _parts(entries, together):
        for _, of_feed in groupby(part, key=lambda entry: entry.category):
            yield from rows(form, EntryColumns(list(of_feed)))


def _parts(entries: Iterable[Entry], together: int) -> Iterator[list[Entry]]:
    part: list[Entry] = []
    for entry in entries:
        part.append(entry)
        if len(part) >= together:
            yield part
            part = []
    if part:
        yield part


@dataclass(frozen=True, slots=True, kw_only=True)
class Frame:
    """The data of a file besides its rows."""

    feed: Feed
    #: 4, 6, or None for both.
    family: int | None
    window_start: datetime
    window_end: datetime
    generated: datetime
    expires: datetime
    publisher: str
    contact: str
    licence: str


@dataclass(slots=True)
class Counts:
    """The counts of a file's rows, which are sorted by ASN."""

    addresses: int = 0
    asns: int = 0
    last_asn: int = 0

    def count(self, asns: "Rows") -> None:
        """Add the origins of more rows; 0 is none."""
        if len(asns):
            self.addresses += len(asns)
            self.asns += int(asns[0] != self.last_asn) + int((asns[1:] != asns[:-1]).sum())
            self.last_asn = int(asns[-1])


class Format(Protocol):
    """The interface of a format's module."""

    def header(self, frame: Frame) -> str:
        """Return the text before the rows."""
        ...

    def pieces(self, columns: Columns) -> list[Piece]:
        """Return the pieces of the rows, in order; the last one has the line feed."""
        ...

    def footer(self, frame: Frame, counts: Counts) -> str:
        """Return the text after the rows."""
        ...


def joined(form: Format, columns: Columns) -> str:
    """Return rows as one text: all pieces of all rows are joined together."""
    pieces = form.pieces(columns)
    count, width = len(columns), len(pieces)
    parts = [""] * (count * width)
    for place, piece in enumerate(pieces):
        parts[place::width] = [piece] * count if isinstance(piece, str) else piece
    return "".join(parts)


def rows(form: Format, columns: Columns) -> list[str]:
    """Return each row as a text."""
    count = len(columns)
    every = ([each] * count if isinstance(each, str) else each for each in form.pieces(columns))
    return list(map("".join, zip(*every, strict=True)))


def _judgement_texts(
    judgements: Sequence[Judgement], text: Callable[[Judgement], str]
) -> list[str]:
    """Most rows share the very object, and to hash its content takes long."""
    numbers = list(map(id, judgements))
    different = dict(zip(numbers, judgements, strict=True))
    texts = {number: text(judgement) for number, judgement in different.items()}
    return list(map(texts.__getitem__, numbers))


#: A flag is compared as a plain number: to combine flags takes a hundred times as long.
_TAGS: Final = tuple((int(flag), str(flag.name).lower()) for flag in Flags)


def tags(flags: int) -> tuple[str, ...]:
    """Return the names of behaviours, such as ``bare_lf``; unknown bits of a newer sensor have
    none.
    """
    return tuple(name for flag, name in _TAGS if flags & flag)
