"""HOST:PORT."""

from __future__ import annotations

import pytest

from smtpfeeds_common.errors import SettingsError
from smtpfeeds_common.host_port import HostPort, parse_host_port


@pytest.mark.parametrize(
    ("text", "host", "port"),
    [
        ("192.0.2.1:25", "192.0.2.1", 25),
        ("[2001:db8::1]:2525", "2001:db8::1", 2525),
        ("*:0", "*", 0),
        ("mx.example:65535", "mx.example", 65_535),
        ("[2001:db8::/64]:25", "2001:db8::/64", 25),
    ],
)
def test_form_is_read_and_written_back(text: str, host: str, port: int) -> None:
    assert parse_host_port(text) == HostPort(host, port)
    assert str(parse_host_port(text)) == text


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("192.0.2.1", "lacks a port"),
        ("192.0.2.1:", "lacks a port"),
        ("192.0.2.1:65536", "lacks a port from 0 to 65535"),
        ("192.0.2.1:-1", "lacks a port"),
        ("192.0.2.1:2\N{SUPERSCRIPT TWO}", "lacks a port"),
        ("192.0.2.1:\N{ARABIC-INDIC DIGIT TWO}", "lacks a port"),
        ("25", "lacks a port"),
        (":25", "lacks a host"),
        ("[]:25", "lacks a host"),
        ("[::1:25", "in brackets"),
        ("[x:25", "lacks a host"),
        ("2001:db8::1:25", r"in brackets, \[2001:db8::1\]:25"),
    ],
)
def test_what_is_no_host_and_port_is_refused(text: str, reason: str) -> None:
    with pytest.raises(SettingsError, match=reason):
        parse_host_port(text)
