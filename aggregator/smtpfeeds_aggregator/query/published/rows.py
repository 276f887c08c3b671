"""Read entries from the rows of a published file: NDJSON or CSV, plain or compressed.

Every field is checked: address and times are valid, and no text has control characters. An unknown
tag, of a later version, is skipped. A file with an unknown class is refused, because an answer by
class would be wrong.
"""

import csv
from collections.abc import Iterable, Iterator
from datetime import datetime
from functools import lru_cache
from itertools import chain
from typing import IO, Any, Final

import msgspec

from smtpfeeds_common.addresses import pack_address
from smtpfeeds_common.behaviours import Flags
from smtpfeeds_common.columns import FORMULA
from smtpfeeds_common.errors import AddressError, NotVerified
from smtpfeeds_common.history import WEEK_DAYS

from ...classification.classes import Class, Judgement
from ...names import NOT_KNOWN
from ...publish.entries import Entry
from ...publish.formats import csv_file, ndjson
from ...publish.gzip_file import DAMAGED, decompressed

#: The bound of one file, compressed and decompressed; a million addresses need a fifth of it.
FILE_BYTES_MAX: Final = 1 << 30
_GZIP: Final = b"\x1f\x8b"
_FLAGS: Final = {str(flag.name).lower(): int(flag) for flag in Flags}
#: A line of NDJSON has a few hundred octets; a longer one is refused.
_ROW_BYTES_MAX: Final = 1 << 16
#: Valid times: from the first to before the second.
_TIMES: Final = ("1970-01-01 00:00:00", "2106-01-01 00:00:00")
_TIME_CHARS: Final = len(_TIMES[0])
_read_time: Final = datetime.fromisoformat
SUFFIXES: Final = (ndjson.SUFFIX, csv_file.SUFFIX)
#: CSV rows that are converted together.
_ROWS_TOGETHER: Final = 1_000


class _CsvRow(
    msgspec.Struct,
    array_like=True,
    forbid_unknown_fields=True,
    frozen=True,
    gc=False,
):
    """A CSV row, by its columns in order; texts as they are in the file."""

    ASN: str
    ASname: str
    ipaddr: str
    lastseen: str
    category: str
    first_seen: str
    hits: ndjson.EVENTS
    sensors: ndjson.NUMBER
    tags: str
    cls: str
    why: str
    actor: str
    days_seen: int
    days: str
    targets: ndjson.NUMBER
    new: bool


def read_entries(stream: IO[bytes], name: str) -> Iterator[Entry]:
    """Yield the entries of a published file, row by row.

    Args:
        stream: the file's content, plain or compressed.
        name: the file's name in messages.

    Raises:
        NotVerified: it contains something else.
    """
    source = open_rows(stream, name)
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
        for entry in rows:
            yield entry
            number += 1
    except DAMAGED as exc:
        raise NotVerified(f"{name} cannot be decompressed: {exc}") from exc
    except (ValueError, RecursionError, AddressError, csv.Error) as exc:
        raise NotVerified(f"{name}, line {number + 1}: this is not a row of a feed: {exc}") from exc


def open_rows(stream: IO[bytes], name: str) -> IO[bytes]:
    """Open the content of a file, plain or compressed, from its beginning.

    Raises:
        NotVerified: it cannot be read twice.
    """
    if not stream.seekable():
        raise NotVerified(f"{name} is a pipe: give a file")
    stream.seek(0)
    magic = stream.read(len(_GZIP))
    stream.seek(0)
    return decompressed(stream) if magic == _GZIP else stream


def _lines(source: IO[bytes], name: str) -> Iterator[bytes]:
    """Yield its lines; a line that is too long is split into pieces, which are not rows."""
    size = 0
    while line := source.readline(_ROW_BYTES_MAX):
        size += len(line)
        if size > FILE_BYTES_MAX:
            raise NotVerified(f"{name} has more than {FILE_BYTES_MAX} octets decompressed")
        yield line


def _ndjson(lines: Iterable[bytes]) -> Iterator[Entry]:
    return map(_of_ndjson, map(msgspec.json.Decoder(ndjson.Row).decode, lines))


def _csv(lines: Iterable[bytes]) -> Iterator[Entry]:
    reader = csv.reader((line.decode("ascii") for line in lines), strict=True)
    for block in _blocks(reader):
        try:
            rows = msgspec.convert(block, list[_CsvRow], strict=False)
        except msgspec.ValidationError:
            # One by one, so that the rows before the wrong one are counted and its line number is
            # known.
            yield from (_of_csv(msgspec.convert(row, _CsvRow, strict=False)) for row in block)
        else:
            yield from map(_of_csv, rows)


def _blocks(reader: Iterator[list[str]]) -> Iterator[list[list[str]]]:
    """Yield blocks of rows; rows before an unreadable row come before its error."""
    block: list[list[str]] = []
    try:
        for row in reader:
            block.append(row)
            if len(block) == _ROWS_TOGETHER:
                yield block
                block = []
    except (ValueError, csv.Error):
        yield block
        raise
    yield block


def _of_ndjson(row: ndjson.Row) -> Entry:
    return _entry(
        row.ASN,
        _name(row.ASname),
        row.ipaddr,
        row.lastseen,
        _category(row.category),
        row.first_seen,
        row.hits,
        row.sensors,
        _flags(row.tags),
        row.targets,
        _judgement(row.cls, row.why, row.actor),
        _days(row.days),
        row.new,
    )


def _of_csv(row: _CsvRow) -> Entry:
    return _entry(
        _asn(row.ASN),
        _name(_text(row.ASname)),
        row.ipaddr,
        row.lastseen,
        _category(row.category),
        row.first_seen,
        row.hits,
        row.sensors,
        _flags_of_text(row.tags),
        row.targets,
        _judgement_of_texts(row.cls, row.why, row.actor),
        _days(row.days),
        row.new,
    )


def _entry(
    asn: int | None, name: str, address: str, last: str, category: str, first: str, *others: Any
) -> Entry:
    """Create an entry; its address and times must be valid."""
    pack_address(address)
    _read_time(last)
    _read_time(first)
    if not (_TIMES[0] <= last < _TIMES[1] and _TIMES[0] <= first < _TIMES[1]):
        raise ValueError(f"{last!r} and {first!r} are not times of a feed")
    if not (len(last) == len(first) == _TIME_CHARS):
        raise ValueError(f"{last!r} or {first!r} is not to the second")
    family = 6 if ":" in address else 4
    return Entry._make((asn, name, address, family, last, category, first, *others))


def _text(field: str) -> str | None:
    """Return a field without the quoting of spreadsheet formulas; None for NA."""
    if field == NOT_KNOWN:
        return None
    return field[1:] if field.startswith("'") and field[1:].startswith(FORMULA) else field


@lru_cache(maxsize=1 << 12)
def _asn(text: str) -> int | None:
    return None if text == NOT_KNOWN else msgspec.convert(text, ndjson.ORIGIN, strict=False)


@lru_cache(maxsize=1 << 16)
def _name(name: str | None) -> str:
    return _printable(name) if name else NOT_KNOWN


@lru_cache(maxsize=1 << 4)
def _category(text: str) -> str:
    return _printable(text)


def _printable(text: str) -> str:
    if not text.isprintable():
        raise ValueError(f"{text!r} has a control character")
    return text


@lru_cache(maxsize=1 << 12)
def _flags_of_text(text: str) -> int:
    return _flags(tuple(text.split()))


@lru_cache(maxsize=1 << 12)
def _judgement_of_texts(cls: str, why: str, actor: str) -> Judgement:
    return _judgement(cls, tuple((_text(why) or "").split()), _text(actor))


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
