"""Waits before the next attempt."""

from __future__ import annotations

from smtpfeeds_common.backoff import Backoff


def test_wait_doubles_up_to_the_longest_with_jitter() -> None:
    low, high = Backoff(60, rng=lambda: 0.0), Backoff(60, rng=lambda: 1.0)
    assert [high.next_s() for _ in range(9)] == [0.5, 1, 2, 4, 8, 16, 32, 60, 60]
    assert [low.next_s() for _ in range(3)] == [0.25, 0.5, 1.0]
    high.reset()
    assert high.next_s() == 0.5
    assert all(high.next_s() <= 60 for _ in range(2000))


def test_wait_without_jitter_is_exact() -> None:
    backoff = Backoff(30, rng=None)
    assert [backoff.after(ran_s=0.1) for _ in range(9)] == [0.5, 1, 2, 4, 8, 16, 30, 30, 30]


def test_program_that_ran_a_while_is_started_again_at_once() -> None:
    backoff = Backoff(30, rng=None)
    for _ in range(9):
        backoff.after(ran_s=1)
    assert backoff.after(ran_s=61) == 0.5
    assert backoff.after(ran_s=59) == 1
