"""Entries from the rows of a published file, NDJSON or CSV, plain or compressed.

A tag or a class of a later version that this program does not know: the tag is passed
over, the class refuses the file, because an answer by class would be wrong.
"""

import csv
import io
from collections.abc import Iterator
from functools import lru_cache
from typing import IO, Final

import msgspec

from smtpfeeds_common.behaviours import Flags
from smtpfeeds_common.errors import NotVerified

from ...meaning.classes import Class, Judgement
from ...names import NOT_KNOWN
from ...publish.entries import Entry
from ...publish.formats import csv_file, ndjson
from ...publish.gzip_file import DAMAGED, decompressed

_GZIP: Final = b"\x1f\x8b"
_FLAGS: Final = {str(flag.name).lower(): int(flag) for flag in Flags}
#: A line of NDJSON is a few hundred octets; of a file that is none of ours nothing more is read.
_ROW_BYTES_MAX: Final = 1 << 16
SUFFIXES: Final = (ndjson.SUFFIX, csv_file.SUFFIX)


def read_entries(stream: IO[bytes], name: str) -> Iterator[Entry]:
    """The entries of a published file, row by row.

    Args:
        stream: its content, plain or compressed; it can be sought.
        name: what messages call it.

    Raises:
        NotVerified: it holds something else.
    """
    magic = stream.read(len(_GZIP))
    stream.seek(0)
    source = decompressed(stream) if magic == _GZIP else stream
    number = 0
    try:
        first = source.readline(_ROW_BYTES_MAX)
        if first.startswith(b"{") or not first:
            rows = _ndjson(first, source)
        elif first.decode("ascii", "replace").rstrip("\r\n") == ",".join(csv_file.COLUMNS):
            number = 1
            rows = _csv(source)
        else:
            raise NotVerified(f"{name} is neither NDJSON nor CSV of a feed: only those are read")
        for row in rows:
            yield _entry(row)
            number += 1
    except DAMAGED as exc:
        raise NotVerified(f"{name} cannot be decompressed: {exc}") from exc
    except (ValueError, csv.Error) as exc:
        raise NotVerified(f"{name}, line {number + 1}: this is no row of a feed: {exc}") from exc


def _ndjson(first: bytes, source: IO[bytes]) -> Iterator[ndjson.Row]:
    decode = msgspec.json.Decoder(ndjson.Row).decode
    line = first
    while line:
        yield decode(line)
        line = source.readline(_ROW_BYTES_MAX)


def _csv(source: IO[bytes]) -> Iterator[ndjson.Row]:
    text = io.TextIOWrapper(source, "ascii", newline="")
    try:
        yield from map(_csv_row, csv.reader(text, strict=True))
    finally:
        # Its end would close what another closes.
        text.detach()


def _csv_row(fields: list[str]) -> ndjson.Row:
    values = dict(zip(csv_file.COLUMNS, fields, strict=True))
    return ndjson.Row(
        ASN=None if values["ASN"] == NOT_KNOWN else int(values["ASN"]),
        ASname=_text(values["ASname"]),
        ipaddr=values["ipaddr"],
        lastseen=values["lastseen"],
        category=values["category"],
        first_seen=values["first_seen"],
        hits=int(values["hits"]),
        sensors=int(values["sensors"]),
        tags=tuple(values["tags"].split()),
        cls=values["class"],
        why=tuple((_text(values["why"]) or "").split()),
        actor=_text(values["actor"]),
        days_seen=int(values["days_seen"]),
        days=values["days"],
        targets=int(values["targets"]),
        new=values["new"] == "true",
    )


def _text(field: str) -> str | None:
    """A field as it was before a spreadsheet's formula was quoted; None for NA."""
    if field == NOT_KNOWN:
        return None
    return field[1:] if field[:1] == "'" and field[1:2] in {"=", "+", "-", "@"} else field


def _entry(row: ndjson.Row) -> Entry:
    return Entry(
        asn=row.ASN,
        name=row.ASname or NOT_KNOWN,
        address=row.ipaddr,
        family=6 if ":" in row.ipaddr else 4,
        last_seen=row.lastseen,
        category=row.category,
        first_seen=row.first_seen,
        hits=row.hits,
        sensors=row.sensors,
        flags=_flags(row.tags),
        targets=row.targets,
        judgement=_judgement(row.cls, row.why, row.actor),
        days=_days(row.days),
        new=row.new,
    )


@lru_cache(maxsize=1 << 12)
def _flags(names: tuple[str, ...]) -> int:
    return sum(_FLAGS.get(name, 0) for name in set(names))


@lru_cache(maxsize=1 << 12)
def _judgement(cls: str, why: tuple[str, ...], actor: str | None) -> Judgement:
    return Judgement(Class(cls), why, actor)


@lru_cache(maxsize=1 << 7)
def _days(text: str) -> int:
    if set(text) - {"#", "."}:
        raise ValueError(f"{text!r} are no days")
    return sum(1 << back for back, mark in enumerate(reversed(text)) if mark == "#")
