"""Converts a RIB (read by pyasn's MRT reader) or a pyasn table to a filtered table.

Runs in a child process only. pyasn's reader trusts its input: it checks by
`assert`, reads as many bytes as a header claims, and fails on the last record of a
truncated file with an unrelated exception. So it reads through `Records`, which checks
the framing of RFC 6396 section 2, and an error in one record cannot affect the next.
As in pyasn, the first entry of a record gives the origin, and the first record of a
prefix counts. pyasn takes any member of an AS_SET; this module takes the smallest.
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
from functools import partial
from itertools import islice
from pathlib import Path
from typing import IO, Any, Final

from pyasn.mrtx import MrtRecord

from smtpfeeds_common.errors import OriginError

from ..table.prefixes import Prefix, PrefixTable
from ..table.radix import Trees, read_prefixes
from ..table.text import TableCounts, read_parts
from .bogons import PrefixFilter

#: A RIB record of a collector with 1,000 peers has about 200 kB.
MAX_RECORD_BYTES: Final = 16 << 20
_TABLE_DUMPS: Final = {12, 13}
#: Subtypes of TABLE_DUMP_V2 (RFC 6396 section 4.3, RFC 8050 section 4).
_READ_SUBTYPES: Final = {1, 2, 4}
_SUBTYPE_NAMES: Final = {
    3: "RIB_IPV4_MULTICAST", 5: "RIB_IPV6_MULTICAST", 6: "RIB_GENERIC",
    8: "RIB_IPV4_UNICAST_ADDPATH", 9: "RIB_IPV4_MULTICAST_ADDPATH",
    10: "RIB_IPV6_UNICAST_ADDPATH", 11: "RIB_IPV6_MULTICAST_ADDPATH", 12: "RIB_GENERIC_ADDPATH",
}  # fmt: skip
_PROGRESS_RECORDS: Final = 50_000
_READ_BYTES: Final = 1 << 20
_LINES_AT_ONCE: Final = 10_000
_TEXT_TABLE: Final = re.compile(rb"[;#]|[0-9A-Fa-f.:]+/[0-9]+\t")
#: What pyasn raises for a record it cannot read: failed checks, truncated fields, bad addresses.
_UNREADABLE: Final = (AssertionError, struct.error, IndexError, KeyError, ValueError, TypeError)

Progress = Callable[[str], None]


@dataclass
class Converted:
    """The prefixes of one source, and what could not be read."""

    ipv4: PrefixTable = field(default_factory=lambda: PrefixTable(32))
    ipv6: PrefixTable = field(default_factory=lambda: PrefixTable(128))
    kind: str = "rib"
    time: datetime | None = None
    records: int = 0
    #: Number of records, or lines of a table, without a prefix and origin, by reason.
    unreadable: dict[str, int] = field(default_factory=dict)
    first_bad: str = ""

    @property
    def bad(self) -> int:
        """Number of records, or lines of a table, without a prefix and origin."""
        return sum(self.unreadable.values())


class Records(io.RawIOBase):
    """Gives pyasn's reader complete records only, or raises what is wrong with the file."""

    def __init__(self, source: IO[bytes], where: str, max_bytes: int) -> None:
        super().__init__()
        self._source = source
        self._where = where
        self._left = max_bytes
        self._in_header = True
        self.number = 0
        #: Unix time, MRT type and subtype of the record that is being read.
        self.timestamp = self.kind = self.subtype = 0

    def read(self, size: int = -1, /) -> bytes:
        """Read a header or a body: the next `size` octets; empty at the end of the file."""
        if size > MAX_RECORD_BYTES:
            raise OriginError(f"{self._at()} claims {size} octets: the file is damaged")
        content = self._fill(size)
        if len(content) < size and (content or not self._in_header):
            raise OriginError(f"{self._at()} is truncated: fetch the file again")
        if self._in_header and content:
            self.number += 1
            self.timestamp, self.kind, self.subtype = struct.unpack_from(">IHH", content)
            if self.kind not in _TABLE_DUMPS:
                raise OriginError(
                    f"{self._at()} is of MRT type {self.kind}, not a table dump (12 or 13): "
                    "this is not a RIB; updates cannot be used"
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
        return f"{self._where}: record {self.number}"


def read_source(path: Path, *, max_bytes: int, progress: Progress) -> Converted:
    """Read a RIB or a pyasn table; the content tells which, and plain, bzip2 or gzip.

    Raises:
        OriginError: it is neither, truncated, damaged or too large.
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
            f"cannot read {path}: {reason}; it is truncated or damaged: fetch it again"
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
        raise OriginError(f"{path} is a page of HTML, not a RIB: check its URL")


def _read_table(path: Path) -> Converted:
    counts, trees = TableCounts(), Trees(str(path))
    ipv4, ipv6 = read_prefixes(trees.load(read_parts(path, counts)), str(path))
    changed = datetime.fromtimestamp(path.stat().st_mtime, UTC).replace(microsecond=0)
    return Converted(
        ipv4,
        ipv6,
        kind="table",
        time=changed,
        records=counts.lines,
        unreadable=_counted(
            {"no `PREFIX<tab>ASN`": counts.bad_lines, "refused by pyasn": trees.refused}
        ),
        first_bad=f"line {counts.first_bad}" if counts.first_bad else "",
    )


def _read_rib(
    source: IO[bytes], raw: IO[bytes], path: Path, max_bytes: int, progress: Progress
) -> Converted:
    records = Records(source, str(path), max_bytes)
    converted, size = Converted(), path.stat().st_size
    while True:
        record = None
        try:
            record = MrtRecord.next_dump_table_record(records)
            if record is None:
                break
            if record.type == MrtRecord.TYPE_TABLE_DUMP_V2 and (
                record.sub_type == MrtRecord.T2_PEER_INDEX
            ):
                continue
            _take(record, converted)
        except _UNREADABLE as exc:
            reason = _reason(records, record, exc)
            converted.unreadable[reason] = converted.unreadable.get(reason, 0) + 1
            converted.first_bad = converted.first_bad or f"record {records.number}"
            continue
        converted.records += 1
        if converted.time is None:
            converted.time = datetime.fromtimestamp(records.timestamp, UTC)
        if converted.records % _PROGRESS_RECORDS == 0:
            progress(f"converting: {converted.records:,} records, {raw.tell() * 100 // size} %")
    return converted


def _reason(records: Records, record: Any, exc: Exception) -> str:
    """Return why pyasn's reader gives no prefix and origin for a record; one of a few texts."""
    if record is None:
        if records.kind == MrtRecord.TYPE_TABLE_DUMP_V2 and records.subtype not in _READ_SUBTYPES:
            name = _SUBTYPE_NAMES.get(records.subtype, "unknown")
            return f"of subtype {records.subtype} ({name}), which pyasn does not read"
        return f"damaged ({type(exc).__name__})"
    if isinstance(exc, AssertionError | IndexError):
        return "without an AS path that gives an origin"
    return f"with damaged attributes ({type(exc).__name__})"


def _counted(reasons: dict[str, int]) -> dict[str, int]:
    return {reason: count for reason, count in reasons.items() if count}


def _take(record: Any, converted: Converted) -> None:
    """Add a record's prefix and origin; the first record of a prefix counts."""
    text, _, length = record.prefix.partition("/")
    family, table, bits = (
        (socket.AF_INET6, converted.ipv6, 128)
        if ":" in text
        else (socket.AF_INET, converted.ipv4, 32)
    )
    host = bits - int(length)
    if host < 0:
        raise ValueError(f"prefix length {length}")
    start, bits_set = int.from_bytes(socket.inet_pton(family, text)) >> host << host, int(length)
    if not table.has(start, bits_set):
        origin = record.get_first_origin_as()
        table.put(start, bits_set, min(origin) if isinstance(origin, set) else origin)


def write_table(converted: Converted, out: Path, *, allow_reserved: bool) -> dict[str, Any]:
    """Filter the table and write it as gzip; equal prefixes give equal bytes.

    Returns:
        The counts for the manifest.
    """
    # Without the default routes, as pyasn counts.
    read4, read6 = (len(table) - table.has(0, 0) for table in (converted.ipv4, converted.ipv6))
    chosen = PrefixFilter(allow_reserved=allow_reserved)
    for table in (converted.ipv4, converted.ipv6):
        table.retain(partial(chosen.wants, bits=table.bits))
    with out.open("wb") as raw, gzip.GzipFile("", "wb", 6, raw, mtime=0) as stream:
        stream.write(
            b"; IP-ASN32-DAT file\n; Prefixes-v4   : %d\n; Prefixes-v6   : %d\n"
            % (len(converted.ipv4), len(converted.ipv6))
        )
        for table in (converted.ipv4, converted.ipv6):
            lines = (_line(prefix, table.bits) for prefix in table)
            while block := b"".join(islice(lines, _LINES_AT_ONCE)):
                stream.write(block)
    return {
        "kind": converted.kind,
        "table_time": converted.time.isoformat() if converted.time else None,
        "records": converted.records,
        "bad_records": converted.bad,
        "unreadable": converted.unreadable,
        "first_bad": converted.first_bad,
        "read4": read4,
        "read6": read6,
        "left_out": chosen.left_out,
        "prefixes4": len(converted.ipv4),
        "prefixes6": len(converted.ipv6),
    }


def _line(prefix: Prefix, bits: int) -> bytes:
    start, length, asn = prefix
    family = socket.AF_INET if bits == 32 else socket.AF_INET6
    return b"%s/%d\t%d\n" % (
        socket.inet_ntop(family, start.to_bytes(bits // 8)).encode(),
        length,
        asn,
    )
