"""A lookup finds every entry that contains an address, most specific and newest first."""

from __future__ import annotations

from datetime import date, timedelta

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from smtpfeeds_aggregator.classification.classes import Listing
from smtpfeeds_aggregator.classification.lists.model import (
    AddressList,
    ListKind,
    Prefix,
    parse_prefix,
)
from smtpfeeds_aggregator.classification.lists.table import ListTable
from smtpfeeds_common.addresses import pack_address

TODAY = date(2026, 11, 25)


def listed(
    name: str, *prefixes: str, days: int = 0, actor: str = "", kind: ListKind = "scanner"
) -> AddressList:
    return AddressList(
        name=name,
        kind=kind,
        actor=actor or name,
        home="",
        source="test",
        day=TODAY - timedelta(days=days),
        day_from="stated",
        prefixes=tuple(sorted(map(parse_prefix, prefixes))),
    )


def matches(table: ListTable, address: str) -> list[tuple[str, str]]:
    return [(m.list.name, str(m.prefix)) for m in table.find(pack_address(address))]


def test_longest_prefix_comes_first_then_the_newest() -> None:
    table = ListTable(
        [
            listed("wide", "8.8.0.0/20"),
            listed("old", "8.8.8.0/24", days=9),
            listed("new", "8.8.8.0/24", days=2),
            listed("host", "8.8.8.8", days=50),
        ],
        "g",
    )
    assert matches(table, "8.8.8.8") == [
        ("host", "8.8.8.8/32"),
        ("new", "8.8.8.0/24"),
        ("old", "8.8.8.0/24"),
        ("wide", "8.8.0.0/20"),
    ]
    assert matches(table, "8.8.8.9")[0] == ("new", "8.8.8.0/24")
    assert matches(table, "8.8.15.255") == [("wide", "8.8.0.0/20")]
    assert matches(table, "8.8.16.0") == matches(table, "8.7.255.255") == []


@pytest.mark.parametrize(
    ("prefix", "days", "fresh"),
    [
        ("8.8.8.8/32", 60, True),
        ("8.8.8.8/32", 61, False),  # addresses change hands
        ("8.8.8.8/31", 365, True),
        ("8.8.8.0/24", 366, False),
        ("2600::1/128", 61, False),
        ("2600::/64", 365, True),
        ("8.8.8.8/32", -1, True),  # a list that is ahead of this host's day
    ],
)
def test_single_address_counts_for_60_days_and_a_range_for_a_year(
    prefix: str, days: int, fresh: bool
) -> None:
    table = ListTable([listed("x", prefix, days=days)], "g")
    address = pack_address(prefix.partition("/")[0])
    assert table.listings(address, TODAY) == (Listing("scanner", "x", fresh),)


def test_lists_of_one_actor_are_one_listing_with_the_newest_entry() -> None:
    table = ListTable(
        [
            listed("shodan_v4", "8.8.8.8", actor="shodan", days=100),
            listed("shodan-scanning", "8.8.8.0/24", actor="shodan", days=100),
            listed("other", "8.8.8.0/28", days=400),
            listed("mail", "8.8.0.0/16", kind="mailer"),
        ],
        "g",
    )
    assert table.listings(pack_address("8.8.8.8"), TODAY) == (
        Listing("scanner", "shodan", fresh=True),
        Listing("scanner", "other", fresh=False),
        Listing("mailer", "mail", fresh=True),
    )


def test_lookup_of_a_window_gives_0_for_unlisted_addresses() -> None:
    table = ListTable([listed("a", "8.8.8.0/24", "2600::/48", "2600:1::5")], "g")
    ipv4 = np.array([0, 0x08080800, 0x080808FF, 0x08080900, 0xFFFFFFFF], np.uint32)
    high = np.array([0, 0x2600 << 48, 0x2600_0001 << 32, 0x2600_0001 << 32], np.uint64)
    low = np.array([0, 1, 4, 5], np.uint64)
    ids, listings = table.on(TODAY).of_window(ipv4, high, low)
    assert [bool(number) for number in ids] == [
        False, True, True, False, False, False, True, False, True,
    ]  # fmt: skip
    assert listings[0] == ()
    assert {listings[int(number)] for number in ids if number} == {
        (Listing("scanner", "a", fresh=True),)
    }
    next_year = TODAY + timedelta(days=366)
    assert table.on(next_year).of_window(ipv4, high, low)[1][int(ids[1])] == (
        Listing("scanner", "a", fresh=False),
    )


def test_empty_table_has_no_match() -> None:
    table = ListTable([], "none")
    nothing = np.empty(0, np.uint64)
    assert table.find(pack_address("8.8.8.8")) == table.find(pack_address("2600::1")) == ()
    assert len(table.on(TODAY).of_window(nothing, nothing, nothing)[0]) == 0


def crowded(bits: int) -> st.SearchStrategy[Prefix]:
    """Prefixes that are nested, adjacent, and at the ends of the address space."""

    def masked(number: int, length: int) -> Prefix:
        host = bits - length
        return Prefix(bits, number >> host << host, length)

    near = st.one_of(
        st.sampled_from([0, 2**bits - 1, 1 << (bits - 1)]),
        st.integers(0x1001 << (bits - 16), (0x1001 << (bits - 16)) + 2 ** (bits // 2 + 2)),
    )
    return st.builds(masked, near, st.integers(1, bits))


@settings(max_examples=60, deadline=None)
@given(st.lists(st.lists(st.one_of(crowded(32), crowded(128)), max_size=6), max_size=4))
def test_every_entry_matches_exactly_its_range(prefixes: list[list[Prefix]]) -> None:
    lists = [
        AddressList(f"l{n}", "scanner", f"l{n}", "", "test", TODAY, "stated", tuple(set(each)))
        for n, each in enumerate(prefixes)
    ]
    table = ListTable(lists, "g")
    entries = [(prefix, each.name) for each in lists for prefix in each.prefixes]
    for prefix, _ in entries:
        end = prefix.start + (1 << (prefix.bits - prefix.length))
        for number in (prefix.start - 1, prefix.start, end - 1, end):
            if 0 <= number < 1 << prefix.bits:
                match = table.find(number.to_bytes(prefix.bits // 8))
                expected = {
                    (p, name)
                    for p, name in entries
                    if p.bits == prefix.bits
                    and number >> (p.bits - p.length) == p.start >> (p.bits - p.length)
                }
                assert {(m.prefix, m.list.name) for m in match} == expected
                lengths = [m.prefix.length for m in match]
                assert lengths == sorted(lengths, reverse=True)


def test_list_is_read_back_as_it_was_written() -> None:
    one = listed("a", "8.8.8.0/24", "2600::1", days=3)
    assert AddressList.from_json(one.as_json()) == one
