"""The recorder commits once per turn and replies afterwards; outages never stop the replies."""

from pathlib import Path

import pytest
from twisted.internet.task import Clock

from smtpfeeds_common.clock import Clock as HostClock
from smtpfeeds_common.errors import SpoolBusy
from smtpfeeds_common.spool import Bounds, Spool, read_status
from smtpfeeds_common.spool.testing import FakeSpool
from smtpfeeds_sensor.counters import new_counters
from smtpfeeds_sensor.delivery.recorder import (
    MEMORY_RETRY_S,
    NOTES_S,
    PATIENCE_S,
    RETRY_S,
    Recorder,
    Writing,
)

NOW = 1_795_000_000_000


class Holder:
    def __init__(self) -> None:
        self.released = 0

    def release(self) -> None:
        self.released += 1


class Set:
    def __init__(self, *, without_file: bool = False) -> None:
        self.spool = FakeSpool(Path("s.spool"), sensor="s", bounds=Bounds(memory_rows=100))
        if without_file:
            self.spool.begin_without_a_file()
            self.spool.has_no_place = True
        self.timer, self.count = Clock(), new_counters()
        self.utc_ms = NOW
        self.clock = HostClock(
            steady_s=120,
            utc_ms=lambda: self.utc_ms,
            elapsed_ms=lambda: int(self.timer.seconds() * 1000),
            boot="b",
        )
        self.recorder = Recorder(self.spool, self.timer, self.clock, self.count)
        self.addresses = 0

    def hear(self) -> Holder:
        """Record one more client."""
        self.addresses += 1
        holder = Holder()
        ip = self.addresses.to_bytes(4)
        self.event = self.recorder.hear(holder, 0, ip, 0, 0)
        return holder

    @property
    def is_held(self) -> bool:
        return self.recorder.holds_replies

    def events(self) -> list[int]:
        """Return how many events each commit wrote."""
        return [len(events) for events in self.spool.commits]

    def finish(self) -> list[str]:
        """Stop cleanly; the returned list is filled when that is done."""
        done: list[str] = []
        self.recorder.finish(version="1", client_ms=None, then=lambda: done.append("done"))
        return done


@pytest.fixture
def parts() -> Set:
    return Set()


def test_all_events_of_a_turn_share_one_commit_and_replies_follow_it(parts: Set) -> None:
    holders = [parts.hear() for _ in range(5)]
    assert parts.is_held
    assert [holder.released for holder in holders] == [0] * 5
    parts.timer.advance(0)
    assert parts.events() == [5]
    assert [holder.released for holder in holders] == [1] * 5


def test_locked_file_delays_replies(parts: Set) -> None:
    parts.spool.is_locked = True
    holder = parts.hear()
    parts.timer.pump([0, *[RETRY_S] * 10])
    assert (holder.released, parts.spool.tries) == (0, 11)
    assert parts.recorder.state.name == "LOCKED"
    parts.spool.is_locked = False
    parts.timer.advance(RETRY_S)
    assert holder.released == 1
    assert (parts.count["spool_waits"], parts.count["spool_outages"]) == (1, 0)
    assert parts.recorder.state is Writing.FILE


def test_replies_are_sent_from_memory_if_the_file_stays_locked(parts: Set) -> None:
    parts.spool.is_locked = True
    holder = parts.hear()
    parts.timer.pump([RETRY_S] * int(PATIENCE_S / RETRY_S + 2))
    assert holder.released == 1
    assert parts.recorder.state is Writing.MEMORY
    assert parts.hear().released == 0
    assert not parts.is_held


def test_unwritable_file_does_not_delay_replies_and_is_logged_once(
    parts: Set, caplog: pytest.LogCaptureFixture
) -> None:
    parts.spool.is_full = True
    holder = parts.hear()
    parts.timer.advance(0)
    assert holder.released == 1
    for _ in range(5):
        parts.hear()
        parts.timer.advance(MEMORY_RETRY_S)
    assert caplog.text.count("kept in memory") == 1
    assert parts.count["spool_outages"] == 1
    assert parts.recorder.outage
    parts.spool.is_full = False
    parts.timer.advance(MEMORY_RETRY_S)
    assert (parts.recorder.state, parts.recorder.outage) == (Writing.FILE, "")
    assert parts.events() == [6]
    parts.hear()
    assert parts.is_held


def test_damaged_file_is_replaced_and_replies_wait_for_the_new_one(parts: Set) -> None:
    parts.spool.is_damaged = True
    holder = parts.hear()
    parts.timer.advance(0)
    assert (parts.spool.quarantined, parts.spool.tries) == (1, 2)
    assert (parts.events(), holder.released) == ([1], 1)
    assert parts.count["spool_replaced"] == 1


def test_failed_replacement_is_tried_again_until_all_is_written(parts: Set) -> None:
    """The disk is unavailable while the file must be replaced, and no event is lost."""
    parts.spool.is_damaged = parts.spool.has_no_place = True
    holder = parts.hear()
    parts.timer.advance(0)
    assert holder.released == 1
    for _ in range(20):
        parts.hear()
        parts.recorder.note_state(version="1", client_ms=None)
        parts.timer.advance(MEMORY_RETRY_S)
        assert parts.recorder.state is Writing.MEMORY
    parts.spool.has_no_place = False
    parts.timer.advance(MEMORY_RETRY_S)
    assert parts.recorder.state is Writing.FILE
    assert (parts.events(), parts.spool.unwritten) == ([21], 0)
    assert (parts.count["spool_replaced"], parts.count["events_dropped"]) == (1, 0)


def test_full_disk_at_the_start_is_answered_from_memory(caplog: pytest.LogCaptureFixture) -> None:
    parts = Set(without_file=True)
    assert parts.recorder.state is Writing.MEMORY
    for _ in range(3):
        parts.hear()
        assert not parts.is_held
        parts.timer.advance(MEMORY_RETRY_S)
    assert caplog.text.count("kept in memory") == 1
    parts.spool.has_no_place = False
    parts.timer.advance(MEMORY_RETRY_S)
    assert (parts.recorder.state, parts.events()) == (Writing.FILE, [3])


def test_deleted_file_is_replaced_when_the_counters_are_written(parts: Set) -> None:
    parts.spool.is_damaged = True
    parts.recorder.note_state(version="1", client_ms=None)
    assert parts.spool.quarantined == 1


def test_unexpected_error_does_not_delay_replies(
    parts: Set, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken() -> None:
        raise RuntimeError("a surprise")

    with monkeypatch.context() as patched:
        patched.setattr(parts.spool, "commit", broken)
        holder = parts.hear()
        parts.timer.advance(0)
    assert holder.released == 1
    assert "a surprise" in caplog.text
    parts.timer.advance(MEMORY_RETRY_S)
    assert parts.events() == [1]


def test_events_past_memorys_bound_are_counted(parts: Set) -> None:
    for _ in range(105):
        parts.hear()
    assert parts.count["events_dropped"] == 5


def test_state_is_written_to_the_spool_with_its_time(parts: Set) -> None:
    parts.hear()
    parts.recorder.note_state(version="1.2", client_ms=NOW - 5)
    assert parts.spool.noted_ms == NOW
    assert parts.spool.notes["client_ms"] == NOW - 5
    assert parts.spool.notes["doubt"] == ""


def test_event_during_a_clock_in_doubt_has_the_time_since_the_boot(parts: Set) -> None:
    parts.timer.advance(7)
    parts.utc_ms = NOW + 7_000
    parts.hear()
    parts.utc_ms -= 3_650 * 86_400_000
    parts.timer.advance(0.5)
    parts.hear()
    parts.recorder.note_state(version="1", client_ms=None)
    assert "impossible" in str(parts.spool.notes["doubt"])
    assert parts.spool.noted_ms is None
    parts.timer.advance(0)
    events = [event for events in parts.spool.commits for event in events]
    assert [(event.at_ms, event.dated) for event in events] == [(NOW + 7_000, True), (7_500, False)]
    assert parts.count["events_undated"] == 1


# The end


def test_clean_stop_writes_everything_and_the_state(parts: Set) -> None:
    holder = parts.hear()
    assert parts.finish() == ["done"]
    assert (parts.events(), holder.released) == ([1], 1)
    assert parts.spool.notes["version"] == "1"
    parts.timer.advance(10)
    assert parts.spool.tries == 1, "nothing opens the file again"


def test_short_lock_at_a_clean_stop_loses_nothing(
    parts: Set, caplog: pytest.LogCaptureFixture
) -> None:
    parts.hear()
    parts.spool.is_locked = True
    done = parts.finish()
    parts.timer.pump([0.02] * 90)
    assert done == []
    parts.spool.is_locked = False
    parts.timer.advance(0.02)
    assert (done, parts.events()) == (["done"], [1])
    assert "lost" not in caplog.text
    assert "not saved" not in caplog.text


def test_events_lost_at_a_stop_are_reported(parts: Set, caplog: pytest.LogCaptureFixture) -> None:
    holder = parts.hear()
    parts.spool.is_full = True
    done = parts.finish()
    parts.timer.pump([0.02] * 110)
    assert (done, holder.released, parts.recorder.lost) == (["done"], 1, 1)
    assert "events in memory are lost" in caplog.text
    assert "state not saved" not in caplog.text


def test_unsaved_state_is_not_reported_as_lost_events(
    parts: Set, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def locked(*_: object, **__: object) -> None:
        raise SpoolBusy

    parts.hear()
    monkeypatch.setattr(parts.spool, "note_state", locked)
    done = parts.finish()
    parts.timer.pump([0.02] * 110)
    assert (done, parts.events()) == (["done"], [1])
    assert "state not saved; all events are in the spool" in caplog.text
    assert "lost" not in caplog.text


def test_file_damaged_just_before_a_stop_is_replaced(parts: Set) -> None:
    parts.hear()
    parts.spool.is_damaged = True
    assert parts.finish() == ["done"]
    assert (parts.events(), parts.spool.quarantined) == ([1], 1)


def test_recorder_survives_a_deleted_folder_of_its_spool(tmp_path: Path) -> None:
    """A real file is damaged, has no place for a new one, and later all events are written."""
    folder, away = tmp_path / "spools", tmp_path / "away"
    spool = Spool(folder / "s.spool", sensor="s")
    timer, count = Clock(), new_counters()
    recorder = Recorder(spool, timer, HostClock(), count)
    folder.rename(away)
    folder.write_text("in the way")
    recorder.note_state(version="1", client_ms=None)
    assert recorder.state is Writing.MEMORY
    for number in range(50):
        recorder.hear(Holder(), 0, number.to_bytes(4), 0, 0)
        timer.advance(MEMORY_RETRY_S)
    assert spool.unwritten == 50
    folder.unlink()
    timer.advance(MEMORY_RETRY_S)
    assert (recorder.state, spool.unwritten) == (Writing.FILE, 0)
    recorder.finish(version="1", client_ms=None, then=lambda: None)
    assert read_status(folder / "s.spool").rows["smtpgreet"] == 50


def test_note_is_written_soon_and_delays_no_reply(parts: Set) -> None:
    parts.hear()
    parts.timer.advance(0)
    parts.recorder.note(parts.event, 5)
    tries = parts.spool.tries
    parts.timer.advance(NOTES_S / 2)
    assert parts.spool.tries == tries
    parts.timer.advance(NOTES_S / 2)
    assert parts.spool.later == [(parts.event, 5)]
    assert parts.events() == [1]


def test_note_is_written_with_the_next_events(parts: Set) -> None:
    parts.hear()
    parts.timer.advance(0)
    parts.recorder.note(parts.event, 5)
    holder = parts.hear()
    parts.timer.advance(0)
    assert holder.released == 1
    assert len(parts.spool.later) == 1
    tries = parts.spool.tries
    parts.timer.advance(NOTES_S)
    assert parts.spool.tries == tries


def test_note_survives_an_outage(parts: Set) -> None:
    parts.hear()
    parts.timer.advance(0)
    parts.spool.is_full = True
    parts.recorder.note(parts.event, 5)
    parts.timer.advance(NOTES_S)
    assert parts.recorder.state is Writing.MEMORY
    parts.spool.is_full = False
    parts.timer.advance(MEMORY_RETRY_S)
    assert len(parts.spool.later) == 1
