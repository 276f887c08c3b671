"""From a RIB (or a pyasn table) to a clean table: read with pyasn's MRT reader, filtered.

Runs in a child process only. pyasn's reader trusts its input: it checks by
`assert`, reads as many bytes as a header says, and takes a cut file's last record
for an exception of its own. So the bytes come to it through `Records`, which
knows the framing of RFC 6396 section 2; what pyasn then makes of one record cannot
hurt the next. As pyasn does, the first entry of a record gives the origin, and the
first record of a prefix counts; of an AS_SET it takes any, here the smallest.
"""

import bz2
import gzip
import io
import re
import socket
import struct
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any, Final

from pyasn.mrtx import MrtRecord

from smtpfeeds_common.errors import OriginError

from ..table import radix
from ..table.compile import Prefix
from ..table.text import read_table
from .bogons import PrefixFilter

#: A RIB record of a collector with 1,000 peers has some 200 kB.
MAX_RECORD_BYTES: Final = 16 << 20
HEADER_BYTES: Final = 12
_TABLE_DUMPS: Final = {12, 13}
_PROGRESS_RECORDS: Final = 50_000
_READ_BYTES: Final = 1 << 20
_TEXT_TABLE: Final = re.compile(rb"[;#]|[0-9A-Fa-f.:]+/[0-9]+\t")
#: What pyasn raises for a record it cannot read: checks, cut fields, bad addresses.
_UNREADABLE: Final = (AssertionError, struct.error, IndexError, KeyError, ValueError, TypeError)

Progress = Callable[[str], None]


@dataclass
class Converted:
    """The prefixes of one source, and what was seen on the way."""

    ipv4: dict[tuple[int, int], int] = field(default_factory=dict)
    ipv6: dict[tuple[int, int], int] = field(default_factory=dict)
    kind: str = "rib"
    time: datetime | None = None
    records: int = 0
    #: Records, or lines of a table, that give no prefix and origin.
    bad: int = 0
    first_bad: str = ""


class Records(io.RawIOBase):
    """Gives pyasn's reader exactly whole records, or says what is wrong with the file."""

    def __init__(self, source: IO[bytes], where: str, max_bytes: int) -> None:
        super().__init__()
        self._source = source
        self._where = where
        self._left = max_bytes
        self._in_header = True
        self._number = 0
        #: Time of the record being read, seconds since 1970 UTC.
        self.timestamp = 0

    def read(self, size: int = -1, /) -> bytes:
        """Read a header or a body: the next `size` octets, or nothing at the end of the file."""
        if size > MAX_RECORD_BYTES:
            raise OriginError(f"{self._at()} claims {size} octets: the file is damaged")
        content = self._fill(size)
        if len(content) < size and (content or not self._in_header):
            raise OriginError(f"{self._at()} is cut short: fetch the file again")
        if self._in_header and content:
            self._number += 1
            self.timestamp, kind = struct.unpack_from(">IH", content)
            if kind not in _TABLE_DUMPS:
                raise OriginError(
                    f"{self._at()} is of MRT type {kind}, not a table dump (12 or 13): "
                    "this is no RIB; updates cannot be used"
                )
        self._in_header = not self._in_header
        return content

    def _fill(self, size: int) -> bytes:
        content = self._source.read(size)
        self._left -= len(content)
        if self._left < 0:
            raise OriginError(
                f"{self._where} unpacks to more than origin_max_unpacked_bytes allows: not used"
            )
        return content

    def _at(self) -> str:
        return f"{self._where}: record {self._number}"


def read_source(path: Path, *, max_bytes: int, progress: Progress) -> Converted:
    """Read a RIB or a pyasn table, plain, bzip2 or gzip by its content.

    Raises:
        OriginError: neither of them, cut, damaged or too large.
    """
    try:
        with path.open("rb") as raw, closing(_unpacked(raw)) as source:
            head = source.peek(64)[:64]
            if _TEXT_TABLE.match(head):
                return _read_table(path)
            _check_head(head, path)
            return _read_rib(source, raw, path, max_bytes, progress)
    except (EOFError, OSError, ValueError) as exc:
        reason = getattr(exc, "strerror", None) or exc
        raise OriginError(
            f"cannot read {path}: {reason}; it is cut or damaged: fetch it again"
        ) from exc


def _unpacked(raw: IO[bytes]) -> io.BufferedReader:
    magic = raw.read(3)
    raw.seek(0)
    if magic == b"BZh":
        return io.BufferedReader(bz2.BZ2File(raw), _READ_BYTES)  # type: ignore[arg-type,unused-ignore]
    if magic[:2] == b"\x1f\x8b":
        return io.BufferedReader(gzip.GzipFile(fileobj=raw), _READ_BYTES)  # type: ignore[arg-type,unused-ignore]
    return io.BufferedReader(raw, _READ_BYTES)  # type: ignore[arg-type,type-var,unused-ignore]


def _check_head(head: bytes, path: Path) -> None:
    if not head:
        raise OriginError(f"{path} is empty: fetch it again")
    if head.lstrip()[:1] == b"<":
        raise OriginError(f"{path} is a page of HTML, not a RIB: check the address it came from")


def _read_table(path: Path) -> Converted:
    checked = read_table(path)
    tree, refused = radix.load_tree(checked.text, str(path))
    ipv4, ipv6 = radix.prefixes(tree)
    changed = datetime.fromtimestamp(path.stat().st_mtime, UTC).replace(microsecond=0)
    return Converted(
        {(start, length): asn for start, length, asn in ipv4},
        {(start, length): asn for start, length, asn in ipv6},
        kind="table",
        time=changed,
        records=checked.lines,
        bad=checked.bad_lines + refused,
        first_bad=f"line {checked.first_bad}" if checked.first_bad else "",
    )


def _read_rib(
    source: IO[bytes], raw: IO[bytes], path: Path, max_bytes: int, progress: Progress
) -> Converted:
    records = Records(source, str(path), max_bytes)
    found, size = Converted(), path.stat().st_size
    while True:
        try:
            record = MrtRecord.next_dump_table_record(records)
            if record is None:
                break
            if record.type == MrtRecord.TYPE_TABLE_DUMP_V2 and (
                record.sub_type == MrtRecord.T2_PEER_INDEX
            ):
                continue
            _take(record, found)
        except _UNREADABLE as exc:
            found.bad += 1
            found.first_bad = found.first_bad or f"record {found.records + found.bad}: {exc!r}"
            continue
        found.records += 1
        if found.time is None:
            found.time = datetime.fromtimestamp(records.timestamp, UTC)
        if found.records % _PROGRESS_RECORDS == 0:
            progress(f"converting: {found.records:,} records, {raw.tell() * 100 // size} %")
    return found


def _take(record: Any, found: Converted) -> None:
    """Note one record's prefix and origin; the first of a prefix counts."""
    text, _, length = record.prefix.partition("/")
    family, table, bits = (
        (socket.AF_INET6, found.ipv6, 128) if ":" in text else (socket.AF_INET, found.ipv4, 32)
    )
    host = bits - int(length)
    if host < 0:
        raise ValueError(f"prefix length {length}")
    key = (int.from_bytes(socket.inet_pton(family, text)) >> host << host, int(length))
    if key not in table:
        origin = record.get_first_origin_as()
        table[key] = min(origin) if isinstance(origin, set) else origin


def write_table(found: Converted, out: Path, *, allow_reserved: bool) -> dict[str, Any]:
    """Filter, and write the table as gzip: the same prefixes make the same bytes.

    Returns:
        The counts for the manifest.
    """
    chosen = PrefixFilter(allow_reserved=allow_reserved)
    kept = {
        bits: sorted(chosen.keep(((s, n, a) for (s, n), a in table.items()), bits))
        for bits, table in ((32, found.ipv4), (128, found.ipv6))
    }
    with out.open("wb") as raw, gzip.GzipFile("", "wb", 6, raw, mtime=0) as stream:
        stream.write(
            b"; IP-ASN32-DAT file\n; Prefixes-v4   : %d\n; Prefixes-v6   : %d\n"
            % (len(kept[32]), len(kept[128]))
        )
        for bits, prefixes in kept.items():
            for at in range(0, len(prefixes), 10_000):
                stream.writelines(_line(prefix, bits) for prefix in prefixes[at : at + 10_000])
    return {
        "kind": found.kind,
        "table_time": found.time.isoformat() if found.time else None,
        "records": found.records,
        "bad_records": found.bad,
        "first_bad": found.first_bad,
        # As pyasn counts: without the default routes.
        "read4": len(found.ipv4) - ((0, 0) in found.ipv4),
        "read6": len(found.ipv6) - ((0, 0) in found.ipv6),
        "left_out": chosen.left_out,
        "prefixes4": len(kept[32]),
        "prefixes6": len(kept[128]),
    }


def _line(prefix: Prefix, bits: int) -> bytes:
    start, length, asn = prefix
    family = socket.AF_INET if bits == 32 else socket.AF_INET6
    return b"%s/%d\t%d\n" % (
        socket.inet_ntop(family, start.to_bytes(bits // 8)).encode(),
        length,
        asn,
    )
