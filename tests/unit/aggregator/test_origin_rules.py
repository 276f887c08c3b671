"""The rules of origin data: which RIB, which bounds, when to refresh, what is left out."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from ipaddress import ip_network
from pathlib import Path
from typing import Any

import pytest

from origin_support.world import settings
from smtpfeeds_aggregator.datasets.fetch import check_url
from smtpfeeds_aggregator.origin.acquire import route_views, validate
from smtpfeeds_aggregator.origin.acquire.bogons import PrefixFilter
from smtpfeeds_aggregator.origin.acquire.refresh import schedule_of
from smtpfeeds_aggregator.origin.table.in_memory import EMPTY, OriginTable, TableInfo
from smtpfeeds_common.errors import DatasetError, SettingsError

NOW = datetime(2026, 3, 1, 0, 10, tzinfo=UTC)
INFO = TableInfo("test", NOW - timedelta(hours=6), 1000, 500, 700, 0)


class Known(OriginTable):
    """A table with given answers."""

    __slots__ = ("answers",)

    def __init__(self, info: TableInfo = INFO, answers: dict[bytes, int] | None = None) -> None:
        super().__init__(None, "test", info)
        self.answers = answers

    def lookup_many(self, addresses: Any) -> list[int | None]:
        if self.answers is None:
            return [int.from_bytes(a) % 1000 + 1 for a in addresses]
        return [self.answers.get(a) for a in addresses]


BOUNDS = validate.Bounds(900, 400, 600, 10.0, 5.0, timedelta(days=7), ())


def objection(new: OriginTable, old: OriginTable = EMPTY, **changes: Any) -> str:
    return "; ".join(validate.objections(new, old, replace(BOUNDS, **changes), NOW))


def test_good_table_has_no_objection() -> None:
    assert objection(Known(), Known()) == ""


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"prefixes_ipv4": 899}, "IPv4"),
        ({"prefixes_ipv6": 399}, "IPv6"),
        ({"origins": 599}, "origin ASNs"),
        ({"prefixes_ipv4": 1101}, "change"),  # more is as suspect as less
        ({"prefixes_ipv6": 449}, "change"),
        ({"table_time": NOW - timedelta(days=8)}, "days old"),
        ({"table_time": NOW + timedelta(days=2)}, "clock"),
        ({"table_time": None}, "not known"),
    ],
)
def test_each_violated_bound_is_an_objection(change: dict[str, Any], word: str) -> None:
    assert word in objection(Known(replace(INFO, **change)), Known())


def test_wrong_answers_and_moved_origins_are_objections() -> None:
    google = (b"\x08\x08\x08\x08", 15169)
    assert "8.8.8.8 has origin None, not 15169" in objection(Known(answers={}), known=(google,))
    assert objection(Known(answers={google[0]: 15169}), known=(google,)) == ""
    sample = validate.sample_addresses(Known())
    table: dict[bytes, int] = {a: int.from_bytes(a) % 1000 + 1 for a in sample}
    tenth = table | dict.fromkeys(sample[::10], 9999)
    assert "another origin" in objection(Known(answers=tenth), Known())
    assert objection(Known(answers=tenth), Known(), max_moved_percent=11.0) == ""


def test_invalid_known_answer_is_a_settings_error(tmp_path: Path) -> None:
    for bad in ("8.8.8.8", "google=15169", "8.8.8.8=fifteen"):
        with pytest.raises(SettingsError, match="ADDRESS=ASN"):
            validate.bounds_of(settings(tmp_path, origin_known_answers=(bad,)))


def test_months_cross_the_new_year() -> None:
    assert list(route_views.months(datetime(2027, 1, 1, tzinfo=UTC))) == ["2027.01", "2026.12"]


@pytest.mark.parametrize(
    ("names", "chosen"),
    [
        (["rib.20260228.2200.bz2", "rib.20260228.1800.bz2"], "rib.20260228.2200.bz2"),
        # Just begun: it may still be written; the one before it is whole.
        (["rib.20260301.0000.bz2", "rib.20260228.2200.bz2"], "rib.20260228.2200.bz2"),
        (["rib.20260301.0000.bz2"], "rib.20260301.0000.bz2"),
        (["rib.20991231.0000.bz2", "rib.20260201.0000.bz2"], "rib.20260201.0000.bz2"),
        (["rib.20261399.9999.bz2", "updates.20260228.2200.bz2", "rib.x"], None),
        (["bview.20260228.1600.gz", "bview.20260228.0800.gz"], "bview.20260228.1600.gz"),  # RIS
        (["../../etc/rib.20260228.2200.bz2?x=1"], "rib.20260228.2200.bz2"),
        ([], None),
    ],
)
def test_the_newest_settled_rib_is_chosen(names: list[str], chosen: str | None) -> None:
    listing = "".join(f'<a href="{name}">{name}</a>\n' for name in names)
    assert route_views.newest_rib([listing], NOW) == chosen


@pytest.mark.parametrize("url", ["http://example.net/a", "ftp://127.0.0.1/a", "file:///a", "x"])
def test_http_is_refused_for_other_hosts(url: str) -> None:
    with pytest.raises(DatasetError, match="is not https"):
        check_url(url, allow_http=False, http_setting="origin_allow_http")


def test_http_is_for_loopback_or_by_setting() -> None:
    check_url("https://example.net/a", allow_http=False, http_setting="origin_allow_http")
    check_url("http://127.0.0.1:8000/a", allow_http=False, http_setting="origin_allow_http")
    check_url("http://[::1]/a", allow_http=False, http_setting="origin_allow_http")
    check_url("http://example.net/a", allow_http=True, http_setting="origin_allow_http")


def test_schedule_waits_an_interval_and_jitter_and_all_programs_agree(tmp_path: Path) -> None:
    config = settings(tmp_path, origin_refresh_interval_s=86_400, origin_refresh_jitter_s=600)
    begun = NOW - timedelta(days=3)
    last = {"last_attempt": NOW.isoformat()}
    due = schedule_of(config).next_refresh(last, begun)
    assert due is not None
    assert timedelta(days=1) <= due - NOW <= timedelta(days=1, minutes=10)
    assert due == schedule_of(config).next_refresh(last, begun - timedelta(hours=7))


def test_clock_that_was_ahead_does_not_stop_the_refreshes(tmp_path: Path) -> None:
    schedule = schedule_of(settings(tmp_path, origin_refresh_interval_s=86_400))
    begun = NOW - timedelta(days=3)
    for last, is_due in [
        (NOW - timedelta(days=2), True),
        (NOW - timedelta(minutes=1), False),
        (NOW, False),
        (NOW + timedelta(days=2), True),
        (NOW + timedelta(days=3650), True),
    ]:
        assert schedule.is_due({"last_attempt": last.isoformat()}, begun, NOW) is is_due
    ahead = NOW + timedelta(days=3650)  # it was ahead at the start
    assert schedule.is_due({}, ahead, NOW)
    assert not schedule.is_due({"last_attempt": NOW.isoformat()}, ahead, NOW)
    assert not schedule.is_due({}, NOW, NOW)
    assert not schedule_of(settings(tmp_path, origin_refresh_interval_s=0)).is_due({}, begun, NOW)


def test_schedule_retries_soon_and_backs_off(tmp_path: Path) -> None:
    config = settings(tmp_path, origin_refresh_interval_s=86_400, origin_refresh_jitter_s=0)
    waits = []
    for failures in range(1, 8):
        noted = {"last_attempt": NOW.isoformat(), "failures": failures}
        due = schedule_of(config).next_refresh(noted, NOW - timedelta(days=3))
        assert due is not None
        waits.append((due - NOW) / timedelta(hours=1))
    assert waits == [1, 2, 4, 8, 16, 24, 24]


def test_schedule_can_be_off_and_has_a_minimum_of_an_hour(tmp_path: Path) -> None:
    begun = NOW - timedelta(days=1)
    off = settings(tmp_path, origin_refresh_interval_s=0)
    assert schedule_of(off).next_refresh({}, begun) is None
    often = settings(tmp_path, origin_refresh_interval_s=1, origin_refresh_jitter_s=0)
    due = schedule_of(often).next_refresh({"last_attempt": NOW.isoformat()}, begun)
    assert due == NOW + timedelta(hours=1)
    assert schedule_of(often).next_refresh({}, NOW) == NOW + timedelta(minutes=1)


@pytest.mark.parametrize(
    ("prefix", "reason"),
    [
        ("192.88.99.0/24", "bogon"),  # RFC 7526: deprecated relay anycast
        ("198.18.0.0/16", "bogon"),
        ("2001:1ff::/32", "bogon"),  # IETF protocol assignments
        ("2001:20::/32", ""),  # ORCHIDv2 is globally reachable
        ("2001:4:112::/48", ""),  # AS112, within what is not
        ("192.31.196.0/24", ""),  # AS112
        ("2001:200::/32", ""),
        ("198.51.100.0/25", "too_long"),
        ("0.0.0.0/0", "default"),
        ("8.0.0.0/7", "too_short"),
    ],
)
def test_prefixes_are_filtered_by_the_registries(prefix: str, reason: str) -> None:
    network = ip_network(prefix)
    chosen = PrefixFilter(allow_reserved=False)
    one = (int(network.network_address), network.prefixlen, 3333)
    assert chosen.wants(one, network.max_prefixlen) is not bool(reason)
    assert [why for why, count in chosen.left_out.items() if count] == ([reason] if reason else [])
