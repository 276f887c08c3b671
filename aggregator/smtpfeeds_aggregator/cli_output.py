"""How the command line writes lists: for people, for programs, for a pipe.

Colours and boxes are for terminals only. Rows are written as they come; only a
terminal's table is held, and cut at ``TABLE_ROWS``, which is said.
"""

import sys
from collections.abc import Iterable, Iterator
from itertools import chain, islice
from typing import Any, Final

import click
import msgspec

from .publish import csv_format, ndjson_format, text_format
from .publish.entries import Entry, tags

#: More than anyone reads in a terminal; a pipe gets them all.
TABLE_ROWS: Final = 1_000
#: Exit code of a question whose answer is: nothing.
NOTHING_FOUND: Final = 1

Record = dict[str, Any]
_TABLE: Final = (
    "address",
    "feed",
    "last seen",
    "first seen",
    "hits",
    "sensors",
    "ASN",
    "AS name",
    "tags",
)
_WIDTHS: Final = (39, 9, 19, 19, 8, 7, 10, 30, 0)


def write_entries(entries: Iterable[Entry], form: str, limit: int | None, nothing: str) -> None:
    """Write rows of feeds; ends the command with exit code 1 where there is none."""
    rows = iter(entries)
    first = next(rows, None)
    if first is None and form != "json":
        nothing_found(nothing)
    told: Iterator[Entry] = chain(() if first is None else (first,), rows)
    if limit is not None:
        told = _limited(told, limit)
    if form == "table":
        write_table(_TABLE, map(_cells, told), _WIDTHS)
    elif form == "json":
        _write_json(ndjson_format.row(entry).rstrip("\n") for entry in told)
    else:
        module = {"ndjson": ndjson_format, "csv": csv_format, "text": text_format}[form]
        if form == "csv":
            click.echo(",".join(csv_format.COLUMNS))
        for entry in told:
            sys.stdout.write(module.row(entry))
    if first is None:
        nothing_found(nothing)


def write_records(records: list[Record], form: str, nothing: str) -> None:
    """Write a short list, such as the sensors."""
    if form == "json":
        _write_json(msgspec.json.encode(record).decode() for record in records)
    if not records:
        nothing_found(nothing)
    if form == "ndjson":
        for record in records:
            click.echo(msgspec.json.encode(record))
    elif form == "csv":
        _write_csv(records)
    elif form == "table":
        titles = tuple(name.replace("_", " ") for name in records[0])
        rows = [tuple(map(_cell, record.values())) for record in records]
        widths = tuple(max(map(len, column)) for column in zip(titles, *rows, strict=True))
        write_table(titles, rows, widths)


def nothing_found(said: str) -> None:
    """Say that there is nothing, and end with exit code 1."""
    click.echo(said, err=True)
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

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for title in titles:
        table.add_column(title, overflow="fold")
    rest = iter(rows)
    for row in islice(rest, TABLE_ROWS):
        table.add_row(*map(Text, row))  # Text: a name in brackets is no markup
    Console().print(table)
    if next(rest, None) is not None:
        click.echo(f"only {TABLE_ROWS} rows shown; --format text writes them all", err=True)


def _limited(entries: Iterator[Entry], limit: int) -> Iterator[Entry]:
    yield from islice(entries, limit)
    if next(entries, None) is not None:
        click.echo(f"there is more than these {limit} rows (--limit)", err=True)


def _write_json(documents: Iterable[str]) -> None:
    separator = "["
    for document in documents:
        sys.stdout.write(f"{separator}\n{document}")
        separator = ","
    sys.stdout.write("\n]\n" if separator == "," else "[]\n")


def _write_csv(records: list[Record]) -> None:
    import csv

    writer = csv.writer(sys.stdout, lineterminator="\n")
    writer.writerow(records[0])
    writer.writerows(map(_cell, record.values()) for record in records)


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
    return str(value)
