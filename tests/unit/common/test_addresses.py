"""Addresses: many text forms are accepted, one is written."""

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from smtpfeeds_common.addresses import (
    format_address,
    normalise_address,
    pack_address,
    parse_network,
    sort_key,
)
from smtpfeeds_common.errors import AddressError


@pytest.mark.parametrize(
    ("spelling", "written"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("::ffff:192.0.2.1", "192.0.2.1"),  # IPv4-mapped is IPv4
        ("::FFFF:c000:201", "192.0.2.1"),
        ("2001:DB8:0:0:0:0:0:1", "2001:db8::1"),
        ("2001:0db8:0000:0000:0001:0000:0000:0001", "2001:db8::1:0:0:1"),  # the first of two runs
        ("2001:db8:0:1:1:1:1:1", "2001:db8:0:1:1:1:1:1"),  # one zero is not shortened
        ("::", "::"),
        ("::192.0.2.1", "::c000:201"),
        ("::1", "::1"),
    ],
)
def test_one_spelling_for_every_address(spelling: str, written: str) -> None:
    assert normalise_address(spelling) == written


@pytest.mark.parametrize(
    "text",
    [
        "",
        "192.0.2",
        "192.0.2.256",
        "192.0.2.01",
        "192.0.2.1/32",
        " 192.0.2.1",
        "192.0.2.1\n",
        "fe80::1%eth0",
        "2001:db8::1\0",
        "192.0.2.1\0.example",
        "2001:db8::/64",
        "example.org",
        "\ud800",
        "１９２.0.2.1",  # noqa: RUF001 - full-width digits are the point
        "9" * 1000,
    ],
)
def test_what_is_not_one_host_address_is_refused(text: str) -> None:
    with pytest.raises(AddressError):
        pack_address(text)


@given(st.binary(min_size=16, max_size=16))
def test_ipv6_agrees_with_the_standard_library(packed: bytes) -> None:
    """IPv4-mapped addresses differ, because they are written as IPv4."""
    address = ipaddress.IPv6Address(packed)
    expected = str(address.ipv4_mapped or address.compressed)
    assert format_address(packed) == expected
    assert format_address(pack_address(expected)) == expected


@given(st.lists(st.one_of(st.binary(min_size=4, max_size=4), st.binary(min_size=16, max_size=16))))
def test_sorts_ipv4_first_then_by_number(packed: list[bytes]) -> None:
    ordered = sorted(packed, key=sort_key)
    assert ordered == sorted(packed, key=lambda ip: (len(ip), int.from_bytes(ip)))


def test_mapped_prefix_is_an_ipv4_prefix() -> None:
    assert str(parse_network("::ffff:192.0.2.0/120")) == "192.0.2.0/24"


def test_prefix_with_bits_behind_its_length_is_refused() -> None:
    with pytest.raises(AddressError, match="is an address inside a prefix: write "):
        parse_network("192.0.2.1/24")
