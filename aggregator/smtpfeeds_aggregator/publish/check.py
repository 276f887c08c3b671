"""Read back what was written, before anyone else does.

A generation with one odd row is not published. Rows of the main file are checked by
`check_rows`; a family's file must hold exactly its rows. The octets of each file are compared
with what was written in a thread, because that needs no interpreter.
"""

import csv
import hashlib
import io
import re
from collections import Counter, deque
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import repeat
from pathlib import Path
from typing import IO, Final

import msgspec

from smtpfeeds_common.addresses import IPv4_BYTES, IPv6_BYTES
from smtpfeeds_common.errors import PublishError

from .check_rows import FamilyRows, RowReader, bad_line
from .files import FeedFile
from .formats import csv_file as csv_format
from .formats import ndjson as ndjson_format
from .formats.text import FOOTER_LINES, HEADER_LINES
from .stopping import KeepGoing, go_on
from .written import check_written

_IPV4: Final = re.compile(rb"[0-9]{1,3}\.[0-9]{1,3}\.[0-9]{1,3}\.[0-9]{1,3}")
_BLOCK_OCTETS: Final = 1 << 21
#: Longer than the footer of any file.
_TAIL_OCTETS: Final = 4096
_OCTETS: Final = {4: IPv4_BYTES, 6: IPv6_BYTES}

Families = dict[int, FamilyRows]


def check_feed(folder: Path, files: list[FeedFile], keep_going: KeepGoing = go_on) -> None:
    """Make sure that all files of a feed are as they should be.

    Every row of the main file is checked; a family's file must hold exactly its rows; what a
    compressed file holds is what is in the plain one.

    Raises:
        PublishError: one is not; says where.
    """
    families = {size: FamilyRows(hashlib.sha256()) for size in (IPv4_BYTES, IPv6_BYTES)}
    ordered = sorted(files, key=lambda file: not file.is_whole)
    thread = ThreadPoolExecutor(1, "publish-check")
    try:
        checks = [
            thread.submit(check_written, folder, file.written, keep_going) for file in ordered
        ]
        for file, check in zip(ordered, checks, strict=True):
            try:
                _check_format(file, folder / file.name, families, keep_going)
            except (ValueError, csv.Error) as exc:
                # As an octet that is not ASCII, where only ASCII is written.
                raise PublishError(f"{file.name}: {exc}; the generation is not published") from exc
            check.result()
    finally:
        thread.shutdown(cancel_futures=True)


def _check_format(file: FeedFile, path: Path, families: Families, keep_going: KeepGoing) -> None:
    if file.is_whole:
        _check_text(file, path, families, keep_going)
    elif file.frame.family is not None:
        _check_family(file, path, families[_OCTETS[file.frame.family]], keep_going)
    elif file.format is csv_format:
        _check_csv(file, path, keep_going)
    else:
        _check_ndjson(file, path, keep_going)


def _check_text(file: FeedFile, path: Path, families: Families, keep_going: KeepGoing) -> None:
    reader = RowReader(file, families)
    with path.open("rb") as stream:
        _check_header(file, stream)
        for lines in _body(stream, keep_going):
            reader.read(lines)
        asns = set().union(*(family.asns for family in families.values()))
        _check_footer(file, stream.read(), reader.rows, len(asns - {0}))


def _check_family(file: FeedFile, path: Path, family: FamilyRows, keep_going: KeepGoing) -> None:
    read = hashlib.sha256()
    with path.open("rb") as stream:
        _check_header(file, stream)
        for lines in _body(stream, keep_going):
            read.update(lines)
        if read.hexdigest() != family.digest.hexdigest():
            raise PublishError(
                f"{file.name}: its rows are not those of this family in the main file"
            )
        _check_footer(file, stream.read(), family.rows, len(family.asns - {0}))


def _body(stream: IO[bytes], keep_going: KeepGoing) -> Iterator[bytes]:
    """The lines between header and footer, some at a time; leaves the stream at the footer."""
    start = stream.tell()
    size = stream.seek(0, 2)
    tail_start = max(start, size - _TAIL_OCTETS)
    stream.seek(tail_start)
    tail = stream.read().splitlines(keepends=True)
    end = size - sum(map(len, tail[-FOOTER_LINES:]))
    stream.seek(start)
    yield from _blocks(stream, end - start, keep_going)


def _blocks(stream: IO[bytes], octets: int, keep_going: KeepGoing) -> Iterator[bytes]:
    held = b""
    while octets > 0:
        keep_going()
        block = stream.read(min(_BLOCK_OCTETS, octets))
        octets -= len(block)
        cut = block.rfind(b"\n") + 1
        if lines := held + block[:cut]:
            yield lines
        held = block[cut:]
    if held:
        yield held


def _check_header(file: FeedFile, stream: IO[bytes]) -> None:
    for number in range(1, HEADER_LINES + 1):
        _check_comment(file, number, stream.readline())


def _check_footer(file: FeedFile, footer: bytes, rows: int, asns: int) -> None:
    lines = footer.splitlines(keepends=True)
    if len(lines) != FOOTER_LINES:
        raise PublishError(f"{file.name}: {len(lines)} lines of footer, not {FOOTER_LINES}")
    for number, line in enumerate(lines, HEADER_LINES + rows + 1):
        _check_comment(file, number, line)
    counts = [line.rsplit(maxsplit=1)[-1].decode() for line in lines[2:]]
    if counts != [str(asns), str(rows)]:
        raise PublishError(f"{file.name}: counts {counts} ASNs and rows, not {asns}, {rows}")
    _check_count(file, rows)


def _check_comment(file: FeedFile, number: int, line: bytes) -> None:
    if not line.startswith(b"#") or not line.endswith(b"\n") or b'"' in line or _IPV4.search(line):
        raise bad_line(file, number, "not a comment line as it should be")


def _check_csv(file: FeedFile, path: Path, keep_going: KeepGoing) -> None:
    rows = -1
    with path.open("rb") as stream:
        for lines in _blocks(stream, path.stat().st_size, keep_going):
            rows += _csv_rows(file, lines, rows)
            if not lines.endswith(b"\n"):
                raise bad_line(file, rows + 1, "the last line is truncated")
    _check_count(file, rows)


def _csv_rows(file: FeedFile, block: bytes, before: int) -> int:
    """How many rows there are, each of them as wide as it should be.

    Without a quote there is nothing to parse: a line has a field more than it has commas.
    """
    width = len(csv_format.COLUMNS)
    lines = block.removesuffix(b"\n").split(b"\n")
    quoted = [line.decode("ascii") for line in lines if b'"' in line]
    commas = Counter(map(bytes.count, (line for line in lines if b'"' not in line), repeat(b",")))
    is_simple = block.isascii() and b"\r" not in block and commas.keys() <= {width - 1}
    if is_simple and list(map(len, csv.reader(quoted, strict=True))) == [width] * len(quoted):
        return len(lines)
    rows = 0
    text = io.StringIO(block.decode("ascii"), newline="\n")
    for rows, fields in enumerate(csv.reader(text, strict=True), 1):
        if len(fields) != width:
            raise bad_line(file, before + rows + 1, f"{len(fields)} fields")
    return rows


def _check_ndjson(file: FeedFile, path: Path, keep_going: KeepGoing) -> None:
    rows = 0
    decode = msgspec.json.Decoder(ndjson_format.Row).decode
    with path.open("rb") as stream:
        for block in _blocks(stream, path.stat().st_size, keep_going):
            lines = block.splitlines(keepends=True)
            left = iter(lines)
            try:
                # Keeps none: each object is freed before the next is read.
                deque(map(decode, left), maxlen=0)
            except msgspec.MsgspecError as exc:
                read = len(lines) - sum(1 for _ in left)
                raise bad_line(file, rows + read, str(exc)) from exc
            rows += len(lines)
            if not block.endswith(b"\n"):
                raise bad_line(file, rows, "the last line is truncated")
    _check_count(file, rows)


def _check_count(file: FeedFile, rows: int) -> None:
    if rows != file.counts.addresses:
        raise PublishError(f"{file.name}: {rows} rows on disk, {file.counts.addresses} written")
