"""All commands write times in the same form."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import pytest

from smtpfeeds_common.times import iso_utc, row_seconds, row_time

EAST = timezone(timedelta(hours=2))


@pytest.mark.parametrize(
    "time",
    [
        datetime(2026, 11, 23, 15, 24, 31, tzinfo=UTC),
        datetime(2026, 11, 23, 15, 24, 31, 999_999, tzinfo=UTC),  # cut, not rounded
        datetime(2026, 11, 23, 17, 24, 31, tzinfo=EAST),
        datetime(2026, 11, 23, 15, 24, 31),  # noqa: DTZ001 - without a zone it is UTC
    ],
)
def test_time_is_utc_to_the_second(time: datetime) -> None:
    assert iso_utc(time) == "2026-11-23T15:24:31Z"


def test_time_of_a_row_is_read_as_it_was_written() -> None:
    assert row_time(1_795_447_471) == "2026-11-23 15:24:31"
    assert row_seconds("2026-11-23 15:24:31") == 1_795_447_471
