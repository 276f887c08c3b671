"""Add what the feeds know of the addresses in a line to that line.

A JSON object gets a member `smtpfeeds`, a list with one object for each address, so the line stays
JSON. Any other line gets a fixed number of columns; if it has several addresses, one column holds
their values, separated by semicolons.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any, Final

from smtpfeeds_common.columns import Column, plain, tsv_field

from ..publish.formats import csv_file
from .known import Known

MEMBER: Final = "smtpfeeds"
_BETWEEN: Final = "; "


class Annotations:
    """Writes lines with their annotations."""

    def __init__(
        self, known: Mapping[bytes, Known], columns: Sequence[Column], delimiter: str = "\t"
    ) -> None:
        """Take the known addresses and the form of the annotations.

        Args:
            known: the known addresses, by the key that the filter returns.
            columns: the columns to add, in this order.
            delimiter: separates the added columns; a comma gives CSV fields.
        """
        self._known, self._names = known, [column.name for column in columns]
        self._delimiter = delimiter
        # Bounded by the number of known addresses.
        self._records: dict[bytes, dict[str, Any]] = {}
        self._columns_of_one: dict[bytes, bytes] = {}

    def line(self, body: bytes, keys: Sequence[bytes]) -> bytes:
        """Return a line (without its line end) with its annotations."""
        if body.rstrip().endswith(b"}"):
            object_line = _with_member(body, [self._record(key) for key in keys])
            if object_line is not None:
                return object_line
        if len(keys) > 1:
            return body + self._columns([self._record(key) for key in keys])
        columns = self._columns_of_one.get(keys[0])
        if columns is None:
            columns = self._columns_of_one[keys[0]] = self._columns([self._record(keys[0])])
        return body + columns

    def _record(self, key: bytes) -> dict[str, Any]:
        record = self._records.get(key)
        if record is None:
            every = self._known[key].record()
            record = self._records[key] = {name: every[name] for name in self._names}
        return record

    def _columns(self, records: Sequence[dict[str, Any]]) -> bytes:
        fields = []
        for name in self._names:
            field = _BETWEEN.join(tsv_field(record[name]) for record in records)
            fields.append(csv_file.field(field) if self._delimiter == "," else field)
        # A delimiter of the command line may have octets that are not UTF-8.
        return "".join(self._delimiter + field for field in fields).encode(errors="surrogateescape")


def _with_member(body: bytes, records: Sequence[dict[str, Any]]) -> bytes | None:
    """Return a JSON object with the member added; None if the line is not a JSON object."""
    stripped = body.rstrip()
    if not stripped.endswith(b"}") or not body.lstrip().startswith(b"{"):
        return None
    try:
        content = json.loads(stripped)
    except (ValueError, RecursionError):
        return None
    plain_records = [{name: plain(value) for name, value in record.items()} for record in records]
    if MEMBER in content:
        return json.dumps(content | {MEMBER: plain_records}, ensure_ascii=False).encode()
    # Insert the member as text, so that the rest of the line stays the same octets.
    added = json.dumps({MEMBER: plain_records}, ensure_ascii=False, separators=(",", ":"))
    return stripped[:-1] + (b"," if content else b"") + added[1:].encode() + body[len(stripped) :]
