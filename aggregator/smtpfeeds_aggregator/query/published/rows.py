"""Entries from the rows of a published file, NDJSON or CSV, plain or compressed.

Every field is checked: address and times can be read, and a text moves no cursor. An
unknown tag, of a later version, is passed over. A file with an unknown class is refused,
because an answer by class would be wrong.
"""

import csv
from collections.abc import Iterable, Iterator
from datetime import datetime
from functools import lru_cache
from itertools import chain
from typing import IO, Final

import msgspec

from smtpfeeds_common.addresses import pack_address
from smtpfeeds_common.behaviours import Flags
from smtpfeeds_common.columns import FORMULA
from smtpfeeds_common.errors import AddressError, NotVerified
from smtpfeeds_common.history import WEEK_DAYS

from ...meaning.classes import Class, Judgement
from ...names import NOT_KNOWN
from ...publish.entries import Entry
from ...publish.formats import csv_file, ndjson
from ...publish.gzip_file import DAMAGED, decompressed

#: What is fetched or decompressed of one file; a million addresses are a fifth of it.
FILE_BYTES_MAX: Final = 1 << 30
_GZIP: Final = b"\x1f\x8b"
_FLAGS: Final = {str(flag.name).lower(): int(flag) for flag in Flags}
#: A line of NDJSON is a few hundred octets; no more is read of another file.
_ROW_BYTES_MAX: Final = 1 << 16
#: From the first to before the second.
_TIMES: Final = ("1970-01-01 00:00:00", "2106-01-01 00:00:00")
_TIME_CHARS: Final = len(_TIMES[0])
_read_time: Final = datetime.fromisoformat
SUFFIXES: Final = (ndjson.SUFFIX, csv_file.SUFFIX)


def read_entries(stream: IO[bytes], name: str) -> Iterator[Entry]:
    """The entries of a published file, row by row.

    Args:
        stream: its content, plain or compressed.
        name: what messages call it.

    Raises:
        NotVerified: it holds something else.
    """
    if not stream.seekable():
        raise NotVerified(f"{name} is a pipe: give a file")
    magic = stream.read(len(_GZIP))
    stream.seek(0)
    source = decompressed(stream) if magic == _GZIP else stream
    number = 0
    try:
        lines = _lines(source, name)
        first = next(lines, b"")
        if first.startswith(b"{") or not first:
            rows = _ndjson(chain((first,) if first else (), lines))
        elif first.decode("ascii", "replace").rstrip("\r\n") == ",".join(csv_file.COLUMNS):
            number = 1
            rows = _csv(lines)
        else:
            raise NotVerified(f"{name} is neither NDJSON nor CSV of a feed: only those are read")
        for row in rows:
            yield _entry(row)
            number += 1
    except DAMAGED as exc:
        raise NotVerified(f"{name} cannot be decompressed: {exc}") from exc
    except (ValueError, AddressError, csv.Error) as exc:
        raise NotVerified(f"{name}, line {number + 1}: this is not a row of a feed: {exc}") from exc


def _lines(source: IO[bytes], name: str) -> Iterator[bytes]:
    """Its lines; one that is too long comes in pieces, which are not rows."""
    size = 0
    while line := source.readline(_ROW_BYTES_MAX):
        size += len(line)
        if size > FILE_BYTES_MAX:
            raise NotVerified(f"{name} has more than {FILE_BYTES_MAX} octets decompressed")
        yield line


def _ndjson(lines: Iterable[bytes]) -> Iterator[ndjson.Row]:
    return map(msgspec.json.Decoder(ndjson.Row).decode, lines)


def _csv(lines: Iterable[bytes]) -> Iterator[ndjson.Row]:
    text = (line.decode("ascii") for line in lines)
    return map(_csv_row, csv.reader(text, strict=True))


def _csv_row(fields: list[str]) -> ndjson.Row:
    values = dict(zip(csv_file.COLUMNS, fields, strict=True))
    row = {
        **values,
        "ASN": None if values["ASN"] == NOT_KNOWN else values["ASN"],
        "ASname": _text(values["ASname"]),
        "tags": values["tags"].split(),
        "why": (_text(values["why"]) or "").split(),
        "actor": _text(values["actor"]),
    }
    return msgspec.convert(row, ndjson.Row, strict=False)


def _text(field: str) -> str | None:
    """A field as it was before a spreadsheet's formula was quoted; None for NA."""
    if field == NOT_KNOWN:
        return None
    return field[1:] if field.startswith("'") and field[1:].startswith(FORMULA) else field


def _entry(row: ndjson.Row) -> Entry:
    pack_address(row.ipaddr)
    last, first = row.lastseen, row.first_seen
    _read_time(last)
    _read_time(first)
    if not (_TIMES[0] <= last < _TIMES[1] and _TIMES[0] <= first < _TIMES[1]):
        raise ValueError(f"{last!r} and {first!r} are not times of a feed")
    if not (len(last) == len(first) == _TIME_CHARS):
        raise ValueError(f"{last!r} or {first!r} is not to the second")
    if not (row.category + (row.ASname or "")).isprintable():
        raise ValueError(f"{row.category!r} or {row.ASname!r} has a control character")
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
    if not "".join((*why, actor or "")).isprintable():
        raise ValueError(f"{why!r} or {actor!r} has a control character")
    return Judgement(Class(cls), why, actor)


@lru_cache(maxsize=1 << 7)
def _days(text: str) -> int:
    if len(text) != WEEK_DAYS or set(text) - {"#", "."}:
        raise ValueError(f"{text!r} does not mark days")
    return sum(1 << back for back, mark in enumerate(reversed(text)) if mark == "#")
