"""PROXY protocol headers, version 1 and 2, whole and in pieces, valid and invalid."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from smtpfeeds_common.addresses import pack_address
from smtpfeeds_sensor.edge.proxy_header import NotAProxyHeader, ProxyHeader, ProxyHeaderReader

SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"
FOUR, FOUR_TO = pack_address("192.0.2.1"), pack_address("198.51.100.2")
SIX, SIX_TO = pack_address("2001:db8::1"), pack_address("2001:db8::2")
PORTS = b"\x10\0\0\x19"


def v2(verb: int, family: int, rest: bytes) -> bytes:
    return SIGNATURE + bytes([verb, family]) + len(rest).to_bytes(2) + rest


def read(*pieces: bytes) -> tuple[ProxyHeader, bytes] | None:
    """Return the result of the header's last piece."""
    reader = ProxyHeaderReader()
    for piece in pieces[:-1]:
        assert reader.feed(piece) is None
    whole = reader.feed(pieces[-1])
    return (whole[0], bytes(whole[1])) if whole else None


GOOD = [
    (b"PROXY TCP4 192.0.2.1 198.51.100.2 4096 25\r\n", FOUR, FOUR_TO),
    (b"PROXY TCP6 2001:db8::1 2001:db8::2 4096 25\r\n", SIX, SIX_TO),
    # IPv4-mapped: it is the IPv4 address.
    (b"PROXY TCP6 ::ffff:192.0.2.1 ::ffff:198.51.100.2 1 25\r\n", FOUR, FOUR_TO),
    # Ended by a bare LF.
    (b"PROXY TCP4 192.0.2.1 198.51.100.2 4096 25\n", FOUR, FOUR_TO),
    (b"PROXY UNKNOWN\n", None, None),
    (b"PROXY UNKNOWN\r\n", None, None),
    (b"PROXY UNKNOWN ff ff 1 2\r\n", None, None),
    (v2(0x21, 0x11, FOUR + FOUR_TO + PORTS), FOUR, FOUR_TO),
    (v2(0x21, 0x21, SIX + SIX_TO + PORTS), SIX, SIX_TO),
    (v2(0x21, 0x21, pack_address("::1") + SIX_TO + PORTS), pack_address("::1"), SIX_TO),
    # Optional fields are skipped.
    (v2(0x21, 0x11, FOUR + FOUR_TO + PORTS + b"\x04\0\2xx"), FOUR, FOUR_TO),
    # As many as the length allows: client certificates, identifiers of a cloud.
    (v2(0x21, 0x11, FOUR + FOUR_TO + PORTS + b"\x20" * 1100), FOUR, FOUR_TO),
    (v2(0x21, 0x21, SIX + SIX_TO + PORTS + b"\xee" * 65_499), SIX, SIX_TO),
    (v2(0x20, 0x00, b"\x04" * 65_535), None, None),
    # LOCAL, and a family without addresses: the proxy itself.
    (v2(0x20, 0x00, b""), None, None),
    (v2(0x20, 0x11, FOUR + FOUR_TO + PORTS), None, None),
    (v2(0x21, 0x31, b"\0" * 216), None, None),
]


@pytest.mark.parametrize(("octets", "source", "destination"), GOOD)
def test_good_header(octets: bytes, source: bytes | None, destination: bytes | None) -> None:
    expected = ProxyHeader(source, destination)
    assert read(octets) == (expected, b"")
    assert read(octets + b"EHLO x\r\n") == (expected, b"EHLO x\r\n")
    for end in [*range(1, min(len(octets), 200)), len(octets) - 1]:
        assert read(octets[:end], octets[end:] + b"EHLO x\r\n") == (expected, b"EHLO x\r\n")
    single = [octets[at : at + 1] for at in range(len(octets))]
    assert read(*single) == (expected, b"")


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
        b"PROXY TCP4 192.0.2.1 198.51.100.2 4096 25\r\r\n",
        b"PROXY " + b"x" * 200,
        b"\r\n\r\nEHLO",
        v2(0x11, 0x11, FOUR + FOUR_TO + PORTS),
        v2(0x22, 0x11, FOUR + FOUR_TO + PORTS),
        v2(0x21, 0x11, FOUR),
        v2(0x21, 0x21, FOUR + FOUR_TO + PORTS),
    ],
)
def test_invalid_header_is_detected_as_early_as_possible(octets: bytes) -> None:
    with pytest.raises(NotAProxyHeader):
        read(octets)


@given(st.binary(min_size=1, max_size=1200))
def test_any_octets_are_accepted_or_refused_within_a_bound(octets: bytes) -> None:
    for start in (b"", b"PROXY TCP4 ", SIGNATURE, SIGNATURE + b"\x21\x11\xff\xff"):
        reader = ProxyHeaderReader()
        for at in range(len(start + octets)):
            try:
                whole = reader.feed((start + octets)[at : at + 1])
            except NotAProxyHeader:
                break
            if whole is not None:
                break
            assert reader.started
            assert len(reader._held) <= 107
