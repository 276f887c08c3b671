"""The clients' ledger: the rows it expects, and when recorded rows agree with them."""

from __future__ import annotations

from typing import Any

from smtpfeeds_deploy.simulation.ledger import (
    Bracket,
    Expected,
    Key,
    Recorded,
    Session,
    activity_disagreements,
    data_without_greet,
    disagreements,
    expected_rows,
    expected_sightings,
    troubles,
)

HOUR_MS = 3_600_000
NOON_MS = 1_790_000_000_000 - 1_790_000_000_000 % HOUR_MS
CLIENT = "192.0.2.7"


def session(*events: tuple[str, int, int], sensor: str = "one", target: str = "a:25") -> Session:
    new_session = Session("scanner", CLIENT, sensor, target)
    for feed, sent_ms, answered_ms in events:
        new_session.heard(feed, sent_ms, answered_ms)
    return new_session


def test_second_greet_of_a_connection_does_not_count() -> None:
    new_session = session(("smtpgreet", 10, 20), ("smtpgreet", 30, 40))
    assert expected_rows([new_session])["smtpgreet", CLIENT].hits == 1


def test_visits_fold_to_the_earliest_and_the_latest_bracket() -> None:
    """Of two overlapping visits, either may be the first and either the last."""
    row = expected_rows(
        [session(("smtpgreet", 10, 50)), session(("smtpgreet", 20, 30)), session()]
    )["smtpgreet", CLIENT]
    assert (row.first, row.last, row.hits) == (Bracket(10, 30), Bracket(20, 50), 2)


def test_data_event_raises_the_greet_rows_last_seen_and_not_its_hits() -> None:
    rows = expected_rows([session(("smtpgreet", 10, 20), ("smtpdata", 90, 99))])
    assert rows["smtpgreet", CLIENT].last == Bracket(90, 99)
    assert rows["smtpgreet", CLIENT].hits == 1
    assert rows["smtpdata", CLIENT].first == Bracket(90, 99)


def test_sensors_and_their_addresses_are_kept_apart_in_sightings() -> None:
    sessions = [
        session(("smtpgreet", 1, 2), target="a:25"),
        session(("smtpgreet", 3, 4), target="b:25"),
        session(("smtpgreet", 5, 6), sensor="two", target="c:25"),
    ]
    assert expected_rows(sessions)["smtpgreet", CLIENT].sensors == {"one", "two"}
    parts = expected_sightings(sessions)
    assert parts["smtpgreet", CLIENT, "one"].targets == {"a:25", "b:25"}
    assert parts["smtpgreet", CLIENT, "two"].hits == 1


def row_found(**changed: Any) -> Recorded:
    values: dict[str, Any] = {
        "first": Bracket(10, 10),
        "last": Bracket(25, 25),
        "hits": 2,
        "sensors": 1,
    }
    return Recorded(**{**values, **changed})


def test_every_disagreement_is_reported() -> None:
    key: Key = ("smtpgreet", CLIENT)
    want: dict[Key, Expected] = {
        key: Expected(Bracket(5, 10), Bracket(20, 30), hits=2, sensors={"one"})
    }
    assert disagreements(want, {key: row_found()}) == []
    assert disagreements(want, {key: row_found(first=None, hits=None, sensors=None)}) == []
    ways: list[tuple[dict[str, Any], str]] = [
        ({"first": Bracket(11, 11)}, "first seen"),  # a millisecond after the reply
        ({"last": Bracket(19, 19)}, "last seen"),  # a millisecond before it was sent
        ({"hits": 3}, "3 hits, not 2"),
        ({"sensors": 2}, "2 sensors, not 1"),
    ]
    for changed, difference in ways:
        (recorded,) = disagreements(want, {key: row_found(**changed)})
        assert difference in recorded
    assert disagreements(want, {}) == [f"smtpgreet {CLIENT}: missing"]
    assert disagreements({}, {key: row_found()}) == [f"smtpgreet {CLIENT}: invented"]


def test_time_cut_to_the_second_agrees_with_what_lies_in_that_second() -> None:
    want = Bracket(1_700, 2_100)
    assert want.holds(Bracket(1_000, 1_999))
    assert want.holds(Bracket(2_000, 2_999))
    assert not want.holds(Bracket(0, 999))
    assert not want.holds(Bracket(3_000, 3_999))


def test_events_an_hour_agree_only_with_the_hours_they_can_have_fallen_into() -> None:
    """One event is certainly in an hour; one was sent before the hour and answered after it."""
    sessions = [
        session(("smtpgreet", NOON_MS + 1, NOON_MS + 2)),
        session(("smtpgreet", NOON_MS - 1, NOON_MS + 1)),
    ]
    noon, before = (NOON_MS, "smtpgreet", "one"), (NOON_MS - HOUR_MS, "smtpgreet", "one")
    assert activity_disagreements(sessions, {noon: 2}) == []
    assert activity_disagreements(sessions, {noon: 1, before: 1}) == []
    assert activity_disagreements(sessions, {before: 2}) != []
    assert activity_disagreements(sessions, {noon: 1}) != []
    assert activity_disagreements(sessions, {noon: 2, (NOON_MS, "smtpdata", "one"): 1}) != []


def test_data_without_greet_is_reported() -> None:
    assert data_without_greet([("smtpdata", CLIENT), ("smtpgreet", CLIENT)]) == []
    assert data_without_greet([("smtpdata", CLIENT)]) == [
        f"smtpdata {CLIENT}: in smtpdata and not in smtpgreet"
    ]


def test_client_that_was_answered_wrongly_is_named() -> None:
    odd = session()
    odd.trouble = "answered 451, not 250"
    assert troubles([session(), odd]) == [f"scanner {CLIENT} at a:25: answered 451, not 250"]
