"""Which addresses are not publicly routable, and sets of addresses in general."""

from ipaddress import ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from smtpfeeds_aggregator.address_ranges import AddressRanges
from smtpfeeds_aggregator.special_purpose import (
    GLOBAL_WITHIN,
    NOT_GLOBAL,
    is_public_asn,
    not_global,
)
from smtpfeeds_common.addresses import pack_address

RESERVED = not_global()


@pytest.mark.parametrize(
    "address",
    [
        "0.0.0.0", "0.255.255.255", "10.0.0.0", "10.255.255.255", "100.64.0.0", "100.127.255.255",
        "127.0.0.1", "169.254.0.1", "172.16.0.0", "172.31.255.255", "192.0.0.0", "192.0.0.8",
        "192.0.0.11", "192.0.2.1", "192.88.99.1", "192.168.0.1", "198.18.0.0", "198.19.255.255",
        "198.51.100.1", "203.0.113.255", "224.0.0.1", "239.255.255.255", "240.0.0.0",
        "255.255.255.255", "::", "::1", "::1.2.3.4", "64:ff9b:1::1", "100::1", "100:0:0:1::1",
        "2001::1", "2001:2::1", "2001:10::1", "2001:1ff:ffff::1", "2001:db8::1", "2002:102:304::1",
        "3fff::1", "3fff:fff::1", "4000::1", "5f00::1", "fc00::1", "fdff::1", "fe80::1", "fec0::1",
        "ff02::1", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff",
    ],
)  # fmt: skip
def test_special_purpose_address_is_not_routable(address: str) -> None:
    assert pack_address(address) in RESERVED


@pytest.mark.parametrize(
    "address",
    [
        "1.0.0.0", "9.255.255.255", "11.0.0.0", "100.63.255.255", "100.128.0.0", "126.255.255.255",
        "128.0.0.0", "172.15.255.255", "172.32.0.0", "192.0.0.9", "192.0.0.10", "192.0.1.0",
        "192.0.3.0", "192.31.196.1", "192.52.193.1", "192.175.48.1", "198.17.255.255", "198.20.0.0",
        "223.255.255.255", "64:ff9b::102:304", "2000::1", "2001:1::1", "2001:1::2", "2001:1::3",
        "2001:3::1", "2001:4:112::1", "2001:20::1", "2001:30::1", "2001:200::1", "2001:db7::1",
        "2001:db9::1", "2003::1", "2620:4f:8000::1", "2a00:1450::1", "3ffe::1", "3fff:1000::1",
    ],
)  # fmt: skip
def test_public_address_is_routable(address: str) -> None:
    assert pack_address(address) not in RESERVED


#: Every entry of both registries as they stood on `AS_OF`, and whether it is globally reachable;
#: "N/A" counts as not.
REGISTERED = {
    "0.0.0.0/8": False, "0.0.0.0/32": False, "10.0.0.0/8": False, "100.64.0.0/10": False,
    "127.0.0.0/8": False, "169.254.0.0/16": False, "172.16.0.0/12": False, "192.0.0.0/29": False,
    "192.0.0.8/32": False, "192.0.0.9/32": True, "192.0.0.10/32": True, "192.0.0.170/32": False,
    "192.0.0.171/32": False, "192.0.2.0/24": False, "192.31.196.0/24": True,
    "192.52.193.0/24": True, "192.88.99.0/24": False, "192.88.99.2/32": False,
    "192.168.0.0/16": False, "192.175.48.0/24": True, "198.18.0.0/15": False,
    "198.51.100.0/24": False, "203.0.113.0/24": False, "240.0.0.0/4": False,
    "255.255.255.255/32": False,
    "::1/128": False, "::/128": False, "::ffff:0:0/96": False, "64:ff9b::/96": True,
    "64:ff9b:1::/48": False, "100::/64": False, "100:0:0:1::/64": False, "2001::/32": False,
    "2001:1::1/128": True, "2001:1::2/128": True, "2001:1::3/128": True, "2001:2::/48": False,
    "2001:3::/32": True, "2001:4:112::/48": True, "2001:10::/28": False, "2001:20::/28": True,
    "2001:30::/28": True, "2001:db8::/32": False, "2002::/16": False, "2620:4f:8000::/48": True,
    "3fff::/20": False, "5f00::/16": False, "fc00::/7": False, "fe80::/10": False,
}  # fmt: skip


@pytest.mark.parametrize(("prefix", "reachable"), REGISTERED.items())
def test_every_registered_block_matches_the_registry(prefix: str, reachable: bool) -> None:
    network = ip_network(prefix)
    for address in (network.network_address, network.broadcast_address):
        assert (address.packed not in RESERVED) is reachable


@pytest.mark.parametrize(
    ("asn", "public"),
    [(0, False), (1, True), (23456, False), (64495, True), (64496, False), (65551, False),
     (131071, False), (131072, True), (4199999999, True), (4200000000, False), (2**32 - 1, False)],
)  # fmt: skip
def test_reserved_asns_are_recognised_at_their_limits(asn: int, public: bool) -> None:
    assert is_public_asn(asn) is public


def test_exceptions_are_within_their_blocks() -> None:
    for text in GLOBAL_WITHIN:
        network = ip_network(text)
        assert any(
            network.version == outer.version and network.subnet_of(outer)  # type: ignore[arg-type]
            for outer in map(ip_network, NOT_GLOBAL)
        ), text


def test_empty_set_contains_no_address() -> None:
    nothing = AddressRanges(())
    assert not nothing
    assert pack_address("0.0.0.0") not in nothing
    assert pack_address("::") not in nothing


PREFIX = st.builds(
    lambda value, length: ip_network((value << 24 & (0xFFFFFFFF << (32 - length)), length)),
    st.integers(0, 255),
    st.integers(1, 10),
)


@given(st.lists(PREFIX, max_size=6), st.lists(PREFIX, max_size=6), st.integers(0, 255))
def test_set_contains_exactly_its_prefixes(inside: list, outside: list, octet: int) -> None:  # type: ignore[type-arg]
    """Overlapping, nested and adjacent prefixes, to the end of the address space."""
    for address in (octet << 24, (octet << 24) + 0xFFFFFF):
        packed = address.to_bytes(4)
        expected = any(address in range(int(n[0]), int(n[-1]) + 1) for n in inside) and not any(
            address in range(int(n[0]), int(n[-1]) + 1) for n in outside
        )
        assert (packed in AddressRanges(inside, outside)) == expected
