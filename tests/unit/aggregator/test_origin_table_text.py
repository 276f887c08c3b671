"""Bad lines are found before pyasn reads a table, which would accept them or refuse it all."""

import gzip
import random
from io import BytesIO
from pathlib import Path

import pytest

from origin_support.world import rows, table_text
from smtpfeeds_aggregator.origin.table import text as table_module
from smtpfeeds_aggregator.origin.table.prefixes import PrefixTable
from smtpfeeds_aggregator.origin.table.radix import Trees, read_prefixes
from smtpfeeds_aggregator.origin.table.text import TableCounts, checked_parts, read_parts
from smtpfeeds_common.errors import OriginError

GOOD = table_text(rows()).encode()


def check(content: bytes) -> tuple[str, TableCounts]:
    counts = TableCounts()
    return "".join(checked_parts(BytesIO(content), "table", counts)), counts


def load(*parts: str) -> tuple[PrefixTable, PrefixTable, int]:
    trees = Trees("table")
    ipv4, ipv6 = read_prefixes(trees.load(parts), "table")
    return ipv4, ipv6, trees.refused


def asns(table: PrefixTable) -> list[int]:
    return [asn for _, _, asn in table]


def write(tmp_path: Path, content: bytes, name: str = "table.dat") -> Path:
    path = tmp_path / name
    path.write_bytes(content)
    return path


@pytest.mark.parametrize("name", ["table.dat", "table.dat.gz", "gzip-without-its-name"])
def test_gzip_table_is_recognised_by_content(tmp_path: Path, name: str) -> None:
    content = GOOD if name == "table.dat" else gzip.compress(GOOD)
    counts = TableCounts()
    ipv4, ipv6, refused = load(*read_parts(write(tmp_path, content, name), counts))
    assert counts.bad_lines == 0
    assert (len(ipv4), len(ipv6), refused) == (399, 121, 0)


@pytest.mark.parametrize(
    "bad",
    [
        b"no table at all\n",
        b"16.1.0.0/16 5\n",  # a space for the tab
        b"16.1.0.0/16\t5x\n",
        b"16.1.0.0/16\t-5\n",
        b"16.1.0.0/16\t4294967297\n",  # pyasn would take it for AS1
        b"16.1.0.0\t5\n",
        b"16.1.0.0/16\t5\t6\n",
        b"\xff\xfe\n",
        b"x" * 600 + b"\n",  # longer than pyasn's buffer
    ],
)
def test_bad_line_is_left_out_alone(bad: bytes) -> None:
    content = b"16.0.0.0/16\t3333\n" + bad + b"17.0.0.0/16\t3334\n" * 1
    text, counts = check(content)
    assert (counts.bad_lines, counts.first_bad) == (1, 2)
    assert asns(load(text)[0]) == [3333, 3334]


@pytest.mark.parametrize("bad", ["300.0.0.0/8\t4\n", "16.0.0.0/40\t4\n", "1:2:3/32\t4\n"])
def test_line_that_only_pyasn_refuses_is_left_out_alone(bad: str) -> None:
    ipv4, _, refused = load(f"; head\n16.0.0.0/16\t3333\n{bad}17.0.0.0/16\t3334\n", bad)
    assert refused == 2
    assert asns(ipv4) == [3333, 3334]


def test_asns_that_cannot_announce_are_never_an_answer() -> None:
    lines = "16.0.0.0/16\t3333\n" + "".join(
        f"{prefix}\t{asn}\n"
        for prefix, asn in [
            ("17.0.0.0/16", "0"),
            ("18.0.0.0/16", "000"),
            ("19.0.0.0/16", "23456"),
            ("20.0.0.0/16", "65535"),
            ("21.0.0.0/16", "4294967295"),
            ("0.0.0.0/0", "3333"),
            ("::/0", "3333"),
        ]
    )
    text, counts = check(lines.encode())
    assert (counts.bad_lines, counts.no_origin) == (0, 7)
    ipv4, ipv6, _ = load(text)
    assert (asns(ipv4), asns(ipv6)) == ([3333], [])


def test_a_prefix_of_ipv4_mapped_addresses_is_left_out() -> None:
    assert not len(load("16.0.0.0/16\t3333\n::ffff:16.0.0.0/112\t7\n")[1])


def test_last_line_of_a_repeated_prefix_counts_as_in_pyasn() -> None:
    twice = "16.0.0.0/16\t3333\n16.0.0.0/16\t3334\n"
    assert asns(load(twice)[0]) == [3334]
    assert asns(load(*twice.splitlines(keepends=True))[0]) == [3334]


def test_parts_of_a_table_give_the_same_table(monkeypatch: pytest.MonkeyPatch) -> None:
    bad = GOOD.replace(b"\n16.0.0.0/16", b"\nnot a line\n16.0.0.0/16")
    whole, counts = check(bad)
    monkeypatch.setattr(table_module, "_PART_BYTES", 100)
    in_parts = TableCounts()
    parts = list(checked_parts(BytesIO(bad), "table", in_parts))
    assert ("".join(parts), in_parts) == (whole, counts)
    assert len(parts) > 50
    assert [list(table) for table in load(*parts)[:2]] == [list(table) for table in load(whole)[:2]]


def test_line_without_an_end_is_refused_before_it_fills_the_memory() -> None:
    with pytest.raises(OriginError, match="a line has more"):
        check(b"16.0.0.0/16\t3333\n" + b"5" * (9 << 20))


def test_truncated_table_is_refused() -> None:
    """At any byte, also right after a line feed, and within the last ASN."""
    chance = random.Random(5)
    cuts = [*chance.sample(range(len(GOOD)), 300), len(GOOD) - 1, len(GOOD) - 2]
    cuts += [at + 1 for at in range(len(GOOD) - 1) if GOOD[at : at + 1] == b"\n"][3::20]
    for cut in cuts:
        with pytest.raises(OriginError):
            check(GOOD[:cut])


@pytest.mark.parametrize("content", [b"", b"; only\n; comments\n", b"\n\n", b"<html>\n</html>\n"])
def test_table_without_a_prefix_is_refused(content: bytes) -> None:
    with pytest.raises(OriginError, match="table"):
        check(content)


def test_truncated_gzip_folder_and_missing_file_are_named(tmp_path: Path) -> None:
    packed = gzip.compress(GOOD)
    for path in (write(tmp_path, packed[: len(packed) // 2]), tmp_path, tmp_path / "missing"):
        with pytest.raises(OriginError, match=str(path)):
            list(read_parts(path, TableCounts()))


def test_table_with_many_bad_lines_is_refused() -> None:
    with pytest.raises(OriginError, match="line 2"):
        check(b"16.0.0.0/16\t1\nx\ny\nz\n")
