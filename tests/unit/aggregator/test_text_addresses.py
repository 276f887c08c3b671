"""Addresses in lines of text: the rule, and that the fast path agrees with it."""

from __future__ import annotations

import ipaddress

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from smtpfeeds_aggregator.query.address_set import AddressSet
from smtpfeeds_aggregator.query.line_matches import LineMatches
from smtpfeeds_aggregator.query.text_addresses import TextMatcher, addresses_in
from smtpfeeds_common.addresses import format_address, pack_address

V4, V6 = "192.0.2.1", "2001:db8::1"


def occur_in(text: str) -> list[str]:
    return [format_address(match.packed) for match in addresses_in(text.encode())]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (V4, [V4]),
        (f"unknown[{V4}]", [V4]),
        (f"face[{V4}]:25", [V4]),
        (f"{V4}:25", [V4]),
        (f"{V4}/24", [V4]),
        (f"from {V4}.", [V4]),
        (f"from {V4}: lost", [V4]),
        (f"rip={V4}, lip=198.51.100.7", [V4, "198.51.100.7"]),
        (f"({V4})", [V4]),
        (f'"{V4}"', [V4]),
        (f"host:{V4}", [V4]),
        (f"21:03:05:{V4}", [V4]),
        (f"{V4}-198.51.100.7", [V4, "198.51.100.7"]),
        ("192[.]0[.]2[.]1", [V4]),
        ("192.0.2[.]1", [V4]),
        ("192(.)0(.)2(.)1", [V4]),
        (f"[IPv6:{V6}]", [V6]),
        (f"ipv6:{V6}", [V6]),
        (f"[{V6}]:25", [V6]),
        (f"{V6}.", [V6]),
        (f"{V6}: lost", [V6]),
        ("2001:DB8:0:0::1", [V6]),
        ("2001:db8:0:0:0:0:0:1", [V6]),
        ("2001[:]db8[:][:]1", [V6]),
        ("fe80::1%eth0 up", ["fe80::1"]),
        (f"::ffff:{V4}", [V4]),
        (f"::FFFF:{V4}]", [V4]),
        ("::1", ["::1"]),
        # None of these holds an address.
        ("1.2.3.4.5", []),
        ("1.2.3.4.example.org", []),
        ("1[.]2[.]3[.]4[.]example", []),
        ("example.1.2.3.4", []),
        ("v1.2.3.4", []),
        ("1.2.3.4b", []),
        ("1.2.3.4-static.example", []),
        ("1.2.3.256", []),
        ("01.2.3.4", []),
        ("1.2.3", []),
        ("21:03:05", []),
        ("2026-11-25T21:03:05.123+00:00", []),
        ("00:11:22:33:44:55", []),
        ("a::b::c", []),
        ("std::vector", []),
        ("2001:db8::1g", []),
        ("", []),
    ],
)
def test_addresses_in_text_follow_the_rule(text: str, expected: list[str]) -> None:
    assert occur_in(text) == expected
    assert occur_in(f"before {text} behind") == expected


def matcher(*addresses: str, bits: int = 128) -> TextMatcher:
    return TextMatcher(AddressSet.of(map(pack_address, addresses)), ipv6_prefix_bits=bits)


def test_only_addresses_of_the_set_match() -> None:
    text = f"a {V4} b 198.51.100.7 c {V6} d 2001:db8::2\n".encode()
    matches = matcher("198.51.100.7", "2001:db8::2").search(text)
    assert [text[match.start : match.end].decode() for match in matches] == [
        "198.51.100.7",
        "2001:db8::2",
    ]


def test_an_ipv6_client_matches_by_its_prefix() -> None:
    rotating = matcher("2001:db8:1:2::a", bits=64)
    assert len(rotating.search(b"x 2001:db8:1:2:ffff::1\n2001:db8:1:3::1\n")) == 1
    assert rotating.lookup(pack_address("2001:db8:1:2::b")) == pack_address("2001:db8:1:2::a")


def test_a_prefix_of_four_octets_is_not_an_ipv4_address() -> None:
    assert matcher("2001:db8::1", bits=32).search(b"32.1.13.184\n") == []


def test_matches_are_grouped_by_line() -> None:
    text = f"{V4} {V4}\nnothing\n{V6}\nlast {V4}".encode()
    matches = LineMatches(text, matcher(V4, V6), 100)
    assert matches.lines.tolist() == [0, 2, 3]
    v4, v6 = pack_address(V4), pack_address(V6)
    assert list(matches.pairs()) == [(0, v4), (2, v6), (3, v4)]
    assert [text[begin:end] for begin, end in matches.runs(matches.lines)] == [
        f"{V4} {V4}\n".encode(),
        f"{V6}\nlast {V4}".encode(),
    ]
    assert matches.other_lines().tolist() == [1]


@pytest.mark.parametrize("octet", [0, 1, 2, 3])
def test_another_character_is_not_read_as_a_digit(octet: int) -> None:
    """By its distance from "0" a letter would be a number, such as 72 for x."""
    for code in {*range(0x20, 0x7F), 0x80, 0xFF} - set(b"0123456789"):
        parts, known = [b"9"] * 4, [9] * 4
        parts[octet], known[octet] = bytes([code]), (code - ord("0")) % 256
        text = b" " + b".".join(parts) + b" "
        quad = ".".join(map(str, known))
        assert matcher(quad).search(text) == [], (text, quad)


AROUND = [*"[]():.,%=-/ag \n\t\r<>\"';|\\n0", "21:03:05", "::", "IPv6:"]
NUMBERS = ["0", "1", "2", "9", "10", "99", "100", "192", "255", "256"]
QUADS = st.lists(
    st.sampled_from(NUMBERS),
    min_size=2,
    max_size=6,
)
PIECES = st.one_of(
    QUADS.map(".".join),
    QUADS.map("[.]".join),
    st.ip_addresses(v=4, network="192.0.2.0/28").map(str),
    st.ip_addresses(v=6, network="2001:db8::/124").map(str),
    st.ip_addresses(v=6, network="2001:db8::/124").map(lambda ip: ip.exploded),
    st.ip_addresses(v=6, network="2001:db8::/124").map(lambda ip: str(ip).upper()),
    st.ip_addresses(v=4, network="192.0.2.0/28").map(lambda ip: f"::ffff:{ip}"),
    st.sampled_from(AROUND),
)
TEXTS = st.lists(PIECES, max_size=12).map("".join)
SET = [ipaddress.ip_address("192.0.2.0") + n for n in range(0, 16, 2)]
SET += [ipaddress.ip_address("2001:db8::") + n for n in range(0, 16, 2)]
HALF = TextMatcher(AddressSet.of(address.packed for address in SET))


@given(TEXTS)
@example("1.2.3.4" * 40)
@example("192.0.2.2")
@example("2001:db8::%192.0.2.0")
@example("::ffff:192.0.2.2")
@example("0" * 200 + ".192.0.2.2")
@example("2001:db8::%-192.0.2.0 2001:db8::%br-192.0.2.0")
@example("[192.0.2.258]")
@example("(192.00.2.2)")
@example(" 448.0.2.2 ")
def test_fast_path_agrees_with_the_exact_rule(text: str) -> None:
    lines = text.encode().split(b"\n")
    expected = [
        [match.packed for match in addresses_in(line) if HALF.lookup(match.packed)]
        for line in lines
    ]
    block = b"\n".join(lines)
    by_line: dict[int, list[bytes]] = {}
    for match in HALF.search(block):
        by_line.setdefault(block.count(b"\n", 0, match.start), []).append(match.packed)
    assert [by_line.get(number, []) for number in range(len(lines))] == expected
