"""A RIB is converted to exactly its prefixes, or refused with a reason."""

import bz2
import gzip
import random
from datetime import UTC, datetime
from pathlib import Path

import pytest

from origin_support import mrt
from origin_support.world import broken_ribs, rows, table_text
from smtpfeeds_aggregator.origin.acquire.convert import Converted, read_source, write_table
from smtpfeeds_aggregator.origin.table.text import TableCounts, read_parts
from smtpfeeds_common.errors import OriginError

TABLE = rows()
WHOLE = mrt.dump(TABLE)
#: What is wrong with single records, in a RIB that can be read all the same.
NO_PATH = "without an AS path that gives an origin"
ODD = {
    "empty-aspath": NO_PATH,
    "no-aspath": NO_PATH,
    "aspath-starts-with-set": NO_PATH,
    "all-private-path": NO_PATH,
    "addpath-subtype": "of subtype 8 (RIB_IPV4_UNICAST_ADDPATH), which pyasn does not read",
    "multicast-subtype": "of subtype 3 (RIB_IPV4_MULTICAST), which pyasn does not read",
    "generic-subtype": "of subtype 6 (RIB_GENERIC), which pyasn does not read",
}
#: Short of prefixes, but a RIB: for the checks of the finished table.
SHORT = {"short-but-valid", "peer-index-only"}


def read(tmp_path: Path, content: bytes, max_bytes: int = 1 << 30) -> Converted:
    path = tmp_path / "rib.bz2"
    path.write_bytes(content)
    return read_source(path, max_bytes=max_bytes, progress=lambda _: None)


@pytest.mark.parametrize("pack", [bz2.compress, gzip.compress, bytes])
def test_rib_is_converted_to_exactly_its_prefixes(tmp_path: Path, pack: object) -> None:
    converted = read(tmp_path, pack(WHOLE))  # type: ignore[operator]
    counts = write_table(converted, tmp_path / "out.gz", allow_reserved=False)
    text = "".join(read_parts(tmp_path / "out.gz", TableCounts()))
    lines = {line for line in text.splitlines() if line[0] != ";"}
    assert lines == {f"{prefix}\t{asn}" for prefix, asn in TABLE}
    assert (counts["read4"], counts["read6"], counts["bad_records"]) == (399, 121, 0)
    assert converted.time == datetime.fromtimestamp(mrt.AT, UTC)


def test_same_prefixes_give_the_same_file(tmp_path: Path) -> None:
    backwards = mrt.dump(TABLE[::-1])
    for name, whole in (("a.gz", WHOLE), ("b.gz", backwards)):
        write_table(read(tmp_path, whole), tmp_path / name, allow_reserved=False)
    assert (tmp_path / "a.gz").read_bytes() == (tmp_path / "b.gz").read_bytes()


def test_unusual_valid_records_are_read_like_pyasn(tmp_path: Path) -> None:
    path = mrt.segment
    odd = [
        ("21.0.0.0/16", [path(2, [3356, 64512])], 3356),  # a private origin: the one before it
        ("21.1.0.0/16", [path(2, [3356]) + path(1, [7018, 701])], 701),  # of a set the smallest
        ("21.2.0.0/16", [path(2, [3356] * 255) + path(2, [15169] * 30)], 15169),
        ("21.3.0.0/16", [path(2, [3356, 2]), path(2, [3356, 3])], 2),  # the first entry counts
        ("21.4.0.0/16", [path(2, [3356, 5])], 5),
        ("21.4.0.0/16", [path(2, [3356, 6])], 5),  # the first record of a prefix counts
    ]
    whole = mrt.peer_index() + b"".join(mrt.rib(prefix, paths) for prefix, paths, _ in odd)
    converted = read(tmp_path, whole)
    assert converted.bad == 0
    assert sorted(asn for _, _, asn in converted.ipv4) == sorted([3356, 701, 15169, 2, 5])


def test_unwanted_prefixes_are_left_out_and_counted(tmp_path: Path) -> None:
    bogus = [
        ("0.0.0.0/0", 5), ("::/0", 5), ("10.1.0.0/16", 5), ("198.51.100.0/24", 5),
        ("2001:db8:1::/48", 5), ("fd00::/16", 5), ("16.0.0.0/7", 5), ("16.9.9.128/25", 5),
        ("2400:100::/64", 5), ("224.0.0.0/8", 5), ("2002::/16", 5),
    ]  # fmt: skip
    counts = write_table(
        read(tmp_path, mrt.dump(TABLE + bogus)), tmp_path / "out.gz", allow_reserved=False
    )
    assert counts["left_out"] == {
        "default": 2, "too_short": 1, "too_long": 2, "bogon": 6, "reserved_asn": 0,
    }  # fmt: skip
    assert (counts["prefixes4"], counts["prefixes6"]) == (399, 121)


@pytest.mark.parametrize("kind", sorted(broken_ribs()))
def test_damaged_rib_is_refused_or_its_bad_records_are_counted(tmp_path: Path, kind: str) -> None:
    content = broken_ribs()[kind]
    if kind in ODD:
        converted = read(tmp_path, content)
        assert (converted.bad, converted.records) == (1, len(TABLE))
        assert converted.unreadable == {ODD[kind]: 1}
        assert converted.first_bad == f"record {len(TABLE) + 2}"
    elif kind in SHORT:
        assert len(read(tmp_path, content).ipv4) < 60
    elif kind == "flipped":
        with pytest.raises(OriginError, match=r"damaged|record"):
            read(tmp_path, content)
    else:
        with pytest.raises(OriginError, match=r"rib\.bz2"):
            read(tmp_path, content)


@pytest.mark.parametrize("pack", [bz2.compress, gzip.compress])
def test_compressed_rib_truncated_at_any_byte_is_refused(tmp_path: Path, pack: object) -> None:
    packed = pack(WHOLE)  # type: ignore[operator]
    for cut in sorted({*random.Random(3).sample(range(len(packed)), 120), 0, len(packed) - 1}):
        with pytest.raises(OriginError):
            read(tmp_path, packed[:cut])


def test_plain_rib_truncated_within_any_record_is_refused(tmp_path: Path) -> None:
    small = mrt.dump(TABLE[:3])
    ends, at = set(), 0
    while at < len(small):
        at += 12 + int.from_bytes(small[at + 8 : at + 12])
        ends.add(at)
    for cut in set(range(len(small))) - ends:
        with pytest.raises(OriginError):
            read(tmp_path, small[:cut])


def test_decompression_bomb_and_oversized_record_are_refused(tmp_path: Path) -> None:
    with pytest.raises(OriginError, match="origin_max_unpacked_bytes"):
        read(tmp_path, bz2.compress(WHOLE), max_bytes=1000)
    huge = WHOLE + b"\0\0\0\1\0\x0d\0\2\x7f\xff\xff\xff"
    with pytest.raises(OriginError, match="claims"):
        read(tmp_path, huge)


def test_pyasn_table_is_accepted_instead_of_a_rib(tmp_path: Path) -> None:
    converted = read(tmp_path, table_text(TABLE).encode())
    assert (converted.kind, len(converted.ipv4), len(converted.ipv6)) == ("table", 399, 121)
