"""Read back what was written, before anyone else does.

A generation with one odd row is not published. Nothing here shares code with
the formats beyond the frame's two numbers: what is checked is what a consumer
reads.
"""

import csv
import hashlib
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final

import msgspec

from smtpfeeds_common.addresses import pack_address, sort_key
from smtpfeeds_common.errors import AddressError, PublishError

from .csv_format import COLUMNS
from .files import FeedFile
from .text_format import FOOTER_LINES, HEADER_LINES

_ROW: Final = re.compile(
    r"(NA|[1-9][0-9]{0,9}) *  \|  ([!-~](?:[ -~]{0,28}[!-~])? *)  \|  ([0-9a-f:.]+) *  \|  "
    r"[0-9]{4}-[0-9]{2}-[0-9]{2} [0-9]{2}:[0-9]{2}:[0-9]{2}  \|  ([a-z]+)\n"
)
_BAD_NAME: Final = re.compile(
    r'["#|]|eval\(|,[^,]*,[^,]*,|[0-9]+\.[0-9]+\.[0-9]+\.[0-9]', re.IGNORECASE
)
_IPV4: Final = re.compile(r"[0-9]{1,3}\.[0-9]{1,3}\.[0-9]{1,3}\.[0-9]{1,3}")


def check_file(folder: Path, file: FeedFile) -> str:
    """Give the SHA-256 of a file that is as it should be.

    Raises:
        PublishError: it is not; says in which line.
    """
    path = folder / file.name
    with path.open(encoding="utf-8", newline="\n") as stream:
        if file.name.endswith(".txt"):
            _check_text(file, stream)
        elif file.name.endswith(".csv"):
            _check_csv(file, stream)
        else:
            _check_ndjson(file, stream)
    with path.open("rb") as binary:
        return hashlib.file_digest(binary, "sha256").hexdigest()


def _check_text(file: FeedFile, stream: Iterator[str]) -> None:
    for number in range(1, HEADER_LINES + 1):
        _check_comment(file, number, next(stream, ""))
    rows, asns = 0, 0
    footer: list[str] = []
    before: tuple[int, tuple[int, bytes]] = (-1, (0, b""))
    for number, line in enumerate(stream, HEADER_LINES + 1):
        if line.startswith("#") or footer:
            _check_comment(file, number, line)
            footer.append(line)
            continue
        key = _row_key(file, number, line)
        if key <= before:
            raise _bad(file, number, "rows are not in order")
        asns += key[0] not in {0, before[0]}
        before, rows = key, rows + 1
    if len(footer) != FOOTER_LINES:
        raise PublishError(f"{file.name}: {len(footer)} lines of footer, not {FOOTER_LINES}")
    told = [line.rsplit(maxsplit=1)[-1] for line in footer[2:]]
    if told != [str(asns), str(rows)]:
        raise PublishError(f"{file.name}: tells of {told} ASNs and rows, not of {asns}, {rows}")
    _check_count(file, rows)


def _row_key(file: FeedFile, number: int, line: str) -> tuple[int, tuple[int, bytes]]:
    match = _ROW.fullmatch(line)
    if match is None or _BAD_NAME.search(match[2]) or match[4] != file.frame.feed.name:
        raise _bad(file, number, "not a row of this feed")
    try:
        packed = pack_address(match[3])
    except AddressError as exc:
        raise _bad(file, number, "not an address") from exc
    if file.frame.family not in {None, 4 if len(packed) == 4 else 6}:
        raise _bad(file, number, "an address of the other family")
    return (0 if match[1] == "NA" else int(match[1]), sort_key(packed))


def _check_comment(file: FeedFile, number: int, line: str) -> None:
    if not line.startswith("#") or not line.endswith("\n") or '"' in line or _IPV4.search(line):
        raise _bad(file, number, "not a comment line as it should be")


def _check_csv(file: FeedFile, stream: Iterable[str]) -> None:
    rows = -1
    for rows, fields in enumerate(csv.reader(stream, strict=True)):
        if len(fields) != len(COLUMNS):
            raise _bad(file, rows + 1, f"{len(fields)} fields, not {len(COLUMNS)}")
    _check_count(file, rows)


def _check_ndjson(file: FeedFile, stream: Iterable[str]) -> None:
    rows, closed = 0, False
    decode = msgspec.json.Decoder(dict).decode
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
