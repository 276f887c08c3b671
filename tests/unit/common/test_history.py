"""Bits that age: compared with a simulation that keeps every visit."""

from __future__ import annotations

from functools import reduce
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from smtpfeeds_common.history import (
    AWAY_DAYS,
    DAY_MS,
    DAYS_MAX,
    History,
    days_seen,
    fold,
    marks,
    masked,
    moved,
    of_event,
    of_note,
    recent_flags,
    recent_targets,
    returned,
)

START = 20_000
Visit = tuple[int, int, int]
"""Day, flags, targets."""
VISITS = st.lists(
    st.tuples(st.integers(START, START + 90), st.integers(0, 2**29 - 1), st.integers(0, 2**64 - 1)),
    min_size=1,
    max_size=12,
)


def history(visits: list[Visit]) -> History:
    events = [of_event(day * DAY_MS + 5, flags, targets) for day, flags, targets in visits]
    return reduce(fold, events)


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
    assert recent_targets(row, today) == ored(visits, week, 2) | ored(visits, week - 1, 2)
    days = {day for day, _, _ in visits if today - day < DAYS_MAX and newest - day < DAYS_MAX}
    assert days_seen(row, today, 7) == len([day for day in days if today - day < 7])
    assert days_seen(row, today, DAYS_MAX) == len(days)
    assert marks(row, today) == "".join(
        "#" if today - back in days else "." for back in range(6, -1, -1)
    )


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
    assert recent_targets(row, row.day + 14) == 0
    assert moved(row, row.day + DAYS_MAX).days == 0


def test_a_note_adds_behaviours_and_no_day() -> None:
    event = of_event(START * DAY_MS, 1, 2)
    noted = fold(event, of_note(START * DAY_MS + 9, 4))
    assert noted == event._replace(flags_now=5)
    # Of an event of the week before, its behaviours stay in that week.
    assert fold(of_event((START + 7) * DAY_MS, 1, 2), of_note(START * DAY_MS, 4)).flags_before == 4


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


@given(st.sets(st.integers(0, DAYS_MAX - 1), min_size=1), st.integers(0, 10))
def test_returned_is_a_gap_that_ended_within_a_week(backs: set[int], later: int) -> None:
    row = History(START, sum(1 << back for back in backs))
    shifted = sorted(back + later for back in backs if back + later < DAYS_MAX)
    expected = any(older - newer > AWAY_DAYS and newer < 7 for newer, older in pairwise(shifted))
    assert returned(row, START + later) == expected
