"""The week in numbers: counts and output."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from publish_support.editions import entry
from smtpfeeds_aggregator.classification.classes import Class, Judgement
from smtpfeeds_aggregator.publish.entries import Entry
from smtpfeeds_aggregator.publish.statistics import (
    TOP,
    Statistic,
    Summary,
    decode,
    encode,
    summarise,
    window_of,
)
from smtpfeeds_aggregator.query.overview import Alive, lines, sparkline
from smtpfeeds_aggregator.store.rows import MAX_COUNT
from smtpfeeds_common.table import Look

NOW = datetime(2026, 11, 26, 1, 30, tzinfo=UTC)


def summary_of(entries: Iterable[Entry], **more: Any) -> Summary:
    window, judgements, names = window_of(entries)
    return summarise(window, judgements, names, generated=NOW, expires=None, **more)


def test_addresses_are_counted_by_feed_class_and_network() -> None:
    summary = summary_of(
        [
            entry("192.0.2.1"),
            entry("192.0.2.1", "smtpdata", first_seen="2026-11-20 00:00:00", hits=5),
            entry("192.0.2.9", asn=None, name="NA", cls=Class.RELAY_TEST),
            entry("2001:db8::1", judgement=Judgement(Class.SURVEY, ("listed",), "Example Scan")),
        ]
    )
    counts = {(r.by, r.key): (r.smtpgreet, r.smtpdata, r.new) for r in summary.rows}
    assert counts["feed", "smtpgreet"] == (3, None, 2)
    assert counts["feed", "smtpdata"] == (None, 1, 0)
    # One of both feeds is new where it is new in both.
    assert counts["class", "probe"] == (1, 1, 0)
    assert counts["class", "relay-test"] == (1, 0, 1)
    assert counts["class", "delivery"] == (0, 0, 0)
    assert counts["asn", "64496"] == (2, 1, 1)
    assert counts["asn", "NA"] == counts["name", "NA"] == (1, 0, 1)
    assert counts["actor", "Example Scan"] == (1, 0, 1)
    assert counts["prefix", "192.0.2.0/24"] == (2, 1, 1)
    assert counts["prefix", "2001:db8::/48"] == (1, 0, 1)
    assert counts["day", "2026-11-26"] == (3, 1, None)
    assert counts["day", "2026-11-24"] == (0, 0, None)
    hits = {(r.by, r.key): (r.greet_events, r.data_events) for r in summary.rows}
    assert hits["asn", "64496"] == (6, 5)
    assert decode(encode(summary)) == summary


def test_empty_edition_has_only_classes_and_days() -> None:
    summary = summary_of([])
    assert {row.by for row in summary.rows} == {"feed", "class", "day"}


def test_sums_of_the_largest_hits_end_at_the_bound_of_a_count() -> None:
    rows = [entry(f"192.0.2.{n}", hits=MAX_COUNT) for n in range(1, 8)]
    summary = summary_of([*rows, entry("198.51.100.1", hits=2**52, asn=64497)])
    events = {(row.by, row.key): row.greet_events for row in summary.rows}
    for group in (("feed", "smtpgreet"), ("class", "probe"), ("prefix", "192.0.2.0/24")):
        assert events[group] == MAX_COUNT
    assert events["asn", "64497"] == 2**52


def test_unbounded_groups_are_bounded() -> None:
    rows = [entry(f"10.{n // 256}.{n % 256}.1", asn=n + 1, name=f"AS {n}") for n in range(TOP + 9)]
    hours = [(NOW - timedelta(hours=n), "smtpgreet", n) for n in range(168)]
    summary = summary_of(rows, hours=hours, sensors=[(f"s{n}", "smtpdata", 1) for n in range(400)])
    for kind in ("asn", "name", "prefix", "sensor"):
        assert len(summary.by(kind)) == TOP
    assert len(summary.by("hour")) == 168


@given(st.lists(st.integers(0, 10**15), max_size=200), st.integers(1, 200))
def test_sparkline_fits_and_shows_every_value_above_zero(values: list[int], width: int) -> None:
    picture = sparkline(values, width)
    assert len(picture) <= width
    assert (picture.strip() == "") == (not any(values))
    if len(values) <= width:
        assert [mark == " " for mark in picture] == [value == 0 for value in values]
        if any(values):
            assert picture[values.index(max(values))] == "█"


def row(by: str, key: str, name: str | None = None) -> Statistic:
    return Statistic(by, key, name, 123_456, 7_890, 42, 9_999_999, 5)


FULL = Summary(
    NOW,
    NOW + timedelta(hours=1),
    [
        Statistic("feed", "smtpgreet", None, 123_456, None, 42, 9_999_999, None),
        Statistic("feed", "smtpdata", None, None, 7_890, 2, None, 5),
        *(row("class", cls) for cls in Class),
        *(row("asn", str(4_200_000_000 + n), "A NAME OF THIRTY CHARACTERS XX") for n in range(20)),
        *(row("actor", f"Actor {n}") for n in range(3)),
        *(row("prefix", f"2001:db8:{n:x}00::/48") for n in range(20)),
        *(row("hour", f"{NOW - timedelta(hours=n):%Y-%m-%dT%H:00Z}") for n in range(168) if n % 3),
    ],
)


@pytest.mark.parametrize("width", [1, 12, 40, 80, 120, None])
@pytest.mark.parametrize("ellipsis", ["…", "~"])
def test_the_overview_fits_the_terminal(width: int | None, ellipsis: str) -> None:
    alive = Alive(7, ("sensor-a", "sensor-b"))
    shown = list(lines(FULL, alive, Look(width, ellipsis=ellipsis), NOW))
    many = Alive(7, ("a" * 60, "b" * 60))
    assert len(list(lines(FULL, many, Look(80), NOW))[1]) == 80
    if width is not None and width >= 80:
        assert [line for line in shown if len(line) > width] == []
    assert ellipsis == "…" or all(line.isascii() for line in shown)
    if width is None or width >= 80:
        assert shown[:2] == [
            "edition of 2026-11-26T01:30:00Z",
            "sensors: 7 alive, silent: sensor-a, sensor-b",
        ]
        assert any(line.startswith("smtpdata    ") and len(line) > 20 for line in shown)
    late = next(iter(lines(FULL, None, Look(width), NOW + timedelta(hours=2))))
    is_wide = width is None or width >= 80
    assert late.endswith(", expired 2026-11-26T02:30:00Z" if is_wide else "…")
