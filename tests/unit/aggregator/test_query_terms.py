"""What an operator types as a term or a time."""

from datetime import UTC, datetime, timedelta

import pytest

from smtpfeeds_aggregator.query.questions import Range, parse_term
from smtpfeeds_aggregator.query.times import parse_time
from smtpfeeds_common.addresses import pack_address
from smtpfeeds_common.errors import SettingsError

NOW = datetime(2026, 11, 23, 11, 0, tzinfo=UTC)


def between(low: str, high: str) -> Range:
    return Range(pack_address(low), pack_address(high))


@pytest.mark.parametrize(
    ("text", "term"),
    [
        ("192.0.2.1", between("192.0.2.1", "192.0.2.1")),
        ("::FFFF:192.0.2.1", between("192.0.2.1", "192.0.2.1")),
        ("192.0.2.0/24", between("192.0.2.0", "192.0.2.255")),
        ("::ffff:192.0.2.0/120", between("192.0.2.0", "192.0.2.255")),
        ("2001:db8::/64", between("2001:db8::", "2001:db8::ffff:ffff:ffff:ffff")),
        ("AS64496", 64496),
        ("as1", 1),
        ("4294967295", 4_294_967_295),
    ],
)
def test_term(text: str, term: object) -> None:
    assert parse_term(text) == term


@pytest.mark.parametrize(
    "text",
    ["", "AS", "AS0", "0", "4294967296", "192.0.2.1/24", "192.0.2", "fe80::1%eth0", "a.example",
     " 192.0.2.1", "192.0.2.1\n", "1.2.3.4/33", "1.2.3.4-5", "٣"],
)  # fmt: skip
def test_what_is_no_term_says_what_would_be(text: str) -> None:
    with pytest.raises(SettingsError, match=r"ASN|prefix"):
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
def test_what_is_no_time_says_what_would_be(text: str) -> None:
    with pytest.raises(SettingsError, match="neither a time"):
        parse_time(text, NOW)
