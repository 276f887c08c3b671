"""The harness finds what it is there to find: a comparison that cannot fail proves nothing."""

from __future__ import annotations

import dataclasses

import pytest

from faults.load import feeds_attempted
from faults.reckoning import HOUR_MS, Entry, Key, Recorded, Row, events, judge
from smtpfeeds_deploy.simulation.ledger import Bracket, Heard

NOON = 1_795_435_200_000
GREET, DATA = "smtpgreet", "smtpdata"


def heard(feed: str, at_ms: int = NOON, width_ms: int = 10) -> Heard:
    return Heard(feed, Bracket(at_ms, at_ms + width_ms))


ENTRIES = [
    Entry("192.0.2.1", "s1", (heard(GREET), heard(DATA, NOON + 50))),
    Entry("192.0.2.1", "s2", (heard(GREET, NOON + 100),)),
    # Cut off after DATA was sent: may count, once.
    Entry("192.0.2.2", "s1", (heard(GREET),), (heard(DATA, NOON, 1000),)),
    # Cut off before any answer.
    Entry("192.0.2.3", "s1", (), (heard(GREET, NOON, 1000),)),
]


def truth(*, maybe: bool) -> Recorded:
    """What a database says in which all that may count does, or does not."""
    one, two, three = "192.0.2.1", "192.0.2.2", "192.0.2.3"
    sightings: dict[Key, Row] = {
        (GREET, one, "s1"): Row(1, NOON + 5, NOON + 55),
        (DATA, one, "s1"): Row(1, NOON + 55, NOON + 55),
        (GREET, one, "s2"): Row(1, NOON + 105, NOON + 105),
        (GREET, two, "s1"): Row(1, NOON + 5, NOON + 700 if maybe else NOON + 5),
    }
    observations: dict[Key, Row] = {
        (GREET, one): Row(2, NOON + 5, NOON + 105),
        (DATA, one): Row(1, NOON + 55, NOON + 55),
        (GREET, two): sightings[GREET, two, "s1"],
    }
    if maybe:
        for feed, ip in ((DATA, two), (GREET, three)):
            observations[feed, ip] = sightings[feed, ip, "s1"] = Row(1, NOON + 700, NOON + 700)
    activity = {
        (NOON, GREET, "s1"): 2 + maybe,
        (NOON, DATA, "s1"): 1 + maybe,
        (NOON, GREET, "s2"): 1,
    }
    return Recorded(observations, sightings, activity)


@pytest.mark.parametrize("maybe", [False, True])
def test_what_was_cut_off_may_count_or_not(maybe: bool) -> None:
    verdict = judge(ENTRIES, truth(maybe=maybe))
    assert verdict.good, str(verdict)
    assert events(ENTRIES) == (4, 2)


def test_a_missing_row_is_lost() -> None:
    counted = truth(maybe=True)
    observations = {k: row for k, row in counted.observations.items() if k != (GREET, "192.0.2.1")}
    verdict = judge(ENTRIES, dataclasses.replace(counted, observations=observations))
    assert (verdict.lost, verdict.twice, verdict.invented) == (2, 0, 0)


def test_a_hit_too_few_is_lost_and_a_hit_too_many_counted_twice() -> None:
    counted = truth(maybe=True)
    for hits, lost, twice in ((1, 1, 0), (3, 0, 1)):
        changed = {
            **counted.observations,
            (GREET, "192.0.2.1"): Row(hits, NOON + 5, NOON + 105),
        }
        verdict = judge(ENTRIES, dataclasses.replace(counted, observations=changed))
        assert (verdict.lost, verdict.twice) == (lost, twice)


def test_what_was_cut_off_does_not_count_twice() -> None:
    counted = truth(maybe=True)
    changed = {**counted.sightings, (GREET, "192.0.2.3", "s1"): Row(2, NOON + 700, NOON + 701)}
    assert judge(ENTRIES, dataclasses.replace(counted, sightings=changed)).twice == 1


def test_an_address_that_never_came_is_invented() -> None:
    counted = truth(maybe=False)
    changed = {**counted.observations, (GREET, "192.0.2.9"): Row(3, NOON, NOON)}
    assert judge(ENTRIES, dataclasses.replace(counted, observations=changed)).invented == 3


def test_a_sensor_that_did_not_see_it_is_invented() -> None:
    counted = truth(maybe=False)
    changed = {**counted.sightings, (GREET, "192.0.2.2", "s2"): Row(1, NOON, NOON)}
    assert judge(ENTRIES, dataclasses.replace(counted, sightings=changed)).invented == 1


@pytest.mark.parametrize(("events_an_hour", "lost", "twice"), [(1, 1, 0), (4, 0, 1)])
def test_an_hour_that_counts_otherwise_is_seen(events_an_hour: int, lost: int, twice: int) -> None:
    counted = truth(maybe=True)
    changed = {**counted.activity, (NOON, GREET, "s1"): events_an_hour}
    verdict = judge(ENTRIES, dataclasses.replace(counted, activity=changed))
    assert (verdict.lost, verdict.twice) == (lost, twice)


def test_an_hour_in_which_nobody_came_is_invented() -> None:
    counted = truth(maybe=True)
    changed = {**counted.activity, (NOON + HOUR_MS, GREET, "s1"): 1}
    assert judge(ENTRIES, dataclasses.replace(counted, activity=changed)).invented == 1


def test_a_time_outside_of_the_clients_bracket_is_seen() -> None:
    """A data event raises the greet row's last time, so the greet's own time is wrong there."""
    counted = truth(maybe=False)
    changed = {**counted.sightings, (GREET, "192.0.2.1", "s1"): Row(1, NOON + 5, NOON + 5)}
    verdict = judge(ENTRIES, dataclasses.replace(counted, sightings=changed))
    assert not verdict.good
    assert (verdict.lost, verdict.twice, verdict.invented) == (0, 0, 0)


def test_data_without_greet_is_seen() -> None:
    counted = truth(maybe=True)
    changed = {k: row for k, row in counted.observations.items() if k != (GREET, "192.0.2.2")}
    verdict = judge(ENTRIES, dataclasses.replace(counted, observations=changed))
    assert any("not in smtpgreet" in line for line in verdict.says)


@pytest.mark.parametrize(
    ("sent", "feeds"),
    [
        (b"", []),
        (b"EHLO x", []),  # no line's end: never heard
        (b"ehlo x\r\n", [GREET]),
        (b"EHLO\nMAIL FROM:<>\nDATA\n", [GREET, DATA]),
        (b"DATA\r\nEHLO x\r\n", [GREET]),  # before the greet it does not count
        (b"HELO x\r\nBDAT 8 LAST\r\n12345678", [GREET, DATA]),
        (b"GET / HTTP/1.1\r\nUser-Agent: EHLO\r\n\r\n", []),
    ],
)
def test_what_was_sent_tells_what_may_count(sent: bytes, feeds: list[str]) -> None:
    assert feeds_attempted(sent) == feeds
