"""The fast reader of addresses gives the same addresses as the reader of rows."""

from __future__ import annotations

import gzip
import io
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from publish_support.editions import entry
from smtpfeeds_aggregator.classification.classes import Class, Judgement
from smtpfeeds_aggregator.publish.entries import Entry, rows_of
from smtpfeeds_aggregator.publish.formats import csv_file, ndjson
from smtpfeeds_aggregator.query.address_set import AddressSet
from smtpfeeds_aggregator.query.published import addresses
from smtpfeeds_aggregator.query.published.rows import read_entries
from smtpfeeds_common.addresses import pack_address
from smtpfeeds_common.behaviours import Flags
from smtpfeeds_common.errors import NotVerified
from smtpfeeds_common.feeds import FEED_NAMES

ROWS = [
    entry("192.0.2.2", cls=Class.PASSWORD_GUESS),
    entry("192.0.2.3", "smtpdata", asn=None, name="NA", hits=0, flags=0, days=0, new=False),
    entry("203.0.113.255", asn=4_293_999_999, name='=QUOTE"D, Inc', hits=10**17),
    entry("2001:db8::2", name="BACK\\SLASH", last_seen="2026-12-31 23:59:59"),
    entry("::", flags=int(sum(Flags)), first_seen="2024-08-31 00:00:00"),
    entry("192.0.2.9", judgement=Judgement(Class.SURVEY, ("listed", "on:a, b"), "shodan")),
    entry("192.0.2.10", judgement=Judgement(Class.PROBE, (), None)),
]


def csv_of(rows: list[Entry]) -> bytes:
    head = ",".join(csv_file.COLUMNS) + "\n"
    return (head + "".join(rows_of(rows, csv_file, 100))).encode()


def ndjson_of(rows: list[Entry]) -> bytes:
    return "".join(rows_of(rows, ndjson, 100)).encode()


def packed(found: AddressSet) -> list[bytes]:
    return sorted([*found.ipv6, *(quad.to_bytes(4) for quad in found.quads.tolist())])


def by_rows(octets: bytes, feeds: tuple[str, ...] = FEED_NAMES) -> list[bytes] | None:
    """Return the addresses by the reader of rows; None if it refuses a row."""
    try:
        entries = list(read_entries(io.BytesIO(octets), "rows"))
    except NotVerified:
        return None
    return sorted(pack_address(each.address) for each in entries if each.category in feeds)


def fast(octets: bytes, feeds: tuple[str, ...] = FEED_NAMES) -> list[bytes] | None:
    try:
        return packed(addresses.read_addresses(io.BytesIO(octets), "rows", feeds))
    except NotVerified:
        return None


@pytest.mark.parametrize("form", [csv_of, ndjson_of])
def test_every_published_row_takes_the_fast_path(
    form: Callable[[list[Entry]], bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = sorted(pack_address(row.address) for row in ROWS)
    monkeypatch.setattr(addresses, "read_entries", None)
    assert fast(form(ROWS)) == expected
    assert fast(gzip.compress(form(ROWS))) == expected
    assert fast(form([])) == []
    monkeypatch.setattr(addresses, "_BLOCK_BYTES", 100)
    assert fast(form(ROWS * 9)) == sorted(expected * 9)


@pytest.mark.parametrize("form", [csv_of, ndjson_of])
def test_rows_of_another_feed_are_left_out(form: Callable[[list[Entry]], bytes]) -> None:
    assert fast(form(ROWS), ("smtpdata",)) == [pack_address("192.0.2.3")]
    assert len(fast(form(ROWS), ("smtpgreet",)) or ()) == len(ROWS) - 1


CHANGES = st.tuples(
    st.integers(0, 2000),
    st.integers(0, 3),
    st.sampled_from([*b'0129:-., "\\x#tZ\n\r', 0, 0x1B, 0xE9]).map(lambda octet: bytes([octet])),
)


@pytest.mark.parametrize("form", [csv_of, ndjson_of])
@given(row=st.sampled_from(ROWS), changes=st.lists(CHANGES, min_size=1, max_size=3))
def test_damaged_row_is_accepted_or_refused_like_the_slow_path(
    form: Callable[[list[Entry]], bytes], row: Entry, changes: list[tuple[int, int, bytes]]
) -> None:
    """Octets of any field are replaced, removed or added."""
    octets = form([row])
    for at, gone, added in changes:
        place = at % len(octets)
        octets = octets[:place] + added + octets[place + gone :]
    assert fast(octets) == by_rows(octets)
