"""Which addresses are not publicly routable, and sets of addresses in general."""

from ipaddress import ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from smtpfeeds_aggregator.publish.ranges import AddressRanges
from smtpfeeds_aggregator.publish.special_purpose import GLOBAL_WITHIN, NOT_GLOBAL, not_global
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
def test_not_routable(address: str) -> None:
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
def test_routable(address: str) -> None:
    assert pack_address(address) not in RESERVED


def test_exceptions_lie_within_what_they_are_exceptions_of() -> None:
    for text in GLOBAL_WITHIN:
        network = ip_network(text)
        assert any(
            network.version == outer.version and network.subnet_of(outer)  # type: ignore[arg-type]
            for outer in map(ip_network, NOT_GLOBAL)
        ), text


def test_empty_set_has_nothing_in_it() -> None:
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
def test_set_is_what_its_prefixes_say(inside: list, outside: list, octet: int) -> None:  # type: ignore[type-arg]
    """Overlapping, nested and adjoining prefixes, to the very end of the space."""
    for address in (octet << 24, (octet << 24) + 0xFFFFFF):
        packed = address.to_bytes(4)
        expected = any(address in range(int(n[0]), int(n[-1]) + 1) for n in inside) and not any(
            address in range(int(n[0]), int(n[-1]) + 1) for n in outside
        )
        assert (packed in AddressRanges(inside, outside)) == expected
