"""Floods of accounts: what they send over ten seconds, by the test's clock."""

from __future__ import annotations

from smtpfeeds_aggregator import accounts
from smtpfeeds_aggregator.accounts import WINDOW_S, AccountWatch, RefusalCode


class Clock:
    def __init__(self) -> None:
        self.now_s = 1000.5

    def __call__(self) -> float:
        return self.now_s


def watch_of(clock: Clock) -> AccountWatch:
    return AccountWatch(messages_per_s=50, octets_per_s=1_000_000, clock=clock)


def test_flood_of_messages_is_named_in_the_second_in_which_it_passes_the_rate() -> None:
    clock = Clock()
    watch = watch_of(clock)
    for _ in range(50 * WINDOW_S):
        watch.delivered("mallory", 10)
        watch.delivered("honest", 10_000)
    assert watch.floods() == [], "the rate itself is not a flood"
    watch.delivered("mallory", 10)
    (flood,) = [flood for flood in watch.floods() if flood.account == "mallory"]
    assert (flood.messages_per_s, flood.reason) == (50.1, "messages")


def test_one_batch_a_second_is_not_a_flood() -> None:
    clock = Clock()
    watch = watch_of(clock)
    for _ in range(60):
        for _ in range(16):  # workers
            watch.delivered("s1", 60_000)
        assert watch.floods() == []
        clock.now_s += 1


def test_flood_of_refusals_names_the_most_frequent_reason() -> None:
    watch = watch_of(Clock())
    for number in range(WINDOW_S):
        watch.delivered("mallory", 1)
        watch.refused("mallory", RefusalCode.TOO_LARGE if number else RefusalCode.NOT_A_BATCH)
        watch.refused("careless", RefusalCode.NOT_A_BATCH) if number % 2 else None
    assert [(flood.account, flood.refused_per_s, flood.reason) for flood in watch.floods()] == [
        ("mallory", 1.0, "too_large")
    ]


def test_octets_alone_are_a_flood_and_the_largest_comes_first() -> None:
    watch = watch_of(Clock())
    watch.delivered("big", 8 * 1024 * 1024)
    watch.delivered("big", 8 * 1024 * 1024)
    watch.delivered(None, 1_000_001 * WINDOW_S)
    assert [(flood.account, flood.reason) for flood in watch.floods()] == [
        ("big", "octets"),
        ("", "octets"),
    ]


def test_flood_ends_with_its_window() -> None:
    clock = Clock()
    watch = watch_of(clock)
    watch.delivered("mallory", 10**8)
    for _ in range(WINDOW_S - 1):
        clock.now_s += 1
        assert watch.floods()
    clock.now_s += 1
    assert watch.floods() == []
    assert watch._seconds == {}, "nothing of it is kept"


def test_number_of_watched_accounts_is_bounded() -> None:
    watch = watch_of(Clock())
    for number in range(accounts._ACCOUNTS_MAX + 1000):
        watch.delivered(f"a{number}", 1)
    (second,) = watch._seconds.values()
    assert len(second) == accounts._ACCOUNTS_MAX + 1
    assert second[""].messages == 1000
