"""PROXY protocol headers, version 1 and 2, whole and in pieces, good and not."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from smtpfeeds_common.addresses import pack_address
from smtpfeeds_sensor.edge.proxy_header import NotAProxyHeader, ProxyHeader, read_proxy_header

SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"
FOUR, FOUR_TO = pack_address("192.0.2.1"), pack_address("198.51.100.2")
SIX, SIX_TO = pack_address("2001:db8::1"), pack_address("2001:db8::2")
PORTS = b"\x10\0\0\x19"


def v2(verb: int, family: int, rest: bytes) -> bytes:
    return SIGNATURE + bytes([verb, family]) + len(rest).to_bytes(2) + rest


GOOD = [
    (b"PROXY TCP4 192.0.2.1 198.51.100.2 4096 25\r\n", FOUR, FOUR_TO),
    (b"PROXY TCP6 2001:db8::1 2001:db8::2 4096 25\r\n", SIX, SIX_TO),
    # IPv4-mapped: it is the IPv4 address.
    (b"PROXY TCP6 ::ffff:192.0.2.1 ::ffff:198.51.100.2 1 25\r\n", FOUR, FOUR_TO),
    (b"PROXY UNKNOWN\r\n", None, None),
    (b"PROXY UNKNOWN ff ff 1 2\r\n", None, None),
    (v2(0x21, 0x11, FOUR + FOUR_TO + PORTS), FOUR, FOUR_TO),
    (v2(0x21, 0x21, SIX + SIX_TO + PORTS), SIX, SIX_TO),
    (v2(0x21, 0x21, pack_address("::1") + SIX_TO + PORTS), pack_address("::1"), SIX_TO),
    # Optional fields are skipped.
    (v2(0x21, 0x11, FOUR + FOUR_TO + PORTS + b"\x04\0\2xx"), FOUR, FOUR_TO),
    # LOCAL, and a family without addresses: the proxy itself.
    (v2(0x20, 0x00, b""), None, None),
    (v2(0x20, 0x11, FOUR + FOUR_TO + PORTS), None, None),
    (v2(0x21, 0x31, b"\0" * 216), None, None),
]


@pytest.mark.parametrize(("octets", "source", "destination"), GOOD)
def test_good_header(octets: bytes, source: bytes | None, destination: bytes | None) -> None:
    expected = ProxyHeader(len(octets), source, destination)
    assert read_proxy_header(octets) == expected
    assert read_proxy_header(octets + b"EHLO x\r\n") == expected
    for end in range(1, len(octets)):
        assert read_proxy_header(octets[:end]) is None


@pytest.mark.parametrize(
    "octets",
    [
        b"EHLO x\r\n",
        b"PROXX",
        b"PROXY TCP4 192.0.2.1 198.51.100.2 4096\r\n",
        b"PROXY TCP4 192.0.2.1 198.51.100.2 4096 25 1\r\n",
        b"PROXY TCP4 192.0.2.1 198.51.100.2 4096 99999\r\n",
        b"PROXY TCP4 192.0.2.1 198.51.100.2 x 25\r\n",
        b"PROXY TCP4 2001:db8::1 2001:db8::2 1 25\r\n",
        b"PROXY TCP6 192.0.2.1 198.51.100.2 1 25\r\n",
        b"PROXY TCP4 192.0.2 198.51.100.2 1 25\r\n",
        b"PROXY TCP4 \xff 198.51.100.2 1 25\r\n",
        b"PROXY UDP4 192.0.2.1 198.51.100.2 1 25\r\n",
        b"PROXY \r\n",
        b"PROXY " + b"x" * 200,
        b"\r\n\r\nEHLO",
        v2(0x11, 0x11, FOUR + FOUR_TO + PORTS),
        v2(0x22, 0x11, FOUR + FOUR_TO + PORTS),
        v2(0x21, 0x11, FOUR),
        v2(0x21, 0x21, FOUR + FOUR_TO + PORTS),
        SIGNATURE + b"\x21\x11\xff\xff",
    ],
)
def test_what_is_no_header_is_known_as_soon_as_it_can_be(octets: bytes) -> None:
    with pytest.raises(NotAProxyHeader):
        read_proxy_header(octets)


@given(st.binary(min_size=1, max_size=1200))
def test_any_octets_are_judged_and_none_waited_for_without_end(octets: bytes) -> None:
    for start in (b"", b"PROXY TCP4 ", SIGNATURE):
        try:
            found = read_proxy_header(start + octets)
        except NotAProxyHeader:
            continue
        if found is None:
            assert len(start + octets) < 1040
        else:
            assert found.size <= len(start + octets)
