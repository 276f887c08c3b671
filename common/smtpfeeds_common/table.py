"""Formats a table that fits the terminal. Pure: records and a width in, lines out.

In a terminal each row is one line that fits its width. Long names and IPv6 addresses are shortened
with an ellipsis; if that is not enough, the least important columns are left out. In a pipe or a
file nothing is shortened or left out, because a program may read it. The first ``SAMPLE_ROWS``
records decide the widths; later records are written as they arrive.
"""

from collections.abc import Iterable, Iterator, Sequence
from itertools import accumulate, chain, islice
from typing import Final, NamedTuple

from .cells import cells_of, width_of
from .columns import Column, Record, cell

#: Records read before the first line, to choose the widths.
SAMPLE_ROWS: Final = 1_000
GAP: Final = 2
_COLOURS: Final = {"red": "\x1b[31m", "yellow": "\x1b[33m", "green": "\x1b[32m"}
_BOLD: Final = "\x1b[1m"
_END: Final = "\x1b[0m"


class Look(NamedTuple):
    """The properties of the output that a table is written to."""

    #: Width of the terminal in its cells; None for a pipe or a file.
    width: int | None
    colour: bool = False
    ellipsis: str = "…"


class Layout(NamedTuple):
    """The columns to show, and their widths."""

    columns: tuple[Column, ...]
    widths: tuple[int, ...]
    left_out: tuple[Column, ...] = ()


def lay_out(
    columns: Sequence[Column], sample: Sequence[Sequence[str]], width: int | None, *, shed: bool
) -> Layout:
    """Choose columns and widths.

    Args:
        columns: all columns.
        sample: the cells of the first rows.
        width: of the terminal; None: no limit.
        shed: whether columns may be left out.
    """
    whole = [
        max(len(column.head), *(width_of(row[place]) for row in sample), 0)
        for place, column in enumerate(columns)
    ]
    if width is None:
        return Layout(tuple(columns), tuple(whole))
    least = [
        max(len(column.head), min(need, column.least)) if column.least else need
        for column, need in zip(columns, whole, strict=True)
    ]
    shown = _that_fit(columns, least, width) if shed else list(range(len(columns)))
    widths = {place: least[place] for place in shown}
    spare = width - _total(widths.values())
    growing = [place for place in shown if widths[place] < whole[place]]
    while spare > 0 and growing:
        for place in growing[:spare]:
            widths[place] += 1
            spare -= 1
        growing = [place for place in growing if widths[place] < whole[place]]
    left_out = tuple(column for place, column in enumerate(columns) if place not in widths)
    return Layout(tuple(columns[i] for i in shown), tuple(widths.values()), left_out)


def _that_fit(columns: Sequence[Column], least: Sequence[int], width: int) -> list[int]:
    """Choose the columns of rank 0, and of the others, by rank, each that still fits."""
    shown = [place for place, column in enumerate(columns) if column.rank == 0]
    used = _total(least[place] for place in shown)
    for place in sorted(range(len(columns)), key=lambda place: columns[place].rank):
        if columns[place].rank and used + GAP + least[place] <= width:
            shown.append(place)
            used += GAP + least[place]
    return sorted(shown)


class Table:
    """Records as the lines of a table."""

    def __init__(self, columns: Sequence[Column], look: Look, *, shed: bool = True) -> None:
        self._columns, self._look, self._shed = columns, look, shed
        #: Set when the first line is written.
        self.left_out: tuple[Column, ...] = ()

    def lines(self, records: Iterable[Record]) -> Iterator[str]:
        """Yield the head, then a line for each record."""
        rest = iter(records)
        sample = list(islice(rest, SAMPLE_ROWS))
        cells = [[cell(record[c.name]) for c in self._columns] for record in sample]
        layout = lay_out(self._columns, cells, self._look.width, shed=self._shed)
        self.left_out = layout.left_out
        head = self._line(layout, [column.head for column in layout.columns])
        yield f"{_BOLD}{head}{_END}" if self._look.colour else head
        for record in chain(sample, rest):
            yield self._line(layout, [cell(record[c.name]) for c in layout.columns], record)

    def _line(self, layout: Layout, cells: list[str], record: Record | None = None) -> str:
        last = len(cells) - 1
        parts = []
        for place, (column, width) in enumerate(zip(layout.columns, layout.widths, strict=True)):
            text = cells[place]
            if self._look.width is not None and column.least:
                text = shorten(text, width, self._look.ellipsis, middle=column.middle)
            space = " " * (width - width_of(text))
            if column.is_number:
                padded = space + text
            elif place == last:
                padded = text
            else:
                padded = text + space
            if record is not None and self._look.colour and column.colour is not None:
                padded = paint(padded, column.colour(record[column.name]))
            parts.append(padded)
        return (" " * GAP).join(parts).rstrip()


def paint(text: str, colour: str | None) -> str:
    """Colour a text; None leaves it unchanged."""
    return text if colour is None else _COLOURS[colour] + text + _END


def shorten(text: str, width: int, ellipsis: str, *, middle: bool = False) -> str:
    """Shorten a text to ``width`` cells of the terminal, the ellipsis included."""
    if width_of(text) <= width:
        return text
    kept = max(0, width - len(ellipsis))
    if not middle:
        return _begin(text, kept).rstrip() + ellipsis
    tail = _begin(text[::-1], kept // 3)[::-1]
    return _begin(text, kept - kept // 3) + ellipsis + tail


def _begin(text: str, width: int) -> str:
    """The longest beginning that fits."""
    if text.isascii():
        return text[:width]
    return text[: sum(end <= width for end in accumulate(map(cells_of, text)))]


def _total(widths: Iterable[int]) -> int:
    each = list(widths)
    return sum(each) + GAP * (len(each) - 1)
