"""Columns and single rows give the same days and behaviours, whichever version wrote them."""

from __future__ import annotations

from datetime import timedelta

from hypothesis import given
from hypothesis import strategies as st

from publish_support import NOW, Seen, window_of
from smtpfeeds_aggregator.classification.recent import recent
from smtpfeeds_common.history import OLDER

TODAY = int(NOW.timestamp()) // 86_400
bits = st.integers(0, 2**29 - 1)


@st.composite
def stored(draw: st.DrawFn) -> Seen:
    """Return a row whose days and bits may be relative to a day before or after its last event."""
    last_back, age = draw(st.integers(0, 7)), draw(st.integers(0, 5) | st.integers(0, 400))
    last = NOW - timedelta(days=last_back)
    is_old = draw(st.booleans())
    if draw(st.booleans()):
        # As today's writers leave a row: bits relative to its last event, all of them of a week.
        now, before = draw(bits), draw(bits)
        return Seen(
            "192.0.2.1",
            last_seen=last,
            first_seen=last - timedelta(days=age),
            day=TODAY - last_back,
            days=draw(st.integers(0, OLDER * 2 - 1)),
            flags=draw(st.sampled_from((now, before, now | before, 0))),
            flags_now=now,
            flags_before=before,
        )
    return Seen(
        "192.0.2.1",
        last_seen=last,
        first_seen=last - timedelta(days=age),
        day=0 if is_old else TODAY - draw(st.integers(-1, 80)),
        days=0 if is_old else draw(st.integers(0, OLDER * 2 - 1)),
        flags=draw(bits),
        flags_now=0 if is_old else draw(bits),
        flags_before=0 if is_old else draw(bits),
    )


@given(st.lists(stored(), min_size=1, max_size=3))
def test_columns_and_rows_give_the_same_recent_values(rows: list[Seen]) -> None:
    for row in rows:
        (greet, _) = window_of([row]).feeds
        assert (greet.days[0], greet.flags[0]) == recent(
            row.day,
            row.days,
            (row.flags, row.flags_now, row.flags_before),
            int(row.last_seen.timestamp()) // 86_400,
            int(row.first_seen.timestamp()) // 86_400,
            TODAY,
        )
        assert greet.days[0] & 1 << (TODAY - int(row.last_seen.timestamp()) // 86_400) or (
            row.last_seen < NOW - timedelta(days=6)
        )
