"""The prefetch: many ordinary batches, or few large messages."""

from __future__ import annotations

from smtpfeeds_aggregator.sources.prefetch import CALM_S, MAX_BYTES, NARROW, Prefetch
from smtpfeeds_common.wire import MAX_BODY_BYTES

SMALL = 100_000


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


def test_ordinary_batches_keep_the_large_prefetch() -> None:
    hand = Prefetch(100, Clock())
    for _ in range(100):
        hand.add(SMALL)
    assert (hand.adapt(), hand.prefetch, hand.is_full) == (False, 100, True)
    hand.remove(SMALL)
    assert not hand.is_full


def test_large_messages_reduce_the_prefetch_to_the_bound() -> None:
    hand = Prefetch(100, Clock())
    count = 0
    while not hand.adapt():
        hand.add(MAX_BODY_BYTES)
        count += 1
    assert count * MAX_BODY_BYTES <= MAX_BYTES + MAX_BODY_BYTES
    assert (hand.prefetch, hand.is_full) == (NARROW, True)
    assert NARROW * MAX_BODY_BYTES <= MAX_BYTES
    assert not hand.adapt(), "the consumer begins again once"


def test_prefetch_grows_after_a_while_without_large_messages() -> None:
    clock = Clock()
    hand = Prefetch(100, clock)
    for _ in range(NARROW + 1):
        hand.add(MAX_BODY_BYTES)
    assert hand.adapt()
    for _ in range(NARROW + 1):
        hand.remove(MAX_BODY_BYTES)
    clock.now += CALM_S / 2
    hand.add(MAX_BODY_BYTES)
    clock.now += CALM_S - 1
    hand.add(SMALL)
    assert not hand.adapt()
    clock.now += 1
    assert (hand.adapt(), hand.prefetch) == (True, 100)


def test_ended_session_has_no_unacknowledged_messages() -> None:
    hand = Prefetch(2, Clock())
    hand.add(MAX_BODY_BYTES)
    hand.add(MAX_BODY_BYTES)
    hand.clear()
    assert not hand.is_full


def test_small_prefetch_stays() -> None:
    hand = Prefetch(2, Clock())
    for _ in range(NARROW + 1):
        hand.add(MAX_BODY_BYTES)
    assert (hand.adapt(), hand.prefetch) == (False, 2)
