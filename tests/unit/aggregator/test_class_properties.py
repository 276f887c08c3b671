"""A class does not depend on the order of visits, on old visits, or on how octets are split."""

from __future__ import annotations

import itertools
import random
from functools import reduce

from hypothesis import given
from hypothesis import strategies as st

from smtpfeeds_aggregator.classification.classes import Evidence, Judgement, judge
from smtpfeeds_common.history import History, clamped, fold, recent_flags
from smtpfeeds_sensor.counters import new_counters
from smtpfeeds_sensor.smtp.dialogue import Dialogue, Rules
from smtpfeeds_sensor.smtp.names import SensorNames
from smtpfeeds_sensor.smtp.personas import STYLES, make_persona

START = 24_500
FLAGS = st.sampled_from([1 << bit for bit in range(29)]) | st.integers(0, 2**29 - 1)
#: A day, and behaviours that were seen on it.
VISITS = st.lists(st.tuples(st.integers(START, START + 40), FLAGS), min_size=1, max_size=8)


def judged(flags: int) -> Judgement:
    return judge(Evidence(flags=flags, hits=2, sensors=1, sensors_alive=3))


def row_of(visits: list[tuple[int, int]]) -> History:
    return reduce(fold, [History(day, 1, flags, 0) for day, flags in visits])


@given(VISITS, VISITS, st.integers(0, 30), st.randoms(use_true_random=False))
def test_class_does_not_depend_on_the_order_of_visits_of_two_weeks(
    greets: list[tuple[int, int]],
    data: list[tuple[int, int]],
    later: int,
    chance: random.Random,
) -> None:
    """This holds for both feeds, for any order, for repeats, and for batches folded together."""
    visits = greets + data
    today = max(day for day, _ in visits) + later
    counted = [flags for day, flags in visits if day // 7 >= today // 7 - 1]
    expected = judged(reduce(int.__or__, counted, 0))
    for _ in range(3):
        rows = []
        for each in (greets, data):
            again = each + each[: chance.randrange(len(each) + 1)]
            chance.shuffle(again)
            cut = chance.randrange(len(again) + 1)
            parts = [part for part in (again[:cut], again[cut:]) if part]
            rows.append(reduce(fold, [row_of(part) for part in parts]))
        assert judged(recent_flags(rows[0], today) | recent_flags(rows[1], today)) == expected


@given(VISITS, VISITS, st.integers(0, 400))
def test_visit_older_than_two_weeks_does_not_affect_the_class(
    old: list[tuple[int, int]], new: list[tuple[int, int]], later: int
) -> None:
    """This holds for idle rows, for rows written since, and for a clock that is ahead."""
    idle = row_of(old)
    today = idle.day + 14 + later
    assert judged(recent_flags(idle, today)) == judged(0)
    row = fold(idle, row_of([(today, flags) for _, flags in new]))
    alone = row_of([(today, flags) for _, flags in new])
    assert judged(recent_flags(row, today)) == judged(recent_flags(alone, today))
    # By a clock that is ahead: they count for the day on which they were stored.
    ahead = clamped(idle, idle.day - 20)
    assert judged(recent_flags(ahead, idle.day - 20 + 14)) == judged(0)


LINES = st.lists(
    st.sampled_from(
        [
            *(b"EHLO mail.example.net", b"HELO x", b"ehlo [192.0.2.9]", b"EHLO 192.0.2.1", b"EHLO"),
            *(b"MAIL FROM:<a@example.net>", b"MAIL FROM:<>", b"MAIL FROM: a", b"STARTTLS"),
            *(b"MAIL FROM:<a@example.net> SIZE=9", b"RCPT TO:<b@example.org>", b"RCPT TO:<a%b@c>"),
            *(b"RCPT TO:<a@[192.0.2.1]>", b"DATA", b"BDAT 4 LAST", b".", b"Subject: x", b"RSET"),
            *(b"AUTH LOGIN", b"AUTH PLAIN AGEAYg==", b"VRFY root", b"QUIT", b"GET / HTTP/1.1"),
        ]
    ),
    min_size=1,
    max_size=14,
)
PERSONA = make_persona(STYLES["plain"], hostname="mx.example", offer_auth=True)
NAMES = SensorNames(bytes((192, 0, 2, 1)), "mx.example")


def flags_of(segments: list[bytes], *, drain: bool) -> int:
    dialogue = Dialogue(PERSONA, Rules(drain=drain), new_counters(), NAMES)
    for segment in segments:
        dialogue.receive(segment)
    return dialogue.flags


@given(LINES, st.sampled_from([b"\r\n", b"\n"]), st.booleans(), st.randoms(use_true_random=False))
def test_class_does_not_depend_on_how_octets_are_split(
    lines: list[bytes], line_end: bytes, drain: bool, chance: random.Random
) -> None:
    """The client waits for its replies; not waiting is a behaviour itself."""
    whole = [line + line_end for line in lines]
    expected = flags_of(whole, drain=drain)
    pieces = []
    for line in whole:
        places = sorted({0, len(line), *(chance.randrange(len(line) + 1) for _ in range(3))})
        pieces += [line[a:b] for a, b in itertools.pairwise(places)]
    octets = [bytes((octet,)) for line in whole for octet in line]
    for cut in (pieces, octets):
        flags = flags_of(cut, drain=drain)
        assert flags == expected
        assert judged(flags) == judged(expected)
