"""pyasn's routeview table as text: read whole, checked before pyasn sees it.

pyasn's loader raises for the whole table at one bad line, takes a file cut in
half without a word, cuts an ASN at the end of the file, and calls an empty file,
a folder or comments alone a table. So the text is checked here first: lines that
are no prefix and origin are left out and counted, what is cut or empty refused.
"""

import gzip
import re
import stat
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from smtpfeeds_common.errors import OriginError

#: A full table is 35 MB of text; ten times that is no table.
MAX_TEXT_BYTES: Final = 400_000_000
#: Of a table's lines this share may be bad: more, and it is something else.
MAX_BAD_SHARE: Final = 0.001
_PIECE_BYTES: Final = 1 << 20
#: 1 to 10 digits below 2**32: pyasn would take a larger number modulo that.
_ASN: Final = (
    rb"(?:[0-9]{1,9}|[1-3][0-9]{9}|4[01][0-9]{8}|42[0-8][0-9]{7}|429[0-3][0-9]{6}|4294[0-8][0-9]{5}"
    rb"|42949[0-5][0-9]{4}|429496[0-6][0-9]{3}|4294967[01][0-9]{2}|42949672[0-8][0-9]|429496729[0-5])"
)
_LINE: Final = rb"[0-9A-Fa-f.:]{2,45}/[0-9]{1,3}\t" + _ASN
_BAD_LINE: Final = re.compile(rb"^(?!(?:%s)?\r?$|[;#])[^\n]*\n?" % _LINE, re.MULTILINE)
#: Never an answer: a default route, and ASNs that can announce nothing (RFC 7607, 6793, 7300).
_NO_ORIGIN: Final = re.compile(
    rb"^[0-9A-Fa-f:][^\t\n]*(?:/0+\t[0-9]+|\t0*(?:0|23456|65535|4294967295))\r?\n", re.MULTILINE
)
_COUNT: Final = re.compile(rb"^; Prefixes-v([46])\s*:\s*(\d+)\s*$", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class TableText:
    """A table's checked text, and what was found in it."""

    text: str
    lines: int
    bad_lines: int
    #: Number of the first bad line, from 1; 0: none.
    first_bad: int
    #: Default routes and ASNs that are never an origin.
    no_origin: int


def read_table(path: Path) -> TableText:
    """Read and check a table, plain or gzip by its content.

    Raises:
        OriginError: not a readable file, cut short, empty, or not a table.
    """
    return check_text(read_whole(path, "origin table"), str(path))


def read_whole(path: Path, what: str) -> bytes:
    """Read a regular file whole, decompressed where it is gzip, within a bound.

    Raises:
        OriginError: no such file, not a file, damaged, or too large.
    """
    try:
        with path.open("rb") as stream:
            if not stat.S_ISREG(path.stat().st_mode):
                raise OriginError(f"the {what} {path} is not a file: name the file itself")
            packed = stream.read(2) == b"\x1f\x8b"
            stream.seek(0)
            source = gzip.GzipFile(fileobj=stream) if packed else stream
            content = source.read(MAX_TEXT_BYTES + 1)
    except (EOFError, zlib.error, gzip.BadGzipFile) as exc:
        raise OriginError(
            f"the {what} {path} is cut short or damaged ({exc}): copy or fetch it again"
        ) from exc
    except OSError as exc:
        raise OriginError(f"cannot read the {what} {path}: {exc.strerror or exc}") from exc
    if len(content) > MAX_TEXT_BYTES:
        raise OriginError(f"the {what} {path} is larger than {MAX_TEXT_BYTES} bytes: not used")
    return content


def check_text(content: bytes, where: str) -> TableText:
    """Check a table's bytes; bad lines are left out, within a bound.

    Raises:
        OriginError: cut short, empty, or not a table.
    """
    if content and not content.endswith(b"\n"):
        raise OriginError(
            f"the origin table {where} ends in the middle of a line: it was cut; "
            "copy or fetch it again (a table that is whole ends with a line feed)"
        )
    lines = content.count(b"\n")
    promised = {int(family): int(count) for family, count in _COUNT.findall(content[:4096])}
    bad = [(found.start(), found.end()) for found in _BAD_LINE.finditer(content) if found[0]]
    first_bad = content.count(b"\n", 0, bad[0][0]) + 1 if bad else 0
    if len(bad) > max(1, lines * MAX_BAD_SHARE):
        raise OriginError(
            f"{where} is not an origin table: {len(bad)} of {lines} lines, the first is line "
            f"{first_bad}, are not `PREFIX<tab>ASN`; check what the file holds"
        )
    kept, no_origin = _NO_ORIGIN.subn(b"", _without(content, bad))
    found = len(re.findall(rb"^[0-9A-Fa-f:]", kept, re.MULTILINE))
    if not found:
        raise OriginError(f"the origin table {where} holds no prefix: check what the file holds")
    expected = sum(promised.values())
    if len(promised) == 2 and found + len(bad) + no_origin < expected:
        raise OriginError(
            f"the origin table {where} was cut: its header promises {expected} prefixes, "
            f"{found} are there; copy or fetch it again"
        )
    return TableText(kept.decode("ascii"), lines, len(bad), first_bad, no_origin)


def _without(content: bytes, spans: list[tuple[int, int]]) -> bytes:
    kept, at = [], 0
    for start, end in spans:
        kept.append(content[at:start])
        at = end
    return b"".join([*kept, content[at:]])
