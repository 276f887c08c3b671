"""What is known of the addresses in a line, added to the line.

To a JSON object a member `smtpfeeds`, a list with one object an address, so that the line
stays JSON. To any other line columns, always as many; where a line has several addresses,
their values stand in one column, divided by semicolons.
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
    """Writes lines with what is known."""

    def __init__(
        self, known: Mapping[bytes, Known], columns: Sequence[Column], delimiter: str = "\t"
    ) -> None:
        """Take what is known.

        Args:
            known: by the key that the filter finds.
            columns: what is added, in this order.
            delimiter: stands before each added column; a comma makes fields of CSV.
        """
        self._known, self._names = known, [column.name for column in columns]
        self._delimiter = delimiter
        # Bounded by what is known.
        self._records: dict[bytes, dict[str, Any]] = {}
        self._columns_of_one: dict[bytes, bytes] = {}

    def line(self, body: bytes, keys: Sequence[bytes]) -> bytes:
        """A line without its end, with what is known of the addresses in it."""
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
    """A JSON object with the member added; None where the line is not one."""
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
    # Spliced in: the rest of the line stays as it is, octet by octet.
    added = json.dumps({MEMBER: plain_records}, ensure_ascii=False, separators=(",", ":"))
    return stripped[:-1] + (b"," if content else b"") + added[1:].encode() + body[len(stripped) :]
