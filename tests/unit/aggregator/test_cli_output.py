"""A table in a terminal: what is read there can be copied, whatever the terminal's width."""

from __future__ import annotations

import pytest

from smtpfeeds_aggregator.cli.output import least_widths, widths_that_fit

TITLES = ("address", "feed", "last seen UTC", "first seen UTC", "hits", "AS name", "tags")
ROW = (
    "198.51.100.9",
    "smtpgreet",
    "2026-11-23 14:54:50",
    "2026-11-23 14:54:50",
    "1234",
    "Sample Cloud",
    "bare_lf full_host_name",
)


def test_no_address_and_no_time_is_ever_broken() -> None:
    least = dict(zip(TITLES, least_widths(TITLES, [ROW]), strict=True))
    assert least["address"] == len("198.51.100.9")
    assert least["last seen UTC"] == len("2026-11-23 14:54:50")


def test_names_and_tags_are_broken_between_words_only() -> None:
    least = dict(zip(TITLES, least_widths(TITLES, [ROW]), strict=True))
    assert least["AS name"] == len("Sample")
    assert least["tags"] == len("full_host_name")


def test_word_of_any_length_takes_a_bounded_width() -> None:
    (name,) = least_widths(["AS name"], [["x" * 200]])
    assert name == 16


def test_titles_without_rows_keep_their_longest_word() -> None:
    assert least_widths(["spool depth", "tags"], [("3", "")]) == [5, 4]


@pytest.mark.parametrize(
    ("width", "missing"),
    [
        (200, set()),
        (95, set()),  # 12 + 9 + 19 + 19 + 4 + 6 + 14, and six gaps of two: it just fits
        (94, {"first seen UTC"}),
        (73, {"first seen UTC", "tags"}),
        (20, {"first seen UTC", "tags"}),  # the rest is never shed: the terminal breaks the lines
    ],
)
def test_narrow_terminal_goes_without_what_can_be_missed(width: int, missing: set[str]) -> None:
    widths = widths_that_fit(TITLES, [ROW], width)
    assert {title for column, title in enumerate(TITLES) if column not in widths} == missing


@pytest.mark.parametrize("width", [60, 80, 95, 110, 200])
def test_columns_grow_to_their_cells_and_not_past_the_terminal(width: int) -> None:
    widths = widths_that_fit(TITLES, [ROW], width)
    least = least_widths(TITLES, [ROW])
    assert all(least[column] <= wide <= len(ROW[column]) for column, wide in widths.items())
    least_line = sum(least[column] for column in widths) + 2 * (len(widths) - 1)
    assert sum(widths.values()) + 2 * (len(widths) - 1) <= max(width, least_line)
