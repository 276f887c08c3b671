"""Layouts, dates, bounds and owners of lists."""

from __future__ import annotations

import json
from datetime import date
from ipaddress import ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from smtpfeeds_aggregator.classification.lists import content as content_module
from smtpfeeds_aggregator.classification.lists.catalogue import (
    MISP_NAMES,
    OPENFILTERS_NAMES,
    Actor,
    actor_of,
    is_wanted_of_misp,
)
from smtpfeeds_aggregator.classification.lists.check import check
from smtpfeeds_aggregator.classification.lists.content import Content, parse, version_day
from smtpfeeds_aggregator.classification.lists.model import ListKind, parse_prefix
from smtpfeeds_aggregator.classification.lists.sources import packaged
from smtpfeeds_common.errors import ListsError

TODAY = date(2026, 11, 25)


def misp(entries: list[str], version: object = 1) -> bytes:
    return json.dumps({"type": "cidr", "version": version, "list": entries}).encode()


def texts(content: Content) -> list[str]:
    return [str(prefix) for prefix in content.prefixes]


@pytest.mark.parametrize(
    ("text", "prefix"),
    [
        ("8.8.8.8", "8.8.8.8/32"),
        ("8.8.8.8/24", "8.8.8.0/24"),  # host bits are tolerated
        ("2600::1", "2600::1/128"),
        ("2600:0:0::/48", "2600::/48"),
        ("0.0.0.0/0", "0.0.0.0/0"),
    ],
)
def test_prefix_is_read_and_written_in_canonical_form(text: str, prefix: str) -> None:
    assert str(parse_prefix(text)) == prefix


@pytest.mark.parametrize(
    "text",
    ["", "x", "8.8.8", "8.8.8.8/", "8.8.8.8/33", "8.8.8.8/-1", "8.8.8.8/٣", "08.8.8.8",
     "2600::/129", "::ffff:8.8.8.8", "fe80::1%eth0", "8.8.8.8/24/24", "AS15169"],
)  # fmt: skip
def test_text_that_is_not_a_prefix_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r".*"):
        parse_prefix(text)


@given(st.ip_addresses(), st.integers(0, 128))
def test_prefixes_are_read_like_the_standard_library(address: object, length: int) -> None:
    text = f"{address}/{min(length, 32 if '.' in str(address) else 128)}"
    network = ip_network(text, strict=False)
    if ":" in text and int(network.network_address) >> 32 == 0xFFFF:
        return
    prefix = parse_prefix(text)
    expected = (network.max_prefixlen, int(network.network_address), network.prefixlen)
    assert tuple(prefix) == expected
    assert ip_network(str(prefix)) == network


def test_text_list_is_read_with_its_statements() -> None:
    raw = (
        b"\xef\xbb\xbf# kind: mailer\n# actor: example\n# home: example.org\n; date: 2026-11-20\r\n"
        b"8.8.8.8\n\n  8.8.8.0/24  # a comment\n2600::/48,x\n8.8.8.8\nnonsense\n"
        b"# date: 2000-01-01\n"
    )
    content = parse(raw, "list")
    assert texts(content) == ["8.8.8.0/24", "8.8.8.8/32", "2600::/48"]
    assert (content.unreadable, content.entries) == (1, 4)
    assert content.stated == {
        "kind": "mailer", "actor": "example", "home": "example.org", "date": "2026-11-20",
    }  # fmt: skip


def test_misp_list_is_read_with_its_version() -> None:
    content = parse(misp(["8.8.8.8", "2600::/48", "nonsense"], 26081010), "list.json")
    assert texts(content) == ["8.8.8.8/32", "2600::/48"]
    assert (content.unreadable, content.stated) == (1, {"version": "26081010"})


@pytest.mark.parametrize(
    ("raw", "word"),
    [
        (b"<!DOCTYPE html><html>404</html>\n", "HTML"),
        (b"\n  <html>\n", "HTML"),
        (b"8.8.8.8\n8.8.4", "truncated"),
        (misp(["8.8.8.8"])[:-1], "truncated"),
        (b'{"type": "string", "list": ["example.org"]}', "is not a MISP"),
        (b'{"type": "cidr"}', "is not a MISP"),
        (b"[]", "is not a MISP"),
        (b"[" * 100_000, "not JSON"),
        (b"# kind: blocklist\n8.8.8.8\n", "neither"),
        (b"# actor: two words\n8.8.8.8\n", "short word"),
        (b"# date: yesterday\n8.8.8.8\n", "YYYY-MM-DD"),
    ],
)
def test_file_that_is_not_a_list_is_refused(raw: bytes, word: str) -> None:
    with pytest.raises(ListsError, match=word):
        parse(raw, "list")


def test_list_beyond_its_bounds_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(content_module, "MAX_ENTRIES", 3)
    parse(b"8.8.8.1\n8.8.8.2\n8.8.8.3\n", "list")
    with pytest.raises(ListsError, match="3 entries"):
        parse(b"8.8.8.1\n8.8.8.2\n8.8.8.3\n8.8.8.4\n", "list")
    monkeypatch.setattr(content_module, "MAX_BYTES", 10)
    with pytest.raises(ListsError, match="10 bytes"):
        parse(b"8.8.8.8\n8.8.8.9\n", "list")


@pytest.mark.parametrize(
    ("version", "day"),
    [
        ("1", None),  # a serial number
        ("3", None),
        ("20260811", date(2026, 8, 11)),
        ("26081010", date(2026, 8, 10)),  # YYMMDDHH
        ("25121022", date(2025, 12, 10)),
        ("20121110", date(2020, 12, 11)),  # MISP's lists are of 2016 and later
        ("20161110", date(2016, 11, 10)),
        ("20991231", None),  # the future is not a date
        ("26133110", None),
        ("26081099", None),
        ("2026-8-1", None),
        ("", None),
    ],
)
def test_version_is_a_date_in_either_spelling_or_a_serial_number(
    version: str, day: date | None
) -> None:
    assert version_day(version, TODAY) == day


def checked(
    entries: list[str],
    kind: ListKind = "scanner",
    *,
    before: int | None = None,
    force: bool = False,
) -> tuple[list[str], int]:
    raw = "".join(f"{entry}\n" for entry in entries).encode()
    kept, dropped = check(parse(raw, "list"), kind, "list", before=before, force=force)
    return [str(prefix) for prefix in kept], dropped


def many(count: int) -> list[str]:
    return [f"8.{n >> 16}.{n >> 8 & 255}.{n & 255}" for n in range(count)]


@pytest.mark.parametrize(
    ("entries", "kind", "word"),
    [
        (["8.0.0.0/19"], "scanner", "wider than a /20"),
        (["2600::/27"], "scanner", "wider than a /28"),
        (["8.0.0.0/13"], "mailer", "wider than a /14"),
        ([f"8.{n}.0.0/20" for n in range(17)], "scanner", "69632 IPv4 addresses"),
        ([f"{n}.0.0.0/14" for n in range(20, 37)], "mailer", "IPv4 addresses"),
        (["8.8.8.8", "10.0.0.1"], "scanner", "not globally routable"),
        (["8.8.8.8", "x"], "scanner", "neither an address nor a prefix"),
        ([], "scanner", "empty"),
    ],
)
def test_list_over_a_bound_is_refused(entries: list[str], kind: ListKind, word: str) -> None:
    with pytest.raises(ListsError, match=word):
        checked(entries, kind)


def test_list_at_its_bounds_is_used() -> None:
    assert checked(["8.0.0.0/20", "2600::/28"])[1] == 0
    assert checked(["8.0.0.0/14"], "mailer")[1] == 0
    assert len(checked([f"8.{n}.0.0/20" for n in range(16)])[0]) == 16


def test_entries_not_globally_routable_are_left_out_and_counted() -> None:
    kept, dropped = checked([*many(198), "192.168.0.0/24", "fd00::/48"])
    assert (len(kept), dropped) == (198, 2)


def test_large_growth_and_empty_list_need_force() -> None:
    with pytest.raises(ListsError, match="--force"):
        checked(many(1101), before=110)
    assert len(checked(many(1100), before=110)[0]) == 1100
    assert len(checked(many(1101), before=110, force=True)[0]) == 1101
    assert len(checked(many(900), before=1)[0]) == 900, "a small list may grow"
    assert len(checked(many(5), before=5000)[0]) == 5, "real lists lose nine tenths in weeks"
    with pytest.raises(ListsError, match="it had 21"):
        checked([], before=21)
    assert checked([], before=20) == ([], 0)
    assert checked([], before=21, force=True) == ([], 0)


@pytest.mark.parametrize(
    ("name", "actor"),
    [
        ("shodan-scanning", Actor("shodan", "scanner", "shodan.io")),
        ("shodan-nt-scanning", Actor("shodan", "scanner", "shodan.io")),
        ("shodan_v6", Actor("shodan", "scanner", "shodan.io")),
        ("onyphe-scanner", Actor("onyphe", "scanner", "onyphe.io")),
        ("shadowserver", Actor("shadowserver", "scanner", "shadowserver.org")),
        ("internet-census-nt-scanning", Actor("bitsight", "scanner", "bitsight.com")),
        ("research-scanner-nt-scanning", Actor("bitsight", "scanner", "bitsight.com")),
        ("researchscanner_v4", Actor("bitsight", "scanner", "bitsight.com")),
        ("circl-ssh-scanning", Actor("circl", "scanner", "circl.lu")),
        ("strechoid_v4", Actor("stretchoid", "scanner", "stretchoid.com")),
        ("smtp-sending-ips", Actor("smtp-sending-ips", "mailer", "")),
        ("our-own", Actor("our-own", "scanner", "")),
    ],
)
def test_names_of_one_organisation_are_one_actor(name: str, actor: Actor) -> None:
    assert actor_of(name) == actor


def test_catalogue_knows_every_packaged_list_and_no_other_kind() -> None:
    names = {path.parent.name for path in packaged()}
    assert names <= set(MISP_NAMES)
    assert all(map(is_wanted_of_misp, MISP_NAMES))
    assert not any(map(is_wanted_of_misp, ("smtp-receiving-ips", "amazon-aws", "vpn-ipv4")))
    assert len(set(OPENFILTERS_NAMES)) == len(OPENFILTERS_NAMES) == 85


@pytest.mark.parametrize("path", packaged(), ids=lambda path: str(path.parent.name))
def test_every_packaged_list_is_within_the_bounds(path: object) -> None:
    name = path.parent.name  # type: ignore[attr-defined]
    content = parse(path.read_bytes(), name)  # type: ignore[attr-defined]
    kept, dropped = check(content, actor_of(name).kind, name, before=None, force=False)
    assert kept
    assert dropped <= 1
