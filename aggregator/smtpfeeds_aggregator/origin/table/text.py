"""Reads pyasn's routeview table as text, in parts, and checks it before pyasn reads it.

pyasn's loader rejects the whole table for one bad line. It accepts a truncated file
silently, even within an ASN, and accepts an empty file, a folder or a file of comments.
This module checks the text first: it leaves out and counts lines without a prefix and
origin, and refuses a truncated or empty file.
"""

import gzip
import re
import stat
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Final, cast

from smtpfeeds_common.errors import OriginError

#: A full table has 35 MB of text; a file of ten times that is not a table.
MAX_TEXT_BYTES: Final = 400_000_000
#: Share of lines that may be bad; with more, the file is not a table.
MAX_BAD_SHARE: Final = 0.001
#: Size of the parts that are checked and loaded into pyasn: about 200,000 prefixes.
_PART_BYTES: Final = 4 << 20
_MAX_LINE_BYTES: Final = 1 << 16
#: 1 to 10 digits below 2**32; pyasn would reduce a larger number modulo 2**32.
_ASN: Final = (
    rb"(?:[0-9]{1,9}|[1-3][0-9]{9}|4[01][0-9]{8}|42[0-8][0-9]{7}|429[0-3][0-9]{6}|4294[0-8][0-9]{5}"
    rb"|42949[0-5][0-9]{4}|429496[0-6][0-9]{3}|4294967[01][0-9]{2}|42949672[0-8][0-9]|429496729[0-5])"
)
_LINE: Final = rb"[0-9A-Fa-f.:]{2,45}/[0-9]{1,3}\t" + _ASN
_BAD_LINE: Final = re.compile(rb"^(?!(?:%s)?\r?$|[;#])[^\n]*\n?" % _LINE, re.MULTILINE)
#: Never an origin: default routes, and ASNs that may not announce (RFC 7607, 6793, 7300).
_NO_ORIGIN: Final = re.compile(
    rb"^[0-9A-Fa-f:][^\t\n]*(?:/0+\t[0-9]+|\t0*(?:0|23456|65535|4294967295))\r?\n", re.MULTILINE
)
_PREFIX_LINE: Final = re.compile(rb"^[0-9A-Fa-f:]", re.MULTILINE)
_COUNT: Final = re.compile(rb"^; Prefixes-v([46])\s*:\s*(\d+)\s*$", re.MULTILINE)


@dataclass(slots=True)
class TableCounts:
    """Counts of a table's text; complete once all parts are read."""

    lines: int = 0
    bad_lines: int = 0
    #: Number of the first bad line, from 1; 0 if there is none.
    first_bad: int = 0
    #: Default routes and ASNs that are never an origin.
    no_origin: int = 0
    prefixes: int = 0


def read_parts(path: Path, counts: TableCounts) -> Iterator[str]:
    """Yield a table's checked lines in parts; the content tells plain or gzip.

    Raises:
        OriginError: the file is unreadable, truncated, empty or not a table; raised at the end
            at the latest.
    """
    with _opened(path, "origin table") as stream:
        yield from checked_parts(stream, str(path), counts)


def read_whole(path: Path, noun: str) -> bytes:
    """Read a whole regular file within a bound, and decompress gzip.

    Raises:
        OriginError: the file is missing, not a regular file, damaged or too large.
    """
    with _opened(path, noun) as stream:
        content = stream.read(MAX_TEXT_BYTES + 1)
    if len(content) > MAX_TEXT_BYTES:
        raise OriginError(f"the {noun} {path} is larger than {MAX_TEXT_BYTES} bytes: not used")
    return content


@contextmanager
def _opened(path: Path, noun: str) -> Iterator[IO[bytes]]:
    try:
        with path.open("rb") as stream:
            if not stat.S_ISREG(path.stat().st_mode):
                raise OriginError(f"the {noun} {path} is not a file: give the file itself")
            packed = stream.read(2) == b"\x1f\x8b"
            stream.seek(0)
            yield cast("IO[bytes]", gzip.GzipFile(fileobj=stream)) if packed else stream
    except (EOFError, zlib.error, gzip.BadGzipFile) as exc:
        raise OriginError(
            f"the {noun} {path} is truncated or damaged ({exc}): copy or fetch it again"
        ) from exc
    except OSError as exc:
        raise OriginError(f"cannot read the {noun} {path}: {exc.strerror or exc}") from exc


def checked_parts(stream: IO[bytes], where: str, counts: TableCounts) -> Iterator[str]:
    """Yield the good lines of a table in parts; leave out and count bad ones, up to a bound.

    Raises:
        OriginError: the text is truncated, empty or not a table; raised at the end at the latest.
    """
    promised: dict[int, int] | None = None
    size = 0
    for part in _whole_lines(stream, where):
        size += len(part)
        if size > MAX_TEXT_BYTES:
            raise OriginError(
                f"the origin table {where} is larger than {MAX_TEXT_BYTES} bytes: not used"
            )
        if promised is None:
            promised = {int(family): int(count) for family, count in _COUNT.findall(part[:4096])}
        yield _check(part, counts).decode("ascii")
    if counts.bad_lines > max(1, counts.lines * MAX_BAD_SHARE):
        raise OriginError(
            f"{where} is not an origin table: {counts.bad_lines} of {counts.lines} lines, the "
            f"first is line {counts.first_bad}, are not `PREFIX<tab>ASN`; check the content of "
            f"the file"
        )
    if not counts.prefixes:
        raise OriginError(f"the origin table {where} has no prefix: check the content of the file")
    expected = sum((promised or {}).values())
    counted = counts.prefixes + counts.bad_lines + counts.no_origin
    if len(promised or {}) == 2 and counted < expected:
        raise OriginError(
            f"the origin table {where} is truncated: its header says {expected} prefixes, it has "
            f"{counts.prefixes}; copy or fetch it again"
        )


def _whole_lines(stream: IO[bytes], where: str) -> Iterator[bytes]:
    """Yield parts that end with a line feed."""
    rest = b""
    while piece := stream.read(_PART_BYTES):
        whole, feed, rest = (rest + piece).rpartition(b"\n")
        if len(rest) > _MAX_LINE_BYTES:
            raise OriginError(
                f"{where} is not an origin table: a line has more than {_MAX_LINE_BYTES} bytes"
            )
        if feed:
            yield whole + feed
    if rest:
        raise OriginError(
            f"the origin table {where} ends in the middle of a line: it is truncated; "
            "copy or fetch it again (a complete table ends with a line feed)"
        )


def _check(part: bytes, counts: TableCounts) -> bytes:
    """Return a part without bad lines and without lines that give no origin."""
    bad = [match.span() for match in _BAD_LINE.finditer(part) if match[0]]
    if bad and not counts.first_bad:
        counts.first_bad = counts.lines + part.count(b"\n", 0, bad[0][0]) + 1
    counts.lines += part.count(b"\n")
    counts.bad_lines += len(bad)
    kept, no_origin = _NO_ORIGIN.subn(b"", _without(part, bad) if bad else part)
    counts.no_origin += no_origin
    counts.prefixes += len(_PREFIX_LINE.findall(kept))
    return kept


def _without(content: bytes, spans: list[tuple[int, int]]) -> bytes:
    kept, at = [], 0
    for start, end in spans:
        kept.append(content[at:start])
        at = end
    return b"".join([*kept, content[at:]])
