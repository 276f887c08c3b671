"""Read the written files back before they are published.

A generation with one wrong row is not published. `check_rows` checks the rows of the main file; a
family's file must contain exactly its rows. The octets of each file are compared
with what was written in a thread, because that needs no interpreter.
"""

import csv
import hashlib
import io
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import IO, Final

import msgspec
import numpy as np

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
#: Larger ones take longer: the system gives the memory of each anew.
_BLOCK_OCTETS: Final = 1 << 18
#: Longer than the footer of any file.
_TAIL_OCTETS: Final = 4096
_LF, _OPENING, _CLOSING = b"\n{}"
_OCTETS: Final = {4: IPv4_BYTES, 6: IPv6_BYTES}

#: A whole field of one line in quotes; the octet before it is a comma, or ends a line.
_QUOTED: Final = re.compile(rb'"(?<![^,\n]")(?:[^"\n\r]|"")*"(?=[,\n])')
#: What is left out where lines are compared by their commas; a quote or CR that stays is odd.
_NOT_IN_ENDS: Final = bytes(set(range(256)) - set(b',\n"\r'))

Families = dict[int, FamilyRows]


def check_feed(folder: Path, files: list[FeedFile], keep_going: KeepGoing = go_on) -> None:
    """Check that all files of a feed are correct.

    It checks every row of the main file. A family's file must contain exactly its rows, and a
    compressed file must have the content of the plain one.

    Raises:
        PublishError: a file is not correct; the message says where.
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
                # Such as an octet that is not ASCII, though only ASCII is written.
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
    """Yield blocks of lines between header and footer; the stream is then at the footer."""
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
    """Return the number of rows, and check that each has all fields.

    Without quoted fields there is nothing to parse: a line has a field more than it has commas.
    """
    width = len(csv_format.COLUMNS)
    ends = _QUOTED.sub(b"", block).translate(None, _NOT_IN_ENDS)
    count = block.count(b"\n")
    if block.isascii() and ends == (b"," * (width - 1) + b"\n") * count:
        return count
    rows = 0
    text = io.StringIO(block.decode("ascii"), newline="\n")
    for rows, fields in enumerate(csv.reader(text, strict=True), 1):
        if len(fields) != width:
            raise bad_line(file, before + rows + 1, f"{len(fields)} fields")
    return rows


def _check_ndjson(file: FeedFile, path: Path, keep_going: KeepGoing) -> None:
    rows = 0
    decoder = msgspec.json.Decoder(ndjson_format.Row)
    with path.open("rb") as stream:
        for block in _blocks(stream, path.stat().st_size, keep_going):
            rows += _ndjson_rows(file, decoder, block, rows)
            if not block.endswith(b"\n"):
                raise bad_line(file, rows, "the last line is truncated")
    _check_count(file, rows)


def _ndjson_rows(
    file: FeedFile, decoder: "msgspec.json.Decoder[ndjson_format.Row]", block: bytes, before: int
) -> int:
    """Return the number of rows, each on its own line."""
    with suppress(msgspec.MsgspecError):
        rows = len(decoder.decode_lines(block))
        if rows == _objects(block):
            return rows
    lines = block.splitlines(keepends=True)
    for number, line in enumerate(lines, before + 1):
        try:
            decoder.decode(line)
        except msgspec.MsgspecError as exc:
            raise bad_line(file, number, str(exc)) from exc
    return len(lines)


def _objects(block: bytes) -> int:
    """Return the number of objects if each line is one; 0 if a line cannot be one.

    To the decoder, an object may extend over lines, and a line may hold two.
    """
    octets = np.frombuffer(block, np.uint8)
    ends = np.flatnonzero(octets == _LF)
    is_apart = (octets[ends - 1] == _CLOSING).all() and (octets[ends[:-1] + 1] == _OPENING).all()
    return len(ends) if is_apart and block.startswith(b"{") else 0


def _check_count(file: FeedFile, rows: int) -> None:
    if rows != file.counts.addresses:
        raise PublishError(f"{file.name}: {rows} rows on disk, {file.counts.addresses} written")
