"""Write rows of the feeds, for `feed show` and `query --per feed`.

Without `--fields`, CSV, JSON and NDJSON are as in the published files; `text` is the layout of the
published text file. The table is for people and has its own order of columns.
"""

import sys
from collections.abc import Iterable, Iterator
from itertools import chain
from typing import Final

from smtpfeeds_common.answers import Form, Limited, nothing_found, write_records
from smtpfeeds_common.columns import Column, Record
from smtpfeeds_common.history import marks

from ..names import NOT_KNOWN
from ..publish.entries import Entry, Format, rows_of, tags
from .entry_columns import ENTRY

#: Rows written together: few enough that a reader sees them without a delay.
_TOGETHER: Final = 200
#: Columns of the table, in order.
_TABLE: Final = (
    *("ipaddr", "category", "class", "lastseen", "days", "hits", "sensors", "ASN", "ASname"),
    *("why", "first_seen", "actor", "tags"),
)


def write_entries(entries: Iterable[Entry], form: Form, limit: int | None, nothing: str) -> None:
    """Write rows of feeds; end the command with exit code 1 if there is none."""
    rows = iter(entries)
    first = next(rows, None)
    if first is None and form.format in {"text", "ndjson"}:
        nothing_found(nothing)
    shown: Iterator[Entry] = chain(() if first is None else (first,), rows)
    limited = Limited(limit)
    cut = limited.of(shown)
    if form.chosen or form.format in {"table", "tsv"}:
        write_records(map(record_of, cut), _table_form(form), nothing)
    else:
        _write_as_published(cut, form.format)
    limited.note()
    if first is None:
        nothing_found(nothing)


def _write_as_published(entries: Iterable[Entry], form: str) -> None:
    from ..publish.formats import csv_file, ndjson, text

    if form == "json":
        separator = "["
        for row in rows_of(entries, ndjson, _TOGETHER):
            sys.stdout.write(f"{separator}\n{row.rstrip()}")
            separator = ","
        sys.stdout.write("\n]\n" if separator == "," else "[]\n")
        return
    if form == "csv":
        sys.stdout.write(",".join(csv_file.COLUMNS) + "\n")
    forms: dict[str, Format] = {"ndjson": ndjson, "csv": csv_file, "text": text}
    for row in rows_of(entries, forms[form], _TOGETHER):
        sys.stdout.write(row)


def _table_form(form: Form) -> Form:
    if form.chosen or not form.is_table:
        return form
    by_name: dict[str, Column] = {column.name: column for column in ENTRY}
    return Form(form.format, tuple(by_name[name] for name in _TABLE))


def record_of(entry: Entry) -> Record:
    """Return the values of an entry, by column name."""
    judgement = entry.judgement
    return {
        "ASN": entry.asn,
        "ASname": None if entry.name == NOT_KNOWN else entry.name,
        "ipaddr": entry.address,
        "lastseen": entry.last_seen,
        "category": entry.category,
        "first_seen": entry.first_seen,
        "hits": entry.hits,
        "sensors": entry.sensors,
        "tags": tags(entry.flags),
        "class": judgement.cls,
        "why": judgement.why,
        "actor": judgement.actor,
        "days_seen": entry.days.bit_count(),
        "days": marks(entry.days),
        "targets": entry.targets,
        "new": entry.new,
    }
