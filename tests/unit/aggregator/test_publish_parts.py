"""The publisher's parts that need no database: the grid, sorting, times, reading back."""

from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_network
from pathlib import Path
from uuid import uuid5
from weakref import ref

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from publish_support import (
    HOSTILE_NAMES,
    NOW,
    Origins,
    Seen,
    frame_of,
    hostile_rows,
    make_feed,
    window_of,
)
from smtpfeeds_aggregator.address_ranges import AddressRanges
from smtpfeeds_aggregator.publish.check import check_feed
from smtpfeeds_aggregator.publish.chunks import FeedRows
from smtpfeeds_aggregator.publish.edition import generated_at
from smtpfeeds_aggregator.publish.entries import tags
from smtpfeeds_aggregator.publish.formats import text as text_format
from smtpfeeds_aggregator.publish.formats.identifiers import NAMESPACE, identifier
from smtpfeeds_aggregator.publish.grid import expiry, next_point
from smtpfeeds_aggregator.publish.judgements import NoLists, judge_window
from smtpfeeds_aggregator.publish.row_texts import filled, times
from smtpfeeds_aggregator.publish.snapshot import (
    LeftOut,
    in_ranges,
    origin_changes,
    window_end,
    window_start,
    with_origins,
)
from smtpfeeds_common.addresses import format_address, pack_address
from smtpfeeds_common.errors import PublishError
from smtpfeeds_common.feeds import FEED_BY_NAME

MIDNIGHT = int(datetime(2026, 11, 23, tzinfo=UTC).timestamp())


@pytest.mark.parametrize(
    ("now_s", "interval_s", "next_s"),
    [
        (0, 3600, 3600),
        (3599.9, 3600, 3600),
        (3600, 3600, 7200),  # strictly after now
        (1, 1, 2),
        (86_399, 3600, 86_400),
        (86_300, 7000, 86_400),  # midnight, where the interval does not divide the day
        (86_400, 7000, 93_400),  # and from there again
    ],
)
def test_grid_is_multiples_of_the_interval_since_midnight(
    now_s: float, interval_s: int, next_s: int
) -> None:
    assert next_point(MIDNIGHT + now_s, interval_s) == MIDNIGHT + next_s


def test_generation_expires_after_one_missed_publication() -> None:
    assert expiry(MIDNIGHT + 10, 3600) == MIDNIGHT + 7200


def test_window_ends_on_the_next_full_minute() -> None:
    full = NOW.replace(second=0)
    assert window_end(full) == full
    assert window_end(full.replace(microsecond=1)) == window_end(NOW) != full
    assert (window_end(NOW) - window_start(window_end(NOW))).days == 7


@given(st.lists(st.integers(0, 2**32 - 1)))
def test_times_are_written_as_utc(seconds: list[int]) -> None:
    expected = [f"{datetime.fromtimestamp(one, UTC):%Y-%m-%d %H:%M:%S}" for one in seconds]
    column = times(np.array(seconds, np.uint32))
    assert filled("{last}", {"last": column}) == expected
    assert filled("at {last},{last} {}", {"last": column}) == [
        f"at {one},{one} {{}}" for one in expected
    ]


@given(st.lists(st.text(), min_size=1))
def test_identifiers_are_those_of_the_standard_library(parts: list[str]) -> None:
    assert identifier(*parts) == str(uuid5(NAMESPACE, "|".join(parts)))


def test_tags_name_the_flags() -> None:
    assert tags(0) == ()
    assert tags(7) == ("bare_lf", "early_talker", "full_host_name")
    assert tags(1 << 40) == ()  # a newer sensor's


ADDRESSES = st.one_of(
    st.ip_addresses(v=4),
    # Without IPv4-mapped ones, which are IPv4 addresses.
    st.integers(1 << 48, 2**128 - 1).map(IPv6Address),
)


@given(
    st.dictionaries(ADDRESSES, st.one_of(st.none(), st.integers(1, 2**32 - 1))),
    st.integers(1, 5),
)
def test_rows_come_in_the_feeds_order(
    rows: dict[IPv4Address | IPv6Address, int | None], together: int
) -> None:
    """Unknown ASN first, IPv4 before IPv6, by address, for any size of chunks."""
    window = window_of(Seen(str(ip), asn) for ip, asn in rows.items())
    judgements = judge_window(window, 3, NoLists())
    chunks = FeedRows(window, "smtpgreet", judgements, {}, now_s=0).chunks(together)
    got = [pair for chunk in chunks for pair in zip(chunk.asn, chunk.address, strict=True)]
    order = sorted(rows, key=lambda ip: (rows[ip] or 0, ip.version, ip.packed))
    assert got == [(rows[ip] or 0, format_address(ip.packed)) for ip in order]


def test_changed_origins_come_in_the_databases_key_order() -> None:
    """Address first, then feed as text: the order of every writer's locks."""

    class Table(Origins):
        def lookup_many(self, addresses: Sequence[bytes]) -> list[int | None]:
            return [None if address[-1] == 9 else 7 for address in addresses]

    window = window_of(
        [
            Seen("2001:db8::1", 5),
            Seen("192.0.2.2", 5, "smtpgreet"),
            Seen("192.0.2.2", 5, "smtpdata"),
            Seen("192.0.2.1", 7),
            Seen("10.0.0.9", 7),
        ]
    )
    changes = origin_changes(window, with_origins(window, Table()))
    rows = [ref(feed.hits) for feed in window.feeds]
    del window
    assert [row() for row in rows] == [None, None], "both windows are freed before it is read"
    assert list(changes) == [
        ("10.0.0.9", "smtpgreet", None),
        ("192.0.2.2", "smtpdata", 7),
        ("192.0.2.2", "smtpgreet", 7),
        ("2001:db8::1", "smtpgreet", 7),
    ]


@pytest.mark.parametrize("manifest", [b"", b"{}", b"<html>", b'{"generated": "soon"}', b"\xff"])
def test_unreadable_manifest_has_no_time(manifest: bytes) -> None:
    assert generated_at(manifest) is None


def replaced(old: str, new: str) -> Callable[[str], str]:
    def replace(text: str) -> str:
        assert old in text
        return text.replace(old, new, 1)

    return replace


def doubled(text: str) -> str:
    row = next(line for line in text.splitlines(keepends=True) if not line.startswith("#"))
    return text.replace(row, row * 2)


@pytest.mark.parametrize(
    ("file", "spoil"),
    [
        ("smtpgreet.txt", replaced("#\n", "")),  # 67 lines of header
        ("smtpgreet.txt", replaced("#\n", "#\n#\n")),  # 69
        ("smtpgreet.txt", replaced("# Statistics\n", "")),
        ("smtpgreet.txt", replaced("   Addresses: ", "   Addresses: 1")),
        ("smtpgreet.txt", replaced("        ASNs: ", "        ASNs: 1")),
        ("smtpgreet.txt", replaced("# Statistics", "# See 192.0.2.1")),
        ("smtpgreet.txt", replaced("# Statistics", '# "Statistics"')),
        ("smtpgreet.txt", replaced("  |  smtpgreet\n", "  |  smtpdata\n")),
        ("smtpgreet.txt", replaced("  |  smtpgreet\n", "  |  smtpgreet \n")),
        ("smtpgreet.txt", replaced("COGENT-174 ", "COGENT|174 ")),
        ("smtpgreet.txt", replaced("COGENT-174 ", 'COGENT"174 ')),
        ("smtpgreet.txt", replaced("COGENT-174 ", "C,O,G,NT17 ")),
        ("smtpgreet.txt", replaced("COGENT-174 ", "1.2.3.4-17 ")),
        ("smtpgreet.txt", replaced("COGENT-174 ", "eval(T-174 ")),
        ("smtpgreet.txt", replaced("COGENT-174  ", "COGENT-174 ")),  # not padded
        ("smtpgreet.txt", replaced("COGENT-174", " " * 10)),
        ("smtpgreet.txt", replaced("64496 ", "0     ")),
        ("smtpgreet.txt", replaced("64496 ", "064496")),
        ("smtpgreet.txt", replaced("2001:db8::1 ", "2001:DB8::1 ")),
        ("smtpgreet.txt", replaced("2001:db8::1 ", "2001:db8::g ")),
        ("smtpgreet.txt", replaced("2026-11-23 10:58:30", "2026-11-23T10:58:30")),
        ("smtpgreet.txt", doubled),
        ("smtpgreet.txt", lambda text: text + "\n"),
        ("smtpgreet.txt", lambda text: text[: len(text) // 2]),
        ("smtpgreet-ipv4.txt", replaced("192.0.2.200 ", "192.0.2.201 ")),
        ("smtpgreet-ipv4.txt", doubled),
        ("smtpgreet-ipv6.txt", lambda text: text[: len(text) // 2]),
        ("smtpgreet.csv", replaced(",smtpgreet,", ",smtpgreet,,")),
        ("smtpgreet.csv", replaced(",smtpgreet,", ',x"smtpgreet,",')),  # no field in quotes
        ("smtpgreet.csv", replaced(",smtpgreet,", ',"smtpgreet,"x,')),
        ("smtpgreet.csv", replaced(",smtpgreet,", ',"smtpgreet",,')),
        ("smtpgreet.csv", lambda text: text[: text.rindex("\n", 0, -1) + 1]),
        ("smtpgreet.ndjson", lambda text: text[: text.rindex("\n", 0, -1) + 1]),
        ("smtpgreet.ndjson", replaced("}\n", "\n")),
        ("smtpgreet.ndjson", lambda text: text + '{"ASN":1}\n'),
        ("smtpgreet.ndjson", lambda text: text + "\n"),
        # As many objects as lines, but not one on each.
        ("smtpgreet.ndjson", lambda text: text.replace("}\n{", "}{", 1).replace(",", ",\n", 1)),
        ("smtpgreet.ndjson", lambda text: text.replace("}\n{", "}{", 1) + "\n"),
    ],
)
def test_damaged_file_fails_the_check(
    file: str, spoil: Callable[[str], str], tmp_path: Path
) -> None:
    files = make_feed(tmp_path, "smtpgreet", hostile_rows())
    path = tmp_path / file
    path.write_text(spoil(path.read_text()))
    with pytest.raises(PublishError, match=file):
        check_feed(tmp_path, files)


@pytest.mark.parametrize("name", HOSTILE_NAMES.values())
def test_header_is_harmless_whatever_the_settings_hold(name: str) -> None:
    """The publisher's name and contact are cleaned like AS names."""
    frame = frame_of("smtpgreet")
    spoilt = type(frame)(
        **{
            **{field: getattr(frame, field) for field in frame.__dataclass_fields__},
            "publisher": name,
            "contact": f"{name}\n192.0.2.1 {{braces}} 100 %",
        }
    )
    lines = text_format.header(spoilt).split("\n")
    assert len(lines) == 69
    assert lines.pop() == ""
    assert all(line.startswith("#") and '"' not in line and "192.0" not in line for line in lines)
    assert sum("|" in line for line in lines) == 1


def test_each_feed_says_which_event_it_lists() -> None:
    for name, event in (("smtpgreet", "HELO or EHLO"), ("smtpdata", "the DATA command")):
        assert FEED_BY_NAME[name].event
        assert event in text_format.header(frame_of(name))


def test_left_out_addresses_are_counted_by_reason() -> None:
    reserved = AddressRanges([ip_network("192.0.2.0/24")])
    excluded = AddressRanges([ip_network("198.51.100.0/24"), ip_network("192.0.2.0/25")])
    seen = [Seen("192.0.2.1"), Seen("198.51.100.1"), Seen("203.0.113.1"), Seen("2001:db8::1")]
    published, left_out = LeftOut(reserved, excluded).apply(window_of(seen))
    assert left_out["smtpgreet"] == {"not_global": 1, "excluded": 1}
    assert left_out["smtpdata"] == {"not_global": 0, "excluded": 0}
    assert published.packed(0, len(published)) == [
        pack_address("203.0.113.1"),
        pack_address("2001:db8::1"),
    ]


NETWORKS = st.lists(
    st.tuples(ADDRESSES, st.integers(0, 128)).map(
        lambda pair: ip_network((pair[0], min(pair[1], pair[0].max_prefixlen)), strict=False)
    ),
    max_size=6,
)


@given(st.sets(ADDRESSES, max_size=20), NETWORKS, NETWORKS)
def test_ranges_match_a_window_like_single_addresses(
    addresses: set[IPv4Address | IPv6Address],
    inside: list[IPv4Network | IPv6Network],
    outside: list[IPv4Network | IPv6Network],
) -> None:
    window = window_of(Seen(str(ip)) for ip in addresses)
    ranges = AddressRanges(inside, outside)
    expected = [packed in ranges for packed in window.packed(0, len(window))]
    assert in_ranges(ranges, window.ipv4, window.high, window.low).tolist() == expected
