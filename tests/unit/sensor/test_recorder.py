"""The recorder: one commit a turn, replies after it; outages that never stop the answers."""

from dataclasses import dataclass, field
from pathlib import Path

import pytest
from twisted.internet.task import Clock

from smtpfeeds_common.errors import SpoolBusy, SpoolDamaged, SpoolError, SpoolUnwritable
from smtpfeeds_common.spool import Bounds, Event
from smtpfeeds_sensor.counters import new_counters
from smtpfeeds_sensor.delivery.recorder import OUTAGE_RETRY_S, PATIENCE_S, RETRY_S, Recorder

IP = bytes(4)


@dataclass
class FakeSpool:
    """A spool whose file fails as told."""

    failure: SpoolError | None = None
    replacement: SpoolError | None = None
    folded: list[Event] = field(default_factory=list)
    commits: list[int] = field(default_factory=list)
    tries: int = 0
    replaced: int = 0
    path: Path = Path("s.spool")
    bounds: Bounds = field(default_factory=Bounds)

    def fold(self, event: Event) -> bool:
        self.folded.append(event)
        return len(self.folded) < 100

    def commit(self) -> None:
        self.tries += 1
        if self.failure is not None:
            raise self.failure
        self.commits.append(len(self.folded))

    def replace(self, sensor: str) -> Path:
        if self.replacement is not None:
            raise self.replacement
        assert sensor == "s"
        self.replaced += 1
        self.failure = None
        return self.path

    def note_state(self, **_: object) -> None:
        if self.failure is not None:
            raise self.failure


class Holder:
    def __init__(self) -> None:
        self.released = 0

    def release(self) -> None:
        self.released += 1


class Set:
    def __init__(self) -> None:
        self.spool, self.clock, self.count = FakeSpool(), Clock(), new_counters()
        self.recorder = Recorder(
            self.spool,  # type: ignore[arg-type] # as much of a spool as is used
            self.clock,
            lambda: 1_795_000_000_000,
            self.count,
            sensor="s",
        )

    def hear(self) -> Holder:
        holder = Holder()
        self.held = self.recorder.hear(holder, 0, IP, 0, 0)
        return holder


@pytest.fixture
def parts() -> Set:
    return Set()


def test_all_events_of_a_turn_share_one_commit_and_replies_follow_it(parts: Set) -> None:
    holders = [parts.hear() for _ in range(5)]
    assert parts.held
    assert [holder.released for holder in holders] == [0] * 5
    parts.clock.advance(0)
    assert parts.spool.commits == [5]
    assert [holder.released for holder in holders] == [1] * 5


def test_locked_file_holds_replies_for_a_while(parts: Set) -> None:
    parts.spool.failure = SpoolBusy()
    holder = parts.hear()
    parts.clock.pump([0, *[RETRY_S] * 10])
    assert (holder.released, parts.spool.tries) == (0, 11)
    parts.spool.failure = None
    parts.clock.advance(RETRY_S)
    assert holder.released == 1
    assert (parts.count["spool_waits"], parts.count["spool_outages"]) == (1, 0)


def test_locked_for_too_long_lets_replies_go_from_memory(parts: Set) -> None:
    parts.spool.failure = SpoolBusy()
    holder = parts.hear()
    parts.clock.pump([RETRY_S] * int(PATIENCE_S / RETRY_S + 2))
    assert holder.released == 1
    assert parts.recorder.in_outage
    assert parts.hear().released == 0
    assert not parts.held


def test_unwritable_file_lets_replies_go_at_once_is_said_once_and_recovers(
    parts: Set, caplog: pytest.LogCaptureFixture
) -> None:
    parts.spool.failure = SpoolUnwritable("disk full")
    holder = parts.hear()
    parts.clock.advance(0)
    assert holder.released == 1
    for _ in range(5):
        parts.hear()
        parts.clock.advance(OUTAGE_RETRY_S)
    assert caplog.text.count("kept in memory") == 1
    assert parts.count["spool_outages"] == 1
    parts.spool.failure = None
    parts.clock.advance(OUTAGE_RETRY_S)
    assert not parts.recorder.in_outage
    assert parts.spool.commits == [6]
    parts.hear()
    assert parts.held


def test_damaged_file_is_replaced_and_replies_wait_for_the_new_one(parts: Set) -> None:
    parts.spool.failure = SpoolDamaged("malformed")
    holder = parts.hear()
    parts.clock.advance(0)
    assert (parts.spool.replaced, parts.spool.tries) == (1, 2)
    assert (parts.spool.commits, holder.released) == ([1], 1)
    assert parts.count["spool_replaced"] == 1


def test_replacement_that_fails_is_an_outage_like_any_other(parts: Set) -> None:
    parts.spool.failure, parts.spool.replacement = SpoolDamaged("x"), SpoolError("no disk")
    holder = parts.hear()
    parts.clock.advance(0)
    assert holder.released == 1
    assert parts.recorder.in_outage
    parts.spool.replacement = None
    parts.clock.pump([OUTAGE_RETRY_S, 0])
    assert not parts.recorder.in_outage


def test_file_that_is_gone_is_replaced_when_the_counters_are_written(parts: Set) -> None:
    parts.spool.failure = SpoolDamaged("was deleted")
    parts.recorder.note_state(version="1")
    assert parts.spool.replaced == 1


def test_events_past_memorys_bound_are_counted(parts: Set) -> None:
    for _ in range(105):
        parts.hear()
    assert parts.count["events_dropped"] == 6
