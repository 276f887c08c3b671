"""Terms and times as an operator types them."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from smtpfeeds_aggregator.cli.term_input import read_terms
from smtpfeeds_aggregator.query.terms import Range, Term, parse_term
from smtpfeeds_aggregator.query.times import parse_time
from smtpfeeds_common.addresses import pack_address
from smtpfeeds_common.errors import SettingsError

NOW = datetime(2026, 11, 23, 11, 0, tzinfo=UTC)


def between(low: str, high: str) -> Range:
    return Range(pack_address(low), pack_address(high))


@pytest.mark.parametrize(
    ("text", "range_or_asn"),
    [
        ("192.0.2.1", between("192.0.2.1", "192.0.2.1")),
        ("::FFFF:192.0.2.1", between("192.0.2.1", "192.0.2.1")),
        ("192.0.2.0/24", between("192.0.2.0", "192.0.2.255")),
        ("0.0.0.0/0", between("0.0.0.0", "255.255.255.255")),
        ("::ffff:192.0.2.0/120", between("192.0.2.0", "192.0.2.255")),
        ("2001:db8::/64", between("2001:db8::", "2001:db8::ffff:ffff:ffff:ffff")),
        ("192.0.2.1-192.0.2.9", between("192.0.2.1", "192.0.2.9")),
        ("2001:db8::1 - 2001:db8::f", between("2001:db8::1", "2001:db8::f")),
        ("AS64496", 64496),
        ("as1", 1),
        ("4294967295", 4_294_967_295),
        # As logs and reports write them.
        (" 192.0.2.1\n", between("192.0.2.1", "192.0.2.1")),
        ('"192.0.2.1",', between("192.0.2.1", "192.0.2.1")),
        ("192.0.2[.]1", between("192.0.2.1", "192.0.2.1")),
        ("192[.]0(.)2[dot]1", between("192.0.2.1", "192.0.2.1")),
        ("192.0.2[.]0/24", between("192.0.2.0", "192.0.2.255")),
        ("2001[:]db8::5", between("2001:db8::5", "2001:db8::5")),
        ("hxxp://192.0.2.1/a?b", between("192.0.2.1", "192.0.2.1")),
        ("hXXps[:]//192.0.2[.]1:8443", between("192.0.2.1", "192.0.2.1")),
        ("http://user@[2001:db8::5]:25/", between("2001:db8::5", "2001:db8::5")),
        ("[192.0.2.1]:25", between("192.0.2.1", "192.0.2.1")),
        ("[IPv6:2001:db8::5]", between("2001:db8::5", "2001:db8::5")),
        ("192.0.2.1:25", between("192.0.2.1", "192.0.2.1")),
        ("192.0.2.1.", between("192.0.2.1", "192.0.2.1")),
        ("hxxp://192.0.2.1/" + "x" * 1_000_000, between("192.0.2.1", "192.0.2.1")),
    ],
)
def test_term(text: str, range_or_asn: Range | int) -> None:
    term = parse_term(text)
    assert (term.range or term.asn) == range_or_asn
    assert (term.text, term.hint) == (text, "")


@pytest.mark.parametrize(
    ("text", "bounds"),
    [
        ("::/80", ("::", "::ffff:255.255.255.255")),
        ("::/0", ("::", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff")),
        ("::ffff:0:0/96", ("0.0.0.0", "255.255.255.255")),
        ("::c000:201", ("::c000:201", "::c000:201")),
    ],
)
def test_range_has_one_family(text: str, bounds: tuple[str, str]) -> None:
    asked = parse_term(text).range
    assert asked is not None
    assert asked.bounds == bounds


@pytest.mark.parametrize("text", ["ten%", "snake_case", "back\\slash", "a'; DROP TABLE x"])
def test_text_that_is_special_for_a_database_is_a_word(text: str) -> None:
    assert parse_term(text).word == text


def test_long_line_is_not_shortened_to_an_address(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = [b" " * 190 + b"192.0.2.123", b"a" * (1 << 20), b"\xff\xfeabc\0", b"192.0.2.1"]
    file = tmp_path / "terms"
    file.write_bytes(b"\n".join(lines))
    read = list(read_terms((), file))
    assert [term.range for term in read] == [
        between("192.0.2.123", "192.0.2.123"),
        between("192.0.2.1", "192.0.2.1"),
    ]
    errors = capsys.readouterr().err.splitlines()
    assert ["line 2: " in errors[0], "line 3: " in errors[1], len(errors)] == [True, True, 2]
    assert max(map(len, errors)) < 1_000


def test_prefix_with_host_bits_is_accepted_with_a_hint() -> None:
    term = parse_term("192.0.2.77/24")
    assert term.range == between("192.0.2.0", "192.0.2.255")
    assert term.hint == "192.0.2.77/24 is taken as 192.0.2.0/24: it has host bits"


@pytest.mark.parametrize(
    "text", ["Example", "Sample Cloud, Inc.", "a.example", "shodan", "OVH", "1&1 x"]
)
def test_word_may_be_a_name(text: str) -> None:
    assert parse_term(text) == Term(text, word=text)


@pytest.mark.parametrize(
    "text",
    ["", "AS0", "0", "4294967296", "192.0.2", "192.0.2.300", "fe80::1%eth0", "1.2.3.4/33",
     "1.2.3.4-5", "1.2.3.9-1.2.3.4", "1.2.3.4-::5", "1.2.3.4/-1", "1.2.3.4/٣", "٣", "\x00",
     "::/129", "1.2.3.4/", "x", "192.0.2.1x", "abc1", "-", "%", "_", "\\", "\ufffdname",
     "x" * 1_000_000, "192.0.2.1" * 100, "1" * 200 + "92.0.2.1", "http://" + "x" * 300],
)  # fmt: skip
def test_error_about_a_term_names_valid_forms(text: str) -> None:
    with pytest.raises(SettingsError, match="ASN"):
        parse_term(text)


@pytest.mark.parametrize(
    ("text", "time"),
    [
        ("7d", NOW - timedelta(days=7)),
        ("12h", NOW - timedelta(hours=12)),
        ("30m", NOW - timedelta(minutes=30)),
        ("90s", NOW - timedelta(seconds=90)),
        ("2w", NOW - timedelta(weeks=2)),
        ("2026-11-20", datetime(2026, 11, 20, tzinfo=UTC)),
        ("2026-11-20T10:30", datetime(2026, 11, 20, 10, 30, tzinfo=UTC)),  # no zone: UTC
        ("2026-11-20 10:30:15Z", datetime(2026, 11, 20, 10, 30, 15, tzinfo=UTC)),
        ("2026-11-20T10:30+02:00", datetime(2026, 11, 20, 8, 30, tzinfo=UTC)),
    ],
)
def test_time(text: str, time: datetime) -> None:
    assert parse_time(text, NOW) == time


@pytest.mark.parametrize("text", ["", "d", "-7d", "7", "7 d", "7y", "yesterday", "999999999w"])
def test_error_about_a_time_names_valid_forms(text: str) -> None:
    with pytest.raises(SettingsError, match="neither a time"):
        parse_time(text, NOW)
