"""Compare what must be recorded and what may be recorded with what is recorded.

Under faults a client may lose its connection between its verb and the answer: then nobody can know
whether the sensor received it. So every number has a minimum (events that were answered) and a
maximum (events that were sent). A lower number means lost events, a higher one events that were
counted twice, and events that nobody sent are invented. The same rule holds for times and for sets:
behaviours, days, and the sensor's addresses. A row has at least what was stored before an answer
was sent, and at most all that its clients did. A behaviour that shows later is stored with the next
event that the sensor answers, or is lost if the sensor is killed before. So the behaviours of a row
are exact if the sensor answered a later client after all clients of the row had ended, and was not
killed in between.

Pure: the input is entries and recorded rows, the output a verdict.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from smtpfeeds_common.feeds import DATA, GREET
from smtpfeeds_deploy.simulation.ledger import Bracket, Heard, data_without_greet

HOUR_MS = 3_600_000
DAY_MS = 86_400_000
_SHOWN = 20
_NOWHERE = Bracket(0, 0)

#: (feed, address) or (feed, address, sensor).
Key = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Entry:
    """One connection, from the client's view."""

    source: str
    sensor: str
    #: The client read the answer.
    answered: tuple[Heard, ...] = ()
    #: Sent, and cut off before the answer: may count.
    unanswered: tuple[Heard, ...] = ()
    #: The bit of the sensor's address that it came to.
    target: int = 0
    #: All its behaviours, and by feed those stored before the event was answered.
    flags: int = 0
    answered_flags: Mapping[str, int] = field(default_factory=dict)
    began_ms: int = 0
    #: When it had done everything and both sides had closed. None: it was cut off.
    ended_ms: int | None = None


class Row(NamedTuple):
    """A recorded row."""

    hits: int
    first_ms: int
    last_ms: int
    #: As one number, and by the weeks that a class reads.
    flags: int
    recent_flags: int
    #: None: the table does not have them.
    targets: int | None
    #: UTC days since 1970-01-01.
    days: frozenset[int]


@dataclass(frozen=True, slots=True)
class Recorded:
    """All recorded rows."""

    observations: Mapping[Key, Row] = field(default_factory=dict)
    sightings: Mapping[Key, Row] = field(default_factory=dict)
    #: Events by (hour in ms, feed, sensor).
    activity: Mapping[tuple[int, str, str], int] = field(default_factory=dict)


@dataclass(slots=True)
class Range:
    """The range of values that a row may have."""

    least: int = 0
    most: int = 0
    sure: list[Bracket] = field(default_factory=list)
    possible: list[Bracket] = field(default_factory=list)
    #: Of the data events, which raise the greet row's last_seen too.
    sure_last: list[Bracket] = field(default_factory=list)
    possible_last: list[Bracket] = field(default_factory=list)
    sure_flags: int = 0
    possible_flags: int = 0
    sure_targets: int = 0
    possible_targets: int = 0

    def first(self) -> Bracket:
        """Return the two instants between which the first event was."""
        highest = (
            min(b.highest for b in self.sure)
            if self.sure
            else max(b.highest for b in self.possible)
        )
        return Bracket(min(b.lowest for b in self.possible), highest)

    def last(self) -> Bracket:
        """Return the two instants between which the last event was."""
        sure, possible = self.sure + self.sure_last, self.possible + self.possible_last
        lowest = max(b.lowest for b in sure) if sure else min(b.lowest for b in possible)
        return Bracket(lowest, max(b.highest for b in possible))

    def sure_days(self) -> frozenset[int]:
        """Return the days on which it was certainly seen."""
        sure = self.sure + self.sure_last
        return frozenset(_day(b.lowest) for b in sure if _day(b.lowest) == _day(b.highest))

    def possible_days(self) -> frozenset[int]:
        """Return the days on which it may have been seen."""
        possible = self.possible + self.possible_last
        return frozenset(d for b in possible for d in range(_day(b.lowest), _day(b.highest) + 1))


@dataclass(slots=True)
class Verdict:
    """The number of lost, repeated and invented events, and all other differences."""

    lost: int = 0
    twice: int = 0
    invented: int = 0
    differences: list[str] = field(default_factory=list)

    @property
    def good(self) -> bool:
        return not (self.lost or self.twice or self.invented or self.differences)

    def __str__(self) -> str:
        head = f"{self.lost} lost, {self.twice} twice, {self.invented} invented"
        rest = len(self.differences) - _SHOWN
        return "\n  ".join(
            [head, *self.differences[:_SHOWN], *([f"and {rest} more"] if rest > 0 else [])]
        )


def judge(
    entries: Iterable[Entry], recorded: Recorded, kills: Mapping[str, Sequence[int]] | None = None
) -> Verdict:
    """Compare; the table with the most differences counts.

    Args:
        entries: what clients did.
        recorded: the recorded rows.
        kills: when each sensor was killed (ms), in their order.
    """
    entries = list(entries)
    whole = whole_entries(entries, kills or {})
    ranges = [_ranges(entries, whole, by_sensor=by_sensor) for by_sensor in (False, True)]
    parts = [
        _judge_rows("observation", ranges[0], recorded.observations),
        _judge_rows("sighting", ranges[1], recorded.sightings),
        _judge_activity(entries, recorded.activity),
    ]
    differences = [line for part in parts for line in part.differences]
    differences += data_without_greet(recorded.observations) + data_without_greet(
        recorded.sightings
    )
    return Verdict(
        lost=max(part.lost for part in parts),
        twice=max(part.twice for part in parts),
        invented=max(part.invented for part in parts),
        differences=differences,
    )


def whole_entries(entries: Iterable[Entry], kills: Mapping[str, Sequence[int]]) -> set[int]:
    """Return the places of entries all of whose behaviours are stored.

    Their sensor answered a client that came after their end, and was not killed in between.
    """
    entries = list(entries)
    #: By sensor and number of earlier kills: when the last client that it answered came.
    latest: dict[tuple[str, int], int] = {}
    for entry in entries:
        if entry.answered:
            of_sensor = kills.get(entry.sensor, ())
            life = bisect_left(of_sensor, entry.began_ms)
            if life == bisect_right(of_sensor, entry.answered[0].when.highest):
                key = (entry.sensor, life)
                latest[key] = max(latest.get(key, 0), entry.began_ms)
    whole = set()
    for place, entry in enumerate(entries):
        of_sensor = kills.get(entry.sensor, ())
        life = bisect_left(of_sensor, entry.began_ms)
        if (
            entry.ended_ms is not None
            and not entry.unanswered
            and life == bisect_right(of_sensor, entry.ended_ms)
            and latest.get((entry.sensor, life), 0) > entry.ended_ms
        ):
            whole.add(place)
    return whole


def events(entries: Iterable[Entry]) -> tuple[int, int]:
    """Return the number of answered events, and of events that were sent and not answered."""
    entries = list(entries)
    return sum(len(e.answered) for e in entries), sum(len(e.unanswered) for e in entries)


def _ranges(entries: Iterable[Entry], whole: set[int], *, by_sensor: bool) -> dict[Key, Range]:
    ranges: dict[Key, Range] = {}
    for place, entry in enumerate(entries):
        tail = (entry.source, entry.sensor) if by_sensor else (entry.source,)
        for event in entry.answered:
            row = ranges.setdefault((event.feed, *tail), Range())
            row.least += 1
            row.sure.append(event.when)
            row.sure_targets |= entry.target
            row.sure_flags |= entry.answered_flags.get(event.feed, 0)
            if place in whole:
                row.sure_flags |= entry.flags
        for event in entry.answered + entry.unanswered:
            row = ranges.setdefault((event.feed, *tail), Range())
            row.most += 1
            row.possible.append(event.when)
            row.possible_targets |= entry.target
            row.possible_flags |= entry.flags
            if event.feed == DATA.name:
                greet = ranges.setdefault((GREET.name, *tail), Range())
                greet.possible_last.append(event.when)
                if event in entry.answered:
                    greet.sure_last.append(event.when)
    return ranges


def _judge_rows(table: str, ranges: Mapping[Key, Range], stored: Mapping[Key, Row]) -> Verdict:
    verdict = Verdict()
    for key in sorted(ranges.keys() | stored.keys()):
        wanted, row = ranges.get(key), stored.get(key)
        name = f"{table} {' '.join(key)}"
        if wanted is None or not wanted.possible:
            if row is not None:
                verdict.invented += max(row.hits, 1)
                verdict.differences.append(f"{name}: invented, {row.hits} hits")
        elif row is None:
            verdict.lost += wanted.least
            if wanted.least:
                verdict.differences.append(f"{name}: missing, {wanted.least} hits")
        else:
            _judge_row(verdict, name, wanted, row)
    return verdict


def _judge_row(verdict: Verdict, name: str, wanted: Range, row: Row) -> None:
    verdict.lost += max(0, wanted.least - row.hits)
    verdict.twice += max(0, row.hits - wanted.most)
    if not wanted.least <= row.hits <= wanted.most:
        verdict.differences.append(f"{name}: {row.hits} hits, not {wanted.least} to {wanted.most}")
    for what, at_ms, bracket in (
        ("first", row.first_ms, wanted.first()),
        ("last", row.last_ms, wanted.last()),
    ):
        if not bracket.lowest <= at_ms <= bracket.highest:
            verdict.differences.append(f"{name}: {what} seen {at_ms}, not within {bracket}")
    for what, have, least, most in (
        ("flags", row.flags, wanted.sure_flags, wanted.possible_flags),
        ("flags of both weeks", row.recent_flags, wanted.sure_flags, wanted.possible_flags),
        ("targets", row.targets, wanted.sure_targets, wanted.possible_targets),
    ):
        if have is not None and (least & ~have or have & ~most):
            verdict.differences.append(
                f"{name}: {what} without {least & ~have:#x}, and with {have & ~most:#x} too many"
            )
    if not wanted.sure_days() <= row.days <= wanted.possible_days():
        verdict.differences.append(
            f"{name}: on days {sorted(row.days)}, not {sorted(wanted.sure_days())}"
            f" to {sorted(wanted.possible_days())}"
        )


def _judge_activity(
    entries: Iterable[Entry], stored: Mapping[tuple[int, str, str], int]
) -> Verdict:
    """Compare hours: an event near the end of an hour may be in either, but the sum must fit."""
    least: dict[tuple[int, str, str], int] = {}
    most: dict[tuple[int, str, str], int] = {}
    total_least: dict[tuple[str, str], int] = {}
    total_most: dict[tuple[str, str], int] = {}
    for entry in entries:
        for event in entry.answered + entry.unanswered:
            pair = (event.feed, entry.sensor)
            hours = {_hour(event.when.lowest), _hour(event.when.highest)}
            sure = event in entry.answered
            total_most[pair] = total_most.get(pair, 0) + 1
            total_least[pair] = total_least.get(pair, 0) + sure
            for hour in hours:
                most[hour, *pair] = most.get((hour, *pair), 0) + 1
                if sure and len(hours) == 1:
                    least[hour, *pair] = least.get((hour, *pair), 0) + 1
    verdict = Verdict()
    for key in sorted(most.keys() | stored.keys()):
        have = stored.get(key, 0)
        if not least.get(key, 0) <= have <= most.get(key, 0):
            low, high = least.get(key, 0), most.get(key, 0)
            verdict.differences.append(f"activity {key}: {have} events, not {low} to {high}")
        if key not in most:
            verdict.invented += have
    for pair in sorted(total_most):
        have = sum(n for (_, *rest), n in stored.items() if tuple(rest) == pair)
        verdict.lost += max(0, total_least[pair] - have)
        verdict.twice += max(0, have - total_most[pair])
        if not total_least[pair] <= have <= total_most[pair]:
            verdict.differences.append(
                f"activity {pair}: {have} in all, not {total_least[pair]} to {total_most[pair]}"
            )
    return verdict


def _day(at_ms: int) -> int:
    return at_ms // DAY_MS


def _hour(at_ms: int) -> int:
    return at_ms - at_ms % HOUR_MS
