"""Bits that age, compared with a simulation that keeps every visit."""

from __future__ import annotations

import tracemalloc
from functools import reduce

import pytest
from hypothesis import given
from hypothesis import strategies as st

from smtpfeeds_common.history import (
    DAY_MS,
    DAYS_MAX,
    History,
    clamped,
    fold,
    masked,
    moved,
    of_stored,
    recent_flags,
)
from smtpfeeds_common.wire import MS_MAX

START = 20_000
Visit = tuple[int, int, int]
"""Day, flags, targets."""
VISITS = st.lists(
    st.tuples(st.integers(START, START + 90), st.integers(0, 2**29 - 1), st.integers(0, 2**64 - 1)),
    min_size=1,
    max_size=12,
)


def history(visits: list[Visit]) -> History:
    return reduce(fold, [History(day, 1, flags, 0, targets, 0) for day, flags, targets in visits])


def ored(visits: list[Visit], week: int, field: int) -> int:
    return reduce(int.__or__, (visit[field] for visit in visits if visit[0] // 7 == week), 0)


@given(VISITS, st.integers(0, 100))
def test_what_is_kept_is_what_a_list_of_all_visits_says(visits: list[Visit], later: int) -> None:
    row = history(visits)
    newest = max(day for day, _, _ in visits)
    assert row.day == newest
    seen = {newest - day for day, _, _ in visits if newest - day < DAYS_MAX}
    assert row.days == sum(1 << back for back in seen)
    today = newest + later
    week = today // 7
    assert recent_flags(row, today) == ored(visits, week, 1) | ored(visits, week - 1, 1)
    days = {day for day, _, _ in visits if today - day < DAYS_MAX and newest - day < DAYS_MAX}
    assert moved(row, today).days == sum(1 << (today - day) for day in days)


@given(VISITS, st.randoms(use_true_random=False))
def test_neither_order_nor_repetition_changes_a_row(visits: list[Visit], random: object) -> None:
    again = visits + visits[:3]
    random.shuffle(again)  # type: ignore[attr-defined]  # hypothesis gives a Random
    assert history(again) == history(visits)


@given(VISITS, VISITS, VISITS)
def test_rows_may_be_folded_in_any_grouping(
    first: list[Visit], second: list[Visit], third: list[Visit]
) -> None:
    a, b, c = history(first), history(second), history(third)
    assert fold(fold(a, b), c) == fold(a, fold(b, c))
    assert fold(a, b) == fold(b, a)
    assert fold(a, History()) == a


@given(VISITS)
def test_after_two_weeks_nothing_of_an_old_visit_is_left(visits: list[Visit]) -> None:
    row = history(visits)
    assert recent_flags(row, row.day + 14) == 0
    assert moved(row, row.day + 14)[2:] == (0, 0, 0, 0)
    assert moved(row, row.day + DAYS_MAX).days == 0


def test_a_note_adds_behaviours_and_no_day() -> None:
    event, note = History(START, 1, 1, 0, 2), History(START, 0, 4)
    assert fold(event, note) == event._replace(flags_now=5)
    # Behaviours of an event of the week before stay in that week.
    assert fold(event._replace(day=START + 7), note).flags_before == 4


@given(VISITS, st.integers(7, 3650), st.integers(0, 40))
def test_a_mask_leaves_no_day_outside_of_the_row(
    visits: list[Visit], retention: int, earlier: int
) -> None:
    row = history(visits)
    first = min(day for day, _, _ in visits) - earlier
    days = masked(row.days, row.day, first, retention)
    seen = {back for back in range(64) if days >> back & 1}
    assert 0 in seen
    assert max(seen) <= min(row.day - first, retention, DAYS_MAX - 1)
    if row.day - first <= min(retention, DAYS_MAX - 1):
        assert row.day - first in seen
    assert masked(days, row.day, first, retention) == days


def test_a_row_that_begins_in_the_future_has_no_days() -> None:
    assert masked(1, START, START + 1, 30) == 0


@given(VISITS, st.integers(START - 30, START + 120))
def test_clamped_visits_are_of_the_day_of_the_clock(visits: list[Visit], today: int) -> None:
    """Behaviours older than the two weeks of the newest visit are not known."""
    row = history(visits)
    newest = max(day for day, _, _ in visits)
    known = {min(day, today) for day, _, _ in visits if newest - day < DAYS_MAX}
    if newest <= today:
        assert clamped(row, today) == row
        return
    result = clamped(row, today)
    assert result.day == today
    assert result.days == sum(1 << back for back in {today - day for day in known})
    kept = [
        (min(day, today), flags, targets)
        for day, flags, targets in visits
        if newest // 7 - day // 7 < 2
    ]
    assert result.flags_now == ored(kept, today // 7, 1)
    assert recent_flags(result, today) == reduce(int.__or__, (visit[1] for visit in kept))


def test_day_in_the_far_future_costs_no_more_memory_than_another() -> None:
    row = History(day=MS_MAX // DAY_MS, days=0b101, flags_now=1)
    tracemalloc.start()
    try:
        result = clamped(row, 20_000)
        assert tracemalloc.get_traced_memory()[1] < 10_000
    finally:
        tracemalloc.stop()
    assert result == History(day=20_000, days=1, flags_now=1)


#: Stored columns, all flags, days of first_seen and last_seen, retention; days and flags then.
STORED = [
    # Only 0.1.0 has written it: first and last day, and flags of the last day.
    (History(), 5, START - 3, START, 60, History(START, 0b1001, 5)),
    (History(), 5, START, START, 60, History(START, 1, 5)),
    # 0.1.0 has moved last_seen and added flags since.
    (History(START, 0b101, 4), 12, START - 2, START + 1, 60, History(START + 1, 0b1011, 12)),
    (History(START, 1, 4), 12, START, START + 7, 60, History(START + 7, 1 | 1 << 7, 8, 4)),
    # Moved to a day after its last event; no day after last_seen counts.
    (History(START, 0b1111, 4), 4, START - 3, START - 2, 60, History(START, 0b1100, 4)),
    # No day before first_seen or past the retention.
    (History(START, 0b11111, 4), 4, START - 2, START, 60, History(START, 0b111, 4)),
    (History(START, 1 << 40 | 1, 4), 4, START - 50, START, 30, History(START, 1, 4)),
]


@pytest.mark.parametrize(("stored", "every", "first", "last", "retention", "expected"), STORED)
def test_stored_row_of_any_version_has_a_history(
    stored: History, every: int, first: int, last: int, retention: int, expected: History
) -> None:
    assert of_stored(stored, every, first, last, retention) == expected
