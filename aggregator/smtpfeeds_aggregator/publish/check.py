"""Read back what was written, before anyone else does.

A generation with one odd row is not published. Nothing here shares code with
the formats beyond the frame's two numbers: what is checked is what a consumer
reads. Rows are checked a block of lines at a time; where a block is not right, its
lines are looked at one by one for the message.
"""

import csv
import hashlib
import re
from collections.abc import Iterator, Mapping
from itertools import pairwise
from operator import lt
from pathlib import Path
from typing import IO, Final, Protocol

import msgspec

from smtpfeeds_common.addresses import IPv4_BYTES, format_address, pack_address
from smtpfeeds_common.errors import AddressError, PublishError

from ..names import NOT_KNOWN
from .files import FeedFile
from .formats import csv_file as csv_format
from .formats import ndjson as ndjson_format
from .formats.text import FOOTER_LINES, HEADER_LINES
from .stopping import KeepGoing, go_on
from .written import check_written

_ASN: Final = re.compile(rb"NA|[1-9][0-9]{0,9}")
_NAME: Final = re.compile(rb"[!-~](?:[ -~]{0,28}[!-~])?")
_BAD_NAME: Final = re.compile(
    rb'["#|]|eval\(|,[^,]*,[^,]*,|[0-9]+\.[0-9]+\.[0-9]+\.[0-9]', re.IGNORECASE
)
_TIME: Final = re.compile(rb"20[0-9]{2}-[01][0-9]-[0-3][0-9] [0-2][0-9]:[0-5][0-9]:[0-5][0-9]")
_IPV4: Final = re.compile(rb"[0-9]{1,3}\.[0-9]{1,3}\.[0-9]{1,3}\.[0-9]{1,3}")
#: The fields of ASN and name, each with what divides it from the next.
_ORIGIN_OCTETS: Final = 11 + 5 + 30 + 5
_ADDRESS_WIDTH: Final = 15
_BLOCK_OCTETS: Final = 1 << 21
#: Longer than the footer of any file.
_TAIL_OCTETS: Final = 4096

Key = tuple[int, int, bytes]


class _Digest(Protocol):
    """A hash under way."""

    def update(self, data: bytes, /) -> None: ...

    def hexdigest(self) -> str: ...


def check_feed(folder: Path, files: list[FeedFile], keep_going: KeepGoing = go_on) -> None:
    """Make sure that all files of a feed are as they should be.

    The main file is read row by row; a family's file must hold exactly its rows; what a
    compressed file holds is what is in the plain one.

    Raises:
        PublishError: one is not; says where.
    """
    families: dict[int, _Digest] = {4: hashlib.sha256(), 6: hashlib.sha256()}
    for file in sorted(files, key=lambda file: not file.is_whole):
        try:
            _check_format(file, folder / file.name, families, keep_going)
        except (ValueError, csv.Error) as exc:
            # As an octet that is not ASCII, where only ASCII is written.
            raise PublishError(f"{file.name}: {exc}; the generation is not published") from exc
        check_written(folder, file.written, keep_going)


def _check_format(
    file: FeedFile, path: Path, families: Mapping[int, "_Digest"], keep_going: KeepGoing
) -> None:
    if file.is_whole:
        _check_text(file, path, families, keep_going)
    elif file.frame.family is not None:
        _check_family(file, path, families[file.frame.family])
    elif file.format is csv_format:
        _check_csv(file, path, keep_going)
    else:
        _check_ndjson(file, path, keep_going)


def _check_text(
    file: FeedFile, path: Path, families: Mapping[int, "_Digest"], keep_going: KeepGoing
) -> None:
    reader = _RowReader(file)
    with path.open("rb") as stream:
        _check_header(file, stream)
        for lines in _body(stream, keep_going):
            for family, rows in reader.read(lines).items():
                families[family].update(rows)
        _check_footer(file, stream.read(), reader.rows, len(reader.asns - {0}))


def _check_family(file: FeedFile, path: Path, expected: "_Digest") -> None:
    rows, asns, read = 0, set[bytes](), hashlib.sha256()
    with path.open("rb") as stream:
        _check_header(file, stream)
        for lines in _body(stream, go_on):
            read.update(b"".join(lines))
            rows += len(lines)
            asns.update(line[:11] for line in lines)
        if read.hexdigest() != expected.hexdigest():
            raise PublishError(
                f"{file.name}: its rows are not those of this family in the main file"
            )
        known = {asn for asn in asns if asn.rstrip() != NOT_KNOWN.encode()}
        _check_footer(file, stream.read(), rows, len(known))


def _body(stream: IO[bytes], keep_going: KeepGoing) -> Iterator[list[bytes]]:
    """The lines between header and footer, some at a time; leaves the stream at the footer."""
    start = stream.tell()
    size = stream.seek(0, 2)
    tail_start = max(start, size - _TAIL_OCTETS)
    stream.seek(tail_start)
    tail = stream.read().splitlines(keepends=True)
    end = size - sum(map(len, tail[-FOOTER_LINES:]))
    stream.seek(start)
    yield from _blocks(stream, end - start, keep_going)


def _blocks(stream: IO[bytes], octets: int, keep_going: KeepGoing) -> Iterator[list[bytes]]:
    held = b""
    while octets > 0:
        keep_going()
        block = stream.read(min(_BLOCK_OCTETS, octets))
        octets -= len(block)
        cut = block.rfind(b"\n") + 1
        lines = (held + block[:cut]).splitlines(keepends=True)
        held = block[cut:]
        if lines:
            yield lines
    if held:
        yield [held]


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


class _RowReader:
    """Reads rows of the main file; most have the origin of the row before."""

    def __init__(self, file: FeedFile) -> None:
        self._file = file
        self._end = b"  |  %s\n" % file.frame.feed.name.encode()
        self._origins: dict[bytes, int] = {}
        self._before: Key = (-1, 0, b"")
        self.rows = 0
        self.asns: set[int] = set()

    def read(self, lines: list[bytes]) -> dict[int, bytes]:
        """Check some rows.

        Returns:
            The rows of each family, as they are.

        Raises:
            PublishError: one is not a row of this file, or not in order.
        """
        keys = []
        for place, line in enumerate(lines):
            try:
                keys.append(self._key(line))
            except ValueError as exc:
                raise _bad(self._file, HEADER_LINES + self.rows + place + 1, str(exc)) from exc
        self._check_order(keys)
        self.asns.update({key[0] for key in keys})
        self.rows += len(lines)
        four = [key[1] == IPv4_BYTES for key in keys]
        return {
            4: b"".join(line for line, is_four in zip(lines, four, strict=True) if is_four),
            6: b"".join(line for line, is_four in zip(lines, four, strict=True) if not is_four),
        }

    def _key(self, line: bytes) -> Key:
        """The row's place in the order: ASN, length of the address, address."""
        origin = line[:_ORIGIN_OCTETS]
        asn = self._origins.get(origin)
        if asn is None:
            asn = self._origins[origin] = _origin(origin)
        address, divider, rest = line[_ORIGIN_OCTETS:].partition(b"  |  ")
        text = address.rstrip(b" ").decode("ascii", "replace")
        try:
            packed = pack_address(text)
        except AddressError:
            raise ValueError("not an address") from None
        if format_address(packed) != text or len(address) != max(len(text), _ADDRESS_WIDTH):
            raise ValueError("an address in another spelling")
        if not divider or rest[19:] != self._end or not _TIME.fullmatch(rest[:19]):
            raise ValueError("not a row of this feed")
        return (asn, len(packed), packed)

    def _check_order(self, keys: list[Key]) -> None:
        ordered = [self._before, *keys]
        if not all(map(lt, ordered, keys)):
            place = next(n for n, (one, two) in enumerate(pairwise(ordered)) if not one < two)
            raise _bad(self._file, HEADER_LINES + self.rows + place + 1, "rows are not in order")
        if keys:
            self._before = keys[-1]


def _origin(octets: bytes) -> int:
    """The ASN of a row's first two fields; 0 for none."""
    fields = octets.split(b"  |  ")
    if len(fields) != 3 or (len(fields[0]), len(fields[1]), fields[2]) != (11, 30, b""):
        raise ValueError("not an ASN and a name, padded to 11 and 30")
    number, name = fields[0].rstrip(b" "), fields[1].rstrip(b" ")
    if not _ASN.fullmatch(number):
        raise ValueError("not an ASN and a name, padded to 11 and 30")
    if not _NAME.fullmatch(name) or _BAD_NAME.search(name):
        raise ValueError("not a name that every consumer can read")
    return 0 if number == NOT_KNOWN.encode() else int(number)


def _check_comment(file: FeedFile, number: int, line: bytes) -> None:
    if not line.startswith(b"#") or not line.endswith(b"\n") or b'"' in line or _IPV4.search(line):
        raise _bad(file, number, "not a comment line as it should be")


def _check_csv(file: FeedFile, path: Path, keep_going: KeepGoing) -> None:
    rows = -1
    width = len(csv_format.COLUMNS)
    with path.open("rb") as stream:
        for lines in _blocks(stream, path.stat().st_size, keep_going):
            reader = csv.reader((line.decode("ascii") for line in lines), strict=True)
            for fields in reader:
                rows += 1
                if len(fields) != width:
                    raise _bad(file, rows + 1, f"{len(fields)} fields")
            if not lines[-1].endswith(b"\n"):
                raise _bad(file, rows + 1, "the last line is cut")
    _check_count(file, rows)


def _check_ndjson(file: FeedFile, path: Path, keep_going: KeepGoing) -> None:
    rows = 0
    decoder = msgspec.json.Decoder(ndjson_format.Row)
    with path.open("rb") as stream:
        for lines in _blocks(stream, path.stat().st_size, keep_going):
            for line in lines:
                rows += 1
                try:
                    decoder.decode(line)
                except msgspec.MsgspecError as exc:
                    raise _bad(file, rows, str(exc)) from exc
            if not lines[-1].endswith(b"\n"):
                raise _bad(file, rows, "the last line is cut")
    _check_count(file, rows)


def _check_count(file: FeedFile, rows: int) -> None:
    if rows != file.counts.addresses:
        raise PublishError(f"{file.name}: {rows} rows on disk, {file.counts.addresses} written")


def _bad(file: FeedFile, number: int, what: str) -> PublishError:
    return PublishError(f"{file.name}, line {number}: {what}; the generation is not published")
