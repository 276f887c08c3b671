"""The comparison of the fault runs finds every kind of error."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from faults.load import _WEIGHTS, feeds_attempted
from faults.reckoning import (
    DAY_MS,
    HOUR_MS,
    Entry,
    Key,
    Recorded,
    Row,
    events,
    judge,
    whole_entries,
)
from faults.shown import BY_KIND, target_of
from smtpfeeds_common.behaviours import Flags
from smtpfeeds_deploy.simulation.clients import KINDS
from smtpfeeds_deploy.simulation.ledger import Bracket, Heard

NOON = 1_795_435_200_000
GREET, DATA = "smtpgreet", "smtpdata"


def heard(feed: str, at_ms: int = NOON, width_ms: int = 10) -> Heard:
    return Heard(feed, Bracket(at_ms, at_ms + width_ms))


def row(hits: int, first_ms: int, last_ms: int) -> Row:
    """Create a row without behaviours, on the days of its times."""
    days = frozenset(range(first_ms // DAY_MS, last_ms // DAY_MS + 1))
    return Row(hits, first_ms, last_ms, 0, 0, 0, days)


ENTRIES = [
    Entry("192.0.2.1", "s1", (heard(GREET), heard(DATA, NOON + 50))),
    Entry("192.0.2.1", "s2", (heard(GREET, NOON + 100),)),
    # Cut off after DATA was sent: may count, once.
    Entry("192.0.2.2", "s1", (heard(GREET),), (heard(DATA, NOON, 1000),)),
    # Cut off before any answer.
    Entry("192.0.2.3", "s1", (), (heard(GREET, NOON, 1000),)),
]


def truth(*, maybe: bool) -> Recorded:
    """Return the rows of a database in which all uncertain events count, or none."""
    one, two, three = "192.0.2.1", "192.0.2.2", "192.0.2.3"
    sightings: dict[Key, Row] = {
        (GREET, one, "s1"): row(1, NOON + 5, NOON + 55),
        (DATA, one, "s1"): row(1, NOON + 55, NOON + 55),
        (GREET, one, "s2"): row(1, NOON + 105, NOON + 105),
        (GREET, two, "s1"): row(1, NOON + 5, NOON + 700 if maybe else NOON + 5),
    }
    observations: dict[Key, Row] = {
        (GREET, one): row(2, NOON + 5, NOON + 105),
        (DATA, one): row(1, NOON + 55, NOON + 55),
        (GREET, two): sightings[GREET, two, "s1"],
    }
    if maybe:
        for feed, ip in ((DATA, two), (GREET, three)):
            observations[feed, ip] = sightings[feed, ip, "s1"] = row(1, NOON + 700, NOON + 700)
    activity = {
        (NOON, GREET, "s1"): 2 + maybe,
        (NOON, DATA, "s1"): 1 + maybe,
        (NOON, GREET, "s2"): 1,
    }
    return Recorded(observations, sightings, activity)


@pytest.mark.parametrize("maybe", [False, True])
def test_event_without_an_answer_may_count_or_not(maybe: bool) -> None:
    verdict = judge(ENTRIES, truth(maybe=maybe))
    assert verdict.good, str(verdict)
    assert events(ENTRIES) == (4, 2)


def test_missing_row_is_reported_as_lost() -> None:
    counted = truth(maybe=True)
    observations = {k: row for k, row in counted.observations.items() if k != (GREET, "192.0.2.1")}
    verdict = judge(ENTRIES, dataclasses.replace(counted, observations=observations))
    assert (verdict.lost, verdict.twice, verdict.invented) == (2, 0, 0)


def test_missing_hit_is_lost_and_extra_hit_is_counted_twice() -> None:
    counted = truth(maybe=True)
    for hits, lost, twice in ((1, 1, 0), (3, 0, 1)):
        changed = {
            **counted.observations,
            (GREET, "192.0.2.1"): row(hits, NOON + 5, NOON + 105),
        }
        verdict = judge(ENTRIES, dataclasses.replace(counted, observations=changed))
        assert (verdict.lost, verdict.twice) == (lost, twice)


def test_event_without_an_answer_may_not_count_twice() -> None:
    counted = truth(maybe=True)
    changed = {**counted.sightings, (GREET, "192.0.2.3", "s1"): row(2, NOON + 700, NOON + 701)}
    assert judge(ENTRIES, dataclasses.replace(counted, sightings=changed)).twice == 1


def test_address_of_no_client_is_invented() -> None:
    counted = truth(maybe=False)
    changed = {**counted.observations, (GREET, "192.0.2.9"): row(3, NOON, NOON)}
    assert judge(ENTRIES, dataclasses.replace(counted, observations=changed)).invented == 3


def test_sighting_of_another_sensor_is_invented() -> None:
    counted = truth(maybe=False)
    changed = {**counted.sightings, (GREET, "192.0.2.2", "s2"): row(1, NOON, NOON)}
    assert judge(ENTRIES, dataclasses.replace(counted, sightings=changed)).invented == 1


@pytest.mark.parametrize(("events_an_hour", "lost", "twice"), [(1, 1, 0), (4, 0, 1)])
def test_wrong_count_of_an_hour_is_reported(events_an_hour: int, lost: int, twice: int) -> None:
    counted = truth(maybe=True)
    changed = {**counted.activity, (NOON, GREET, "s1"): events_an_hour}
    verdict = judge(ENTRIES, dataclasses.replace(counted, activity=changed))
    assert (verdict.lost, verdict.twice) == (lost, twice)


def test_hour_without_clients_is_invented() -> None:
    counted = truth(maybe=True)
    changed = {**counted.activity, (NOON + HOUR_MS, GREET, "s1"): 1}
    assert judge(ENTRIES, dataclasses.replace(counted, activity=changed)).invented == 1


def test_time_outside_the_clients_bracket_is_reported() -> None:
    """A data event raises the greet row's last time, so the greet's own is wrong there."""
    counted = truth(maybe=False)
    changed = {**counted.sightings, (GREET, "192.0.2.1", "s1"): row(1, NOON + 5, NOON + 5)}
    verdict = judge(ENTRIES, dataclasses.replace(counted, sightings=changed))
    assert not verdict.good
    assert (verdict.lost, verdict.twice, verdict.invented) == (0, 0, 0)


def test_data_without_greet_is_reported() -> None:
    counted = truth(maybe=True)
    changed = {k: row for k, row in counted.observations.items() if k != (GREET, "192.0.2.2")}
    verdict = judge(ENTRIES, dataclasses.replace(counted, observations=changed))
    assert any("not in smtpgreet" in line for line in verdict.differences)


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
def test_written_octets_decide_which_feeds_may_count(sent: bytes, feeds: list[str]) -> None:
    assert feeds_attempted(sent) == feeds


# Behaviours, days and targets.

_SHOWN = BY_KIND["mailer"]
_SOURCE, _LATER = "192.0.2.1", "192.0.2.2"
_HERE = target_of("192.0.2.7")


def mailer(at_ms: int = NOON, *, ended: bool = True, source: str = _SOURCE) -> Entry:
    """Return a delivery that took a second."""
    return Entry(
        source,
        "s1",
        (heard(GREET, at_ms + 10), heard(DATA, at_ms + 500)),
        target=_HERE,
        flags=_SHOWN.whole,
        answered_flags=_SHOWN.answered,
        began_ms=at_ms,
        ended_ms=at_ms + 1000 if ended else None,
    )


#: A client that ended, and a later one whose end is not known.
VISITS = [mailer(), mailer(NOON + 2000, ended=False, source=_LATER)]


def stored(changed: Key = (), **changes: Any) -> Recorded:
    """Return the stored rows of these clients, with changes of one row."""
    sightings: dict[Key, Row] = {}
    for source, at_ms in ((_SOURCE, NOON), (_LATER, NOON + 2000)):
        days = frozenset({NOON // DAY_MS})
        sightings |= {
            (feed, source, "s1"): Row(
                1, at_ms + offset, at_ms + 505, _SHOWN.whole, _SHOWN.whole, _HERE, days
            )
            for feed, offset in ((GREET, 15), (DATA, 505))
        }
    if changed:
        sightings[changed] = sightings[changed]._replace(**changes)
    observations = {key[:2]: each._replace(targets=None) for key, each in sightings.items()}
    return Recorded(observations, sightings, {(NOON, GREET, "s1"): 2, (NOON, DATA, "s1"): 2})


KEY = (GREET, _SOURCE, "s1")
LATER_KEY = (GREET, _LATER, "s1")


def test_behaviours_are_exact_if_the_sensor_answered_a_later_client() -> None:
    assert whole_entries(VISITS, {}) == {0}
    assert whole_entries(VISITS, {"s2": [NOON + 1500]}) == {0}
    # Killed in between, or in the middle of either: its last behaviours may be lost.
    for killed_ms in (NOON + 700, NOON + 1000, NOON + 1500, NOON + 2000, NOON + 2015):
        assert whole_entries(VISITS, {"s1": [killed_ms]}) == set()
    assert whole_entries(VISITS, {"s1": [NOON - 1, NOON + 2600]}) == {0}
    assert judge(VISITS, stored()).good


@pytest.mark.parametrize("feed", [GREET, DATA])
@pytest.mark.parametrize("column", ["flags", "recent_flags"])
def test_lost_or_invented_behaviour_is_reported(feed: str, column: str) -> None:
    for flags in (_SHOWN.whole & ~Flags.QUIT, _SHOWN.whole | Flags.BARE_LF, Flags(0)):
        verdict = judge(VISITS, stored((feed, _SOURCE, "s1"), **{column: int(flags)}))
        assert not verdict.good
        assert any(feed in line and "flags" in line for line in verdict.differences), str(verdict)


def test_behaviours_of_an_interrupted_client_are_within_their_bounds() -> None:
    for flags, good in (
        (_SHOWN.answered[GREET], True),
        (_SHOWN.whole, True),
        (Flags(0), False),
        (_SHOWN.whole | Flags.AUTH, False),
    ):
        recorded = stored(LATER_KEY, flags=int(flags), recent_flags=int(flags))
        assert judge(VISITS, recorded).good is good, flags
    # The same of one that ended shortly before its sensor was killed.
    recorded = stored(KEY, flags=int(_SHOWN.answered[GREET]))
    assert not judge(VISITS, recorded).good
    assert judge(VISITS, recorded, {"s1": [NOON + 1500]}).good


@pytest.mark.parametrize("later", [-1, 1])
def test_moved_or_added_day_is_reported(later: int) -> None:
    today = NOON // DAY_MS
    for days in ({today + later}, {today, today + later}, set()):
        verdict = judge(VISITS, stored(KEY, days=frozenset(days)))
        assert any("on days" in line for line in verdict.differences), str(verdict)


def test_event_around_midnight_counts_on_either_day() -> None:
    midnight = NOON + 12 * HOUR_MS
    entry = Entry(_SOURCE, "s1", (Heard(GREET, Bracket(midnight - 5, midnight + 5)),))
    before, after = midnight // DAY_MS - 1, midnight // DAY_MS
    for at_ms, days, good in (
        (midnight - 1, {before}, True),
        (midnight + 1, {after}, True),
        (midnight + 1, {after + 1}, False),
    ):
        one = Row(1, at_ms, at_ms, 0, 0, 0, frozenset(days))
        rows: dict[Key, Row] = {(GREET, _SOURCE): one}
        sightings: dict[Key, Row] = {KEY: one}
        hour = at_ms - at_ms % HOUR_MS
        recorded = Recorded(rows, sightings, {(hour, GREET, "s1"): 1})
        assert judge([entry], recorded).good is good, at_ms


@pytest.mark.parametrize("targets", [0, _HERE << 1 | _HERE, target_of("192.0.2.8")])
def test_lost_or_invented_target_is_reported(targets: int) -> None:
    verdict = judge(VISITS, stored(KEY, targets=targets))
    assert any("targets" in line for line in verdict.differences), str(verdict)


def test_behaviours_of_every_kind_are_known() -> None:
    assert set(_WEIGHTS) <= set(BY_KIND) == set(KINDS)
