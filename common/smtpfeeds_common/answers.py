"""How commands print lists: one set of options and five formats.

    table   for people; fits the terminal
    json    one list
    ndjson  one object per line
    csv     with a header line; NA for an unknown value
    tsv     the same with tabs, for cut and awk

Rows go to stdout as they arrive, notes to stderr below them. Only a terminal gets colour, and
none if NO_COLOR is set.
"""

import json
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import wraps
from itertools import chain, islice
from typing import Any, Final, NamedTuple, TextIO, TypeVar

import click

from .columns import NOT_KNOWN, Column, Record, csv_field, plain, select, tsv_field
from .printable import printable
from .table import Look, Table

FORMATS: Final = ("table", "json", "ndjson", "csv", "tsv")
#: Exit code of a command that finds nothing.
NOTHING_FOUND: Final = 1
#: Width of a terminal that does not report one.
_WIDTH: Final = 80
#: Attribute of a callback that holds the columns of its answer, for the reference page.
ANSWER: Final = "answer_columns"

F = TypeVar("F", bound=Callable[..., Any])
T = TypeVar("T")
_NONE: Final = object()


class Form(NamedTuple):
    """The format and the fields of an answer."""

    format: str
    columns: tuple[Column, ...]
    #: Whether the user named the fields; a table then shows all of them.
    chosen: bool = False
    fields: str | None = None

    def of(self, columns: Sequence[Column]) -> "Form":
        """Return the same form with the columns of another answer of the command.

        Raises:
            SettingsError: that answer lacks a field that the user named.
        """
        if self.fields is None:
            return Form(self.format, tuple(columns))
        return Form(self.format, select(columns, self.fields), chosen=True, fields=self.fields)

    @property
    def is_table(self) -> bool:
        """Whether the answer is printed as a table."""
        return self.format == "table"


def format_options(
    columns: Sequence[Column] | Mapping[str, Sequence[Column]], *, more: tuple[str, ...] = ()
) -> Callable[[F], F]:
    """Add `--format`, `--json` and `--fields` to a command, which gets them as its `form`.

    Args:
        columns: the columns of the answer. A command with several answers passes a mapping from
            the name of each to its columns, and calls `form.of(columns)` for the one it prints.
        more: formats besides those of every list.
    """
    answers = columns if isinstance(columns, Mapping) else {"": columns}

    def decorate(command: F) -> F:
        @click.option(
            "--format",
            "form",
            type=click.Choice((*FORMATS, *more)),
            default="table",
            show_default=True,
            help="A table for people, or rows for programs"
            + ("; text: as the published text file." if "text" in more else "."),
        )
        @click.option("--json", "as_json", is_flag=True, help="The same as --format json.")
        @click.option("--fields", metavar="NAME,…", help="Only these fields, in this order.")
        @wraps(command)
        def with_form(
            *args: Any, form: str, as_json: bool, fields: str | None, **kwargs: Any
        ) -> Any:
            answer_form = Form("json" if as_json else form, (), fields=fields)
            if len(answers) == 1:
                answer_form = answer_form.of(*answers.values())
            return command(*args, form=answer_form, **kwargs)

        setattr(with_form, ANSWER, dict(answers))
        return with_form  # type: ignore[return-value]  # click's options change the signature

    return decorate


def text_or_json(command: F) -> F:
    """Add `--format` and `--json` to a command without a list, which gets `as_json`."""

    @click.option(
        "--format",
        "form",
        type=click.Choice(["text", "json"]),
        default="text",
        show_default=True,
        help="Lines to read, or JSON.",
    )
    @click.option("--json", "json_too", is_flag=True, help="The same as --format json.")
    @wraps(command)
    def with_form(*args: Any, form: str, json_too: bool, **kwargs: Any) -> Any:
        return command(*args, as_json=json_too or form == "json", **kwargs)

    return with_form  # type: ignore[return-value]  # click's options change the signature


def write_records(records: Iterable[Record], form: Form, nothing: str) -> None:
    """Write a list. If it is empty, write a note and end the command with exit code 1."""
    rows = iter(records)
    first = next(rows, None)
    all_rows: Iterator[Record] = chain(() if first is None else (first,), rows)
    if form.format == "json":
        _write_json(_json(record, form.columns) for record in all_rows)
    elif form.format == "ndjson":
        _write(_json(record, form.columns) for record in all_rows)
    elif form.format == "csv":
        _write_csv(all_rows, form.columns)
    elif form.format == "tsv":
        names = [column.name for column in form.columns]
        rows_of_text = ("\t".join(tsv_field(record[name]) for name in names) for record in all_rows)
        _write(chain(["\t".join(names)], rows_of_text))
    elif first is not None:
        _write_table(all_rows, form)
    if first is None:
        nothing_found(nothing)


def write_record(record: Record, form: Form) -> None:
    """Write one object: name and value per line for people, one row for programs."""
    if form.format == "json":
        click.echo(json.dumps(_selected(record, form.columns), ensure_ascii=False, indent=1))
    elif form.is_table:
        from .columns import cell

        width = max(len(column.head) for column in form.columns)
        for column in form.columns:
            click.echo(f"{column.head:{width}}  {cell(record[column.name])}")
    else:
        write_records([record], form, "")


class Limited:
    """Cuts an answer after some rows, and writes a note if there are more."""

    def __init__(self, limit: int | None) -> None:
        self._limit = limit
        self.is_more = False

    def of(self, rows: Iterable[T]) -> Iterator[T]:
        """Return the first rows; reads one more to learn whether the answer is cut."""
        rest = iter(rows)
        yield from rest if self._limit is None else islice(rest, min(self._limit, sys.maxsize))
        self.is_more = self._limit is not None and next(rest, _NONE) is not _NONE

    def note(self) -> None:
        """Write a note if the answer is cut. Call this after all rows are written."""
        if self.is_more:
            note(f"there are more rows than --limit {self._limit}")


def note(text: str) -> None:
    """Write a line to stderr, below all that stdout has so far; a terminal wraps it at words."""
    sys.stdout.flush()
    text = printable(text, keep="\n")
    if sys.stderr is not None and sys.stderr.isatty():
        from textwrap import fill

        width = _terminal_width(sys.stderr)
        lines = (fill(line, width, break_on_hyphens=False) for line in text.split("\n"))
        text = "\n".join(lines)
    click.echo(text, err=True)


def nothing_found(message: str) -> None:
    """Write a note and end the command with exit code 1."""
    note(message)
    raise click.exceptions.Exit(NOTHING_FOUND)


def look() -> Look:
    """Return the width of stdout, and whether it shows colour."""
    stream = sys.stdout
    if not stream.isatty():
        return Look(None)
    colour = not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"
    try:
        "…".encode(stream.encoding or "ascii")
    except UnicodeEncodeError:
        return Look(_terminal_width(stream), colour, "~")
    return Look(_terminal_width(stream), colour)


def _terminal_width(stream: TextIO) -> int:
    """Return COLUMNS, or else the width that the terminal reports."""
    columns = os.environ.get("COLUMNS", "")
    if columns.isdecimal() and int(columns):
        return int(columns)
    try:
        return os.get_terminal_size(stream.fileno()).columns or _WIDTH
    except (OSError, ValueError):
        return _WIDTH


def _write_table(records: Iterable[Record], form: Form) -> None:
    table = Table(form.columns, look(), shed=not form.chosen)
    _write(table.lines(records))
    if table.left_out:
        names = ", ".join(column.name for column in table.left_out)
        note(f"not shown at this width: {names} (--fields, or another --format)")


def _write(lines: Iterable[str]) -> None:
    for line in lines:
        sys.stdout.write(line + "\n")


def _write_json(documents: Iterable[str]) -> None:
    separator = "["
    for document in documents:
        sys.stdout.write(f"{separator}\n{document}")
        separator = ","
    sys.stdout.write("\n]\n" if separator == "," else "[]\n")


def _write_csv(records: Iterable[Record], columns: Sequence[Column]) -> None:
    import csv

    writer = csv.writer(sys.stdout, lineterminator="\n")
    names = [column.name for column in columns]
    writer.writerow(names)
    # Terms that are not seen have hardly any values: those cost no call.
    writer.writerows(
        [NOT_KNOWN if (value := record[name]) is None else csv_field(value) for name in names]
        for record in records
    )


def _json(record: Record, columns: Sequence[Column]) -> str:
    return json.dumps(_selected(record, columns), ensure_ascii=False, separators=(",", ":"))


def _selected(record: Record, columns: Sequence[Column]) -> Record:
    return {column.name: plain(record[column.name]) for column in columns}
