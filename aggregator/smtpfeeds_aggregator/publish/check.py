"""Read back what was written, before anyone else does.

A generation with one odd row is not published. Nothing here shares code with
the formats beyond the frame's two numbers: what is checked is what a consumer
reads.
"""

import csv
import hashlib
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final, Protocol

import msgspec

from smtpfeeds_common.addresses import IPv4_BYTES, format_address, pack_address
from smtpfeeds_common.errors import AddressError, PublishError

from ..names import NOT_KNOWN
from .files import FeedFile
from .formats import csv_file as csv_format
from .formats.text import FOOTER_LINES, HEADER_LINES
from .stopping import KeepGoing, go_on, guarded

_ASN: Final = re.compile(r"NA|[1-9][0-9]{0,9}")
_NAME: Final = re.compile(r"[!-~](?:[ -~]{0,28}[!-~])?")
_BAD_NAME: Final = re.compile(
    r'["#|]|eval\(|,[^,]*,[^,]*,|[0-9]+\.[0-9]+\.[0-9]+\.[0-9]', re.IGNORECASE
)
_TIME: Final = re.compile(
    r"20[0-9]{2}-[01][0-9]-[0-3][0-9] [0-2][0-9]:[0-5][0-9]:[0-5][0-9]", re.ASCII
)
_IPV4: Final = re.compile(r"[0-9]{1,3}\.[0-9]{1,3}\.[0-9]{1,3}\.[0-9]{1,3}")


class _Digest(Protocol):
    """A hash under way."""

    def update(self, data: bytes, /) -> None: ...

    def digest(self) -> bytes: ...


def check_feed(
    folder: Path, files: list[FeedFile], keep_going: KeepGoing = go_on
) -> list[tuple[FeedFile, str]]:
    """Give the SHA-256 of each file of a feed if all are as they should be.

    The main file is read row by row; a family's file must hold exactly its rows.

    Raises:
        PublishError: one is not; says where.
    """
    families: dict[int, _Digest] = {4: hashlib.sha256(), 6: hashlib.sha256()}
    for file in sorted(files, key=lambda file: not file.is_whole):
        keep_going()
        if file.is_whole:
            _check_text(file, folder / file.name, families, keep_going)
        elif file.frame.family is not None:
            _check_family(file, folder / file.name, families[file.frame.family])
        elif file.format is csv_format:
            _check_csv(file, folder / file.name)
        else:
            _check_ndjson(file, folder / file.name)
    return [(file, _sha256(folder / file.name)) for file in files]


def _sha256(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _check_text(
    file: FeedFile, path: Path, families: Mapping[int, "_Digest"], keep_going: KeepGoing
) -> None:
    rows, asns = 0, 0
    footer: list[str] = []
    before: tuple[int, int, bytes] = (-1, 0, b"")
    read = _RowReader(file)
    with path.open(encoding="ascii", newline="\n") as stream:
        _check_header(file, stream)
        for number, line in enumerate(guarded(stream, keep_going), HEADER_LINES + 1):
            if footer or line.startswith("#"):
                _check_comment(file, number, line)
                footer.append(line)
                continue
            key = read(number, line)
            if key <= before:
                raise _bad(file, number, "rows are not in order")
            families[4 if key[1] == IPv4_BYTES else 6].update(line.encode())
            asns += key[0] not in {0, before[0]}
            before, rows = key, rows + 1
    _check_footer(file, footer, rows, asns)


def _check_family(file: FeedFile, path: Path, expected: "_Digest") -> None:
    found, rows, asns = hashlib.sha256(), 0, set[str]()
    footer: list[str] = []
    with path.open(encoding="ascii", newline="\n") as stream:
        _check_header(file, stream)
        for number, line in enumerate(stream, HEADER_LINES + 1):
            if footer or line.startswith("#"):
                _check_comment(file, number, line)
                footer.append(line)
            else:
                found.update(line.encode())
                asns.add(line.split(" ", 1)[0])
                rows += 1
    if found.digest() != expected.digest():
        raise PublishError(f"{file.name}: its rows are not those of this family in the main file")
    _check_footer(file, footer, rows, len(asns - {NOT_KNOWN}))


def _check_header(file: FeedFile, stream: Iterator[str]) -> None:
    for number in range(1, HEADER_LINES + 1):
        _check_comment(file, number, next(stream, ""))


def _check_footer(file: FeedFile, footer: list[str], rows: int, asns: int) -> None:
    if len(footer) != FOOTER_LINES:
        raise PublishError(f"{file.name}: {len(footer)} lines of footer, not {FOOTER_LINES}")
    told = [line.rsplit(maxsplit=1)[-1] for line in footer[2:]]
    if told != [str(asns), str(rows)]:
        raise PublishError(f"{file.name}: tells of {told} ASNs and rows, not of {asns}, {rows}")
    _check_count(file, rows)


class _RowReader:
    """Reads rows that mostly have the ASN and the name of the row before."""

    def __init__(self, file: FeedFile) -> None:
        self._file = file
        self._end = f"{file.frame.feed.name}\n"
        self._origin: tuple[str, str] | None = None
        self._asn = 0

    def __call__(self, number: int, line: str) -> tuple[int, int, bytes]:
        """Give the row's place in the order: ASN, length of the address, address.

        Raises:
            PublishError: not a row of this file.
        """
        fields = line.split("  |  ")
        if len(fields) != 5 or not _TIME.fullmatch(fields[3]) or fields[4] != self._end:
            raise _bad(self._file, number, "not a row of this feed")
        if self._origin != (fields[0], fields[1]):
            self._check_origin(number, fields[0], fields[1])
        text = fields[2].rstrip(" ")
        try:
            packed = pack_address(text)
        except AddressError as exc:
            raise _bad(self._file, number, "not an address") from exc
        if format_address(packed) != text or len(fields[2]) != max(len(text), 15):
            raise _bad(self._file, number, "an address in another spelling")
        return (self._asn, len(packed), packed)

    def _check_origin(self, number: int, asn: str, name: str) -> None:
        number_text, name_text = asn.rstrip(" "), name.rstrip(" ")
        if (len(asn), len(name)) != (11, 30) or not _ASN.fullmatch(number_text):
            raise _bad(self._file, number, "not an ASN and a name, padded to 11 and 30")
        if not _NAME.fullmatch(name_text) or _BAD_NAME.search(name_text):
            raise _bad(self._file, number, "not a name that every consumer can read")
        self._origin = (asn, name)
        self._asn = 0 if number_text == "NA" else int(number_text)


def _check_comment(file: FeedFile, number: int, line: str) -> None:
    if not line.startswith("#") or not line.endswith("\n") or '"' in line or _IPV4.search(line):
        raise _bad(file, number, "not a comment line as it should be")


def _check_csv(file: FeedFile, path: Path) -> None:
    rows = -1
    with path.open(encoding="ascii", newline="") as stream:
        for rows, fields in enumerate(csv.reader(stream, strict=True)):
            if len(fields) != len(csv_format.COLUMNS):
                raise _bad(file, rows + 1, f"{len(fields)} fields")
    _check_count(file, rows)


def _check_ndjson(file: FeedFile, path: Path) -> None:
    rows, closed = 0, False
    decode = msgspec.json.Decoder(dict).decode
    with path.open("rb") as stream:
        for number, line in enumerate(stream, 1):
            try:
                record = decode(line)
            except msgspec.MsgspecError as exc:
                raise _bad(file, number, str(exc)) from exc
            if closed:
                raise _bad(file, number, "something follows the closing record")
            closed = "metadata" in record
            rows += not closed
    if not closed:
        raise PublishError(f"{file.name}: the closing record is missing")
    _check_count(file, rows)


def _check_count(file: FeedFile, rows: int) -> None:
    if rows != file.counts.addresses:
        raise PublishError(f"{file.name}: {rows} rows on disk, {file.counts.addresses} written")


def _bad(file: FeedFile, number: int, what: str) -> PublishError:
    return PublishError(f"{file.name}, line {number}: {what}; the generation is not published")
