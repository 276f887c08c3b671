"""How the command line writes lists: for people, for programs, for a pipe.

Colours and boxes are for terminals only. Rows are written as they come; only a
terminal's table is held, and cut at ``TABLE_ROWS``, with a message. An address
or a time is never broken in two: a reader wants to copy it. Times are UTC:
`2026-11-23T15:24:31Z`, in a table under a head that says so `2026-11-23 15:24:31`; the
rows of the feeds keep the spelling of the published files.
"""

import sys
from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime
from itertools import chain, islice
from typing import Any, Final

import click
import msgspec

from smtpfeeds_common.times import iso_utc

from ..names import NOT_KNOWN
from ..publish.entries import Entry, rows_of, tags
from ..publish.formats import csv_file as csv_format
from ..publish.formats import ndjson as ndjson_format
from ..publish.formats import text as text_format

#: More than anyone reads in a terminal; a pipe gets them all.
TABLE_ROWS: Final = 1_000
#: Exit code of a question whose answer is: nothing.
NOTHING_FOUND: Final = 1

Record = dict[str, Any]
_TABLE: Final = (
    "address",
    "feed",
    "last seen UTC",
    "first seen UTC",
    "hits",
    "sensors",
    "ASN",
    "AS name",
    "tags",
)
#: Columns of words, whose cells may go on in a second line.
_FOLDING: Final = frozenset({"AS name", "tags", "description", "detail", "flood"})
#: A word in them that is longer than this is broken.
_LONGEST_WORD: Final = 16
#: What a narrow terminal goes without, in this order.
_SHED: Final = ("first seen UTC", "tags", "sensors", "version", "epoch")
FEED_COLUMNS: Final = ("feed", "addresses", "newest", "description")
CROWDED_COLUMNS: Final = ("prefix", "feed", "last_seen", "first_seen", "events", "sensors")
LETTER_COLUMNS: Final = ("id", "at", "account", "kind", "octets", "reason")
SENSOR_COLUMNS: Final = (
    "sensor",
    "alive",
    "silent_since",
    "last_heard",
    "version",
    "epoch",
    "events_24h",
    "events",
    "skew_s",
    "spool_depth",
    "drops",
    "past_bucket_24h",
    "refused_24h",
    "flood",
)
EPOCH_COLUMNS: Final = ("epoch", "began_at", "ended_at", "purged_at")
REFUSAL_COLUMNS: Final = (
    "account",
    "hour",
    "reason",
    "messages",
    "octets",
    "kept",
    "last_at",
    "detail",
)
#: Those of them that are times.
_TIMES: Final = frozenset(
    {"newest", "silent_since", "last_heard", "last_seen", "first_seen", "hour", "last_at"}
    | set(EPOCH_COLUMNS[1:])
)
#: Rows written at once: few enough that a reader sees them as they come.
_TOGETHER: Final = 200
#: Between two columns.
_GAP: Final = 2
_WIDTHS: Final = (39, 9, 19, 19, 8, 7, 10, 30, 0)


def write_entries(entries: Iterable[Entry], form: str, limit: int | None, nothing: str) -> None:
    """Write rows of feeds; ends the command with exit code 1 where there is none."""
    rows = iter(entries)
    first = next(rows, None)
    if first is None and form not in {"json", "csv"}:
        nothing_found(nothing)
    shown: Iterator[Entry] = chain(() if first is None else (first,), rows)
    if limit is not None:
        shown = _limited(shown, limit)
    if form == "table":
        write_table(_TABLE, map(_cells, shown), _WIDTHS)
    elif form == "json":
        _write_json(row.rstrip("\n") for row in rows_of(shown, ndjson_format.rows, _TOGETHER))
    else:
        module = {"ndjson": ndjson_format, "csv": csv_format, "text": text_format}[form]
        if form == "csv":
            click.echo(",".join(csv_format.COLUMNS))
        for row in rows_of(shown, module.rows, _TOGETHER):
            sys.stdout.write(row)
    if first is None:
        nothing_found(nothing)


def write_records(records: list[Record], columns: tuple[str, ...], form: str, nothing: str) -> None:
    """Write a short list, such as the sensors; each record has the columns, in their order."""
    if form == "json":
        _write_json(map(_json, records))
    elif form == "csv":
        _write_csv(columns, records)
    if not records:
        nothing_found(nothing)
    if form == "ndjson":
        for record in records:
            click.echo(_json(record))
    elif form == "table":
        titles = tuple(_title(name) for name in columns)
        rows = [tuple(map(_cell, record.values())) for record in records]
        widths = tuple(max(map(len, column)) for column in zip(titles, *rows, strict=True))
        write_table(titles, rows, widths)


def nothing_found(message: str) -> None:
    """Write that there is nothing, and end with exit code 1."""
    click.echo(message, err=True)
    raise click.exceptions.Exit(NOTHING_FOUND)


def write_table(
    titles: tuple[str, ...], rows: Iterable[tuple[str, ...]], widths: tuple[int, ...]
) -> None:
    """Write columns: a table on a terminal, else plain text padded to these widths."""
    if sys.stdout.isatty():
        _write_rich(titles, rows)
        return
    for row in chain((titles,), rows):
        line = "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        click.echo(line.rstrip())


def _write_rich(titles: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    rest = iter(rows)
    shown = list(islice(rest, TABLE_ROWS))
    console = Console()
    widths = widths_that_fit(titles, shown, console.width)
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, _GAP - 1, 0, 0))
    for column, width in widths.items():
        table.add_column(titles[column], overflow="fold", width=width)
    for row in shown:
        # Text: a name in brackets is no markup.
        table.add_row(*(Text(row[column]) for column in widths))
    # What does not fit all the same the terminal breaks, at its edge.
    console.width = max(console.width, _total(widths.values()))
    console.print(table)
    if shed := [title for column, title in enumerate(titles) if column not in widths]:
        click.echo(f"not shown in a terminal so narrow: {', '.join(shed)}", err=True)
    if next(rest, None) is not None:
        click.echo(f"only {TABLE_ROWS} rows shown; --format text writes them all", err=True)


def widths_that_fit(
    titles: Sequence[str], rows: Sequence[Sequence[str]], width: int
) -> dict[int, int]:
    """Which columns a terminal of this width shows, and how wide: none narrower than its least."""
    least = least_widths(titles, rows)
    columns = list(range(len(titles)))
    for title in _SHED:
        if _total(least[column] for column in columns) <= width:
            break
        columns = [column for column in columns if titles[column] != title]
    widths = {column: least[column] for column in columns}
    spare = max(0, width - _total(widths.values()))
    for column in columns:
        whole = max(len(titles[column]), *(len(row[column]) for row in rows), 0)
        grown = min(spare, max(0, whole - widths[column]))
        widths[column] += grown
        spare -= grown
    return widths


def least_widths(titles: Sequence[str], rows: Iterable[Sequence[str]]) -> list[int]:
    """How wide each column is at least, so that nothing is broken but words over the bound."""
    widths = [max(map(len, title.split())) for title in titles]
    for row in rows:
        for column, cell in enumerate(row):
            if titles[column] in _FOLDING:
                need = min(max(map(len, cell.split()), default=0), _LONGEST_WORD)
            else:
                need = len(cell)
            widths[column] = max(widths[column], need)
    return widths


def _total(widths: Iterable[int]) -> int:
    each = list(widths)
    return sum(each) + _GAP * (len(each) - 1)


def _limited(entries: Iterator[Entry], limit: int) -> Iterator[Entry]:
    yield from islice(entries, limit)
    if next(entries, None) is not None:
        click.echo(f"there is more: --limit {limit} cuts it here", err=True)


def _write_json(documents: Iterable[str]) -> None:
    separator = "["
    for document in documents:
        sys.stdout.write(f"{separator}\n{document}")
        separator = ","
    sys.stdout.write("\n]\n" if separator == "," else "[]\n")


def _write_csv(columns: tuple[str, ...], records: list[Record]) -> None:
    import csv

    writer = csv.writer(sys.stdout, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows(map(_csv_field, record.values()) for record in records)


def _json(record: Record) -> str:
    return msgspec.json.encode({name: _plain(value) for name, value in record.items()}).decode()


def _plain(value: Any) -> Any:
    return iso_utc(value) if isinstance(value, datetime) else value


def _csv_field(value: Any) -> str:
    """As in the feeds' CSV: NA where nothing is known."""
    if value is None:
        return NOT_KNOWN
    return str(value).lower() if isinstance(value, bool) else str(_plain(value))


def _title(column: str) -> str:
    return column.replace("_", " ") + (" UTC" if column in _TIMES else "")


def _cells(entry: Entry) -> tuple[str, ...]:
    return (
        entry.address,
        entry.category,
        entry.last_seen,
        entry.first_seen,
        str(entry.hits),
        str(entry.sensors),
        str(entry.asn or "NA"),
        entry.name,
        " ".join(tags(entry.flags)),
    )


def _cell(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, datetime):
        return iso_utc(value).replace("T", " ").removesuffix("Z")
    return str(value)
