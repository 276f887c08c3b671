"""The compiled index answers with the origin of the most specific prefix."""

import tempfile
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from smtpfeeds_aggregator.origin.child import comparison_sample
from smtpfeeds_aggregator.origin.table.columns import lookup_columns
from smtpfeeds_aggregator.origin.table.compile import compile_sections
from smtpfeeds_aggregator.origin.table.index import PAGE, OriginIndex, write_index
from smtpfeeds_aggregator.origin.table.radix import Trees, disagreements, read_prefixes
from smtpfeeds_common.errors import OriginError

FACTS = {"split4": True}
ASNS = st.integers(1, 4294967294)


def build(
    ipv4: dict[tuple[int, int], int],
    ipv6: dict[tuple[int, int], int],
    names: dict[int, str] | None = None,
    direct_from: int = 0,
) -> OriginIndex:
    sections, split = compile_sections(
        sorted((s, n, a) for (s, n), a in ipv4.items()),
        sorted((s, n, a) for (s, n), a in ipv6.items()),
        names or {},
        direct_from=direct_from,
    )
    with tempfile.TemporaryFile() as out:
        write_index(out, sections, {"split4": split})
        return OriginIndex(out.fileno(), name="test")


def prefixes(bits: int, low: int, high: int) -> st.SearchStrategy[dict[tuple[int, int], int]]:
    """Prefixes in a few places, so that they are nested, adjacent, and at the ends of the space."""

    def masked(number: int, length: int) -> tuple[int, int]:
        host = bits - length
        return number >> host << host, length

    near = st.one_of(
        st.integers(0, 2**bits - 1),
        st.sampled_from([0, 2**bits - 1, 1 << (bits - 1)]),
        st.integers(0x1001 << (bits - 16), (0x1001 << (bits - 16)) + 2 ** (bits // 2 + 2)),
    )
    keys = st.builds(masked, near, st.integers(low, high))
    return st.dictionaries(keys, ASNS, max_size=14)


def expected(table: dict[tuple[int, int], int], number: int, bits: int) -> tuple[int, int] | None:
    holding = [
        (length, asn)
        for (start, length), asn in table.items()
        if number >> (bits - length) == start >> (bits - length)
    ]
    return max(holding, default=None)


def edges(table: dict[tuple[int, int], int], bits: int) -> list[int]:
    numbers = {0, 2**bits - 1}
    for start, length in table:
        end = start + (1 << (bits - length))
        numbers |= {start - 1, start, end - 1, end}
    return sorted(n for n in numbers if 0 <= n < 2**bits and n >> 32 != 0xFFFF)


@settings(max_examples=10, deadline=None)
@given(ipv4=prefixes(32, 1, 32), ipv6=prefixes(128, 1, 128), direct_from=st.sampled_from([0, 1000]))
def test_every_edge_of_every_prefix_has_the_most_specific_origin(
    ipv4: dict[tuple[int, int], int], ipv6: dict[tuple[int, int], int], direct_from: int
) -> None:
    """The test runs with the direct table and, like small tables, without it."""
    index = build(ipv4, ipv6, direct_from=direct_from)
    asked: list[bytes] = []
    answers: list[int | None] = []
    for table, bits in ((ipv4, 32), (ipv6, 128)):
        for number in edges(table, bits):
            packed = number.to_bytes(bits // 8)
            most = expected(table, number, bits)
            asked.append(packed)
            answers.append(most[1] if most else None)
            match = index.find(packed)
            if most is None:
                assert match is None
            else:
                kind = IPv4Network if bits == 32 else IPv6Network
                network = kind((number >> (bits - most[0]) << (bits - most[0]), most[0]))
                assert match is not None
                assert (match[0], kind(match[1])) == (most[1], network)
    assert index.lookup_many(asked) == answers
    assert of_columns(index, asked) == [
        *(answer for packed, answer in zip(asked, answers, strict=True) if len(packed) == 4),
        *(answer for packed, answer in zip(asked, answers, strict=True) if len(packed) == 16),
    ]


def of_columns(index: OriginIndex, addresses: list[bytes]) -> list[int | None]:
    """As `lookup_many`, but IPv4 comes first, and all are looked up as columns."""
    four, six = ([int.from_bytes(a) for a in addresses if len(a) == size] for size in (4, 16))
    origins = lookup_columns(
        index,
        np.array(four, np.uint32),
        np.array([number >> 64 for number in six], np.uint64),
        np.array([number & 2**64 - 1 for number in six], np.uint64),
    )
    return [asn or None for asn in origins.tolist()]


def test_index_agrees_with_pyasn() -> None:
    lines = ["16.0.0.0/8\t5", "16.0.1.0/25\t6", "16.0.1.64/26\t7", "255.255.255.0/24\t8"]
    lines += ["2400::/12\t9", "2400:1::/32\t10", "2400:1::8000:0:0:0/65\t11", "2400:1::1/128\t12"]
    trees = [*Trees("test").load(f"{line}\n" for line in lines)]
    ipv4, ipv6 = read_prefixes(trees, "test")
    sections, split = compile_sections(ipv4, ipv6, {}, direct_from=0)
    with tempfile.TemporaryFile() as out:
        write_index(out, sections, {"split4": split})
        index = OriginIndex(out.fileno(), name="test")
    sample = list(comparison_sample(ipv4, ipv6, 2000))
    assert list(disagreements(trees, index, sample)) == []
    whole = [*Trees("test").load(["\n".join(lines) + "\n"])]
    assert list(disagreements(whole, index, sample)) == []
    assert list(disagreements(trees[:-1], index, sample)) != []


def test_ipv4_mapped_address_has_the_origin_of_its_ipv4_address() -> None:
    index = build({(0x10000000, 8): 5}, {(0, 8): 6})
    mapped = IPv6Address("::ffff:16.1.2.3").packed
    assert index.lookup_many([mapped, IPv6Address("::1").packed]) == [5, 6]
    assert of_columns(index, [mapped, IPv6Address("::1").packed]) == [5, 6]
    assert index.find(mapped) == (5, "16.0.0.0/8")


def test_answers_keep_the_order_of_mixed_addresses() -> None:
    index = build({(0x10000000, 8): 5}, {(0x2400 << 112, 16): 6})
    v4, v6, none = (
        IPv4Address("16.1.1.1").packed,
        IPv6Address("2400::1").packed,
        IPv4Address("9.9.9.9").packed,
    )
    assert index.lookup_many([v6, v4, none, v6, v4]) == [6, 5, None, 6, 5]
    assert index.lookup_many([]) == []
    with pytest.raises(ValueError, match="4 or 16"):
        index.lookup_many([v4, b"abc"])


def test_names_are_found_by_number() -> None:
    index = build({}, {}, {5: "Five", 7: "Seven", 4294967294: "Last"})
    assert [index.name(asn) for asn in (4, 5, 6, 7, 4294967294, 4294967295)] == [
        None, "Five", None, "Seven", "Last", None,
    ]  # fmt: skip


def test_truncated_or_foreign_index_is_refused(tmp_path: Path) -> None:
    sections, _ = compile_sections([(0x10000000, 8, 5)], [], {})
    path = tmp_path / "index"
    with path.open("w+b") as out:
        write_index(out, sections, FACTS)
    whole = path.read_bytes()
    for broken in (b"", whole[:PAGE], whole[:-PAGE], b"x" + whole[1:], whole[:40] + b"{" * 4056):
        path.write_bytes(broken)
        with path.open("rb") as stream, pytest.raises(OriginError):
            OriginIndex(stream.fileno(), name="cut")


def test_prefix_longer_than_an_address_is_refused(tmp_path: Path) -> None:
    """An index may be read without a check of its SHA-256."""
    sections, _ = compile_sections([(0x10000000, 8, 5)], [(0x2001 << 112, 16, 6)], {})
    sections = dict(sections)
    for name in ("length4", "length6"):
        sections[name] = bytes([200] * len(memoryview(sections[name])))
    with (tmp_path / "index").open("w+b") as out:
        write_index(out, sections, FACTS)
        index = OriginIndex(out.fileno(), name="damaged")
    for packed in (bytes([16, 0, 0, 1]), bytes([0x20, 1] + [0] * 14)):
        with pytest.raises(OriginError, match="is damaged"):
            index.find(packed)


def test_index_of_a_killed_writer_is_refused(tmp_path: Path) -> None:
    """The header is written last."""
    sections, _ = compile_sections([(0x10000000, 8, 5)], [], {})

    class Dies:
        def __init__(self, out: object) -> None:
            self._out = out

        def __getattr__(self, name: str) -> object:
            return getattr(self._out, name)

        def seek(self, at: int) -> None:
            if at == 0:
                raise KeyboardInterrupt
            self._out.seek(at)  # type: ignore[attr-defined]

    with (tmp_path / "index").open("w+b") as out:
        with pytest.raises(KeyboardInterrupt):
            write_index(Dies(out), sections, FACTS)
        out.flush()
        with pytest.raises(OriginError):
            OriginIndex(out.fileno(), name="dead")
