"""The rows of a feed in the order in which they are published, some at a time.

A chunk gives a list for each column, ready to be put into a format's template. Texts
of addresses and times are made once for all formats. What repeats (an origin's name, a
class, a week of days) is numbered, and each format makes its text of it once.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from smtpfeeds_common.feeds import FEED_NAMES
from smtpfeeds_common.history import DAY_S, NEW_FOR, WEEK_DAYS

from ..classification.classes import Judgement
from ..classification.explanations import STEPS
from ..names import short_name
from .columns import FeedColumns, Numbers, Rows, Window
from .entries import Repeated
from .judgements import Judgements
from .row_texts import address_texts, filled, times

CHUNK_ROWS: Final = 20_000
_NEW_S: Final = int(NEW_FOR.total_seconds())
#: As many weeks of seven days as there are.
_WEEKS: Final = 1 << WEEK_DAYS
_STEPS: Final = np.asarray(STEPS, np.int64)
#: Combinations for each row up to which a table of all is faster than to sort the rows' own.
_FEW: Final = 4

#: Values, and the place of each row's value among them.
_Coded = tuple[Sequence[Any], Numbers]

if TYPE_CHECKING:
    # What a type checker takes it for: an attribute that is only read.
    made_once = property
else:
    from functools import cached_property as made_once


class Chunk:
    """Some rows of a feed; each list is made when a format first asks for it."""

    def __init__(self, rows: "FeedRows", numbers: Numbers) -> None:
        self._rows, self._numbers = rows, numbers
        self._address = rows.feed.address[numbers]
        self._coded: dict[Repeated, _Coded] = {}

    def __len__(self) -> int:
        return len(self._numbers)

    @property
    def category(self) -> str:
        """The feed's name."""
        return self._rows.category

    @made_once
    def asns(self) -> Rows:
        """The origins, sorted; 0 if unknown."""
        asns: Rows = self._rows.window.asn[self._address]
        return asns

    @made_once
    def ipv4(self) -> Rows:
        """Which rows are IPv4."""
        ipv4: Rows = self._address < len(self._rows.window.ipv4)
        return ipv4

    @made_once
    def asn(self) -> list[int]:
        """The origin; 0 if unknown."""
        asns: list[int] = self.asns.tolist()
        return asns

    @made_once
    def name(self) -> list[str]:
        """Cut to the feeds' column; ``NA`` where none is known."""
        return self._rows.short_names(self.asn)

    @made_once
    def address(self) -> list[str]:
        """As text."""
        return address_texts(self._rows.window, self._address)

    @made_once
    def is_ipv4(self) -> list[bool]:
        """Which rows are IPv4."""
        flags: list[bool] = self.ipv4.tolist()
        return flags

    @made_once
    def last_seen(self) -> list[str]:
        """``2026-11-23 11:00:59``, UTC."""
        return filled("{last}", self._times)

    @made_once
    def first_seen(self) -> list[str]:
        """``2026-11-23 11:00:59``, UTC."""
        return filled("{first}", self._times)

    @made_once
    def hits(self) -> list[int]:
        """Events; as all counts the lower bound of a step, or exact."""
        return self._rows.counts(self._rows.feed.hits[self._numbers])

    @made_once
    def sensors(self) -> list[int]:
        """Sensors that saw it in the window."""
        return self._rows.counts(self._rows.feed.sensors[self._numbers])

    @made_once
    def targets(self) -> list[int]:
        """Addresses of sensors that it connected to."""
        return self._rows.counts(self._rows.feed.targets[self._numbers])

    @made_once
    def flags(self) -> list[int]:
        """Behaviours of this feed."""
        flags: list[int] = self._rows.feed.flags[self._numbers].tolist()
        return flags

    @made_once
    def judgement(self) -> list[Judgement]:
        """The class, with its reasons."""
        judgements = self._rows.judgements
        return list(map(judgements.kinds.__getitem__, judgements.which[self._address].tolist()))

    @made_once
    def days(self) -> list[int]:
        """The past seven days; bit n: seen n days ago."""
        days: list[int] = self._rows.feed.days[self._numbers].tolist()
        return days

    @made_once
    def new(self) -> list[bool]:
        """Whether it was first seen within a day."""
        new: list[bool] = self._rows.new(self._numbers).tolist()
        return new

    def seen(self, template: str) -> list[str]:
        """Return a text for each row, from a template with ``{last}`` and ``{first}`` for the
        times.
        """
        return filled(template, self._times)

    @made_once
    def _times(self) -> dict[str, Rows]:
        feed = self._rows.feed
        columns = {"last": feed.last_s, "first": feed.first_s}
        return {name: times(column[self._numbers]) for name, column in columns.items()}

    def texts(self, column: Repeated, text: Callable[[Any], str]) -> Sequence[str]:
        """Return a text for each value of a column; ``text`` is called once for equal values."""
        if column not in self._coded:
            self._coded[column] = self._rows.coded(column, self._numbers, self._address)
        values, places = self._coded[column]
        texts = np.empty(len(values), object)
        texts[:] = list(map(text, values))
        of_rows: list[str] = texts[places].tolist()
        return of_rows


class FeedRows:
    """One feed of a window, judged and with its origins."""

    def __init__(
        self,
        window: Window,
        category: str,
        judgements: Judgements,
        names: Mapping[int, str],
        *,
        now_s: int,
        exact_counts: bool = False,
    ) -> None:
        """Take what is published.

        Args:
            window: its ``asn`` is the origin that is published.
            category: the name of one of the window's feeds.
            judgements: of the window's addresses.
            names: the full cleaned name of each origin.
            now_s: seconds since 1970-01-01 UTC; an address is new for a day.
            exact_counts: publish counts as they are, in place of their steps.
        """
        self.window, self.judgements, self.now_s = window, judgements, now_s
        self.category = category
        self.feed: FeedColumns = window.feeds[FEED_NAMES.index(category)]
        self._names, self._exact = names, exact_counts
        self._order: Numbers = np.argsort(window.asn[self.feed.address], kind="stable")
        self._short: dict[int, str] = {0: short_name("")}

    def __len__(self) -> int:
        return len(self._order)

    def chunks(self, rows: int = CHUNK_ROWS) -> Iterator[Chunk]:
        """Yield all rows, in order."""
        return self._chunks(self._order, rows)

    def days(self) -> Iterator[Iterator[Chunk]]:
        """Yield the rows of each UTC day by their last event, in order, the oldest day first."""
        days = self.feed.last_s[self._order] // np.uint32(DAY_S)
        for day in np.unique(days):
            yield self._chunks(self._order[days == day], CHUNK_ROWS)

    def _chunks(self, order: Numbers, rows: int) -> Iterator[Chunk]:
        for start in range(0, len(order), rows):
            yield Chunk(self, order[start : start + rows])

    def short_names(self, asns: list[int]) -> list[str]:
        """Return the names of origins, shortened to the feeds' column."""
        short = self._short
        for asn in set(asns).difference(short):
            short[asn] = short_name(self._names.get(asn, ""))
        return [short[asn] for asn in asns]

    def counts(self, counts: Rows) -> list[int]:
        """Counts as they are published."""
        published: list[int] = self._published(counts).tolist()
        return published

    def coded(self, column: Repeated, numbers: Numbers, address: Numbers) -> _Coded:
        """Return the distinct values of some rows in a column, and the index of each row's value.

        Args:
            column: which.
            numbers: the rows, as numbers of the feed's rows.
            address: the same, as numbers of the window's addresses.
        """
        if column == "origin":
            asns, places = _numbered(self.window.asn[address])
            return list(zip(asns, self.short_names(asns), strict=True)), places
        if column == "judgement":
            kinds = self.judgements.kinds
            return _distinct((kinds, self.judgements.which[address]))
        if column == "flags":
            return _numbered(self.feed.flags[numbers])
        if column == "counts":
            return _distinct(*(self._steps(name, numbers) for name in ("hits", "sensors")))
        new = self.new(numbers).astype(np.intp)
        days = range(_WEEKS), self.feed.days[numbers]
        return _distinct(days, self._steps("targets", numbers), ([False, True], new))

    def _steps(self, name: str, numbers: Numbers) -> _Coded:
        """Return a count of some rows as it is published."""
        counts = getattr(self.feed, name)[numbers]
        if self._exact:
            return _numbered(counts)
        return STEPS, np.searchsorted(_STEPS, counts, side="right") - 1

    def new(self, numbers: Numbers) -> Rows:
        """Return which rows were first seen within a day."""
        new: Rows = self.feed.first_s[numbers].astype(np.int64) > self.now_s - _NEW_S
        return new

    def _published(self, counts: Rows) -> Rows:
        if self._exact:
            return counts
        return _STEPS[np.searchsorted(_STEPS, counts, side="right") - 1]


def _numbered(values: Rows) -> tuple[list[Any], Numbers]:
    different, places = np.unique(values, return_inverse=True)
    return different.tolist(), places


def _distinct(*columns: _Coded) -> _Coded:
    """Return the distinct rows of some columns: values for one column, else tuples."""
    sizes = tuple(len(values) for values, _ in columns)
    combined = np.zeros(len(columns[0][1]), np.intp)
    for size, (_, places) in zip(sizes, columns, strict=True):
        combined *= size
        combined += places
    if math.prod(sizes) > _FEW * len(combined):
        different, places = np.unique(combined, return_inverse=True)
    else:  # without a sort
        is_there = np.zeros(math.prod(sizes), bool)
        is_there[combined] = True
        different, places = np.flatnonzero(is_there), (np.cumsum(is_there) - 1)[combined]
    parts = [
        map(values.__getitem__, numbers.tolist())
        for numbers, (values, _) in zip(np.unravel_index(different, sizes), columns, strict=True)
    ]
    return list(parts[0] if len(parts) == 1 else zip(*parts, strict=True)), places
