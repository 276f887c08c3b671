"""Delivery after each outcome of a publish, with a real spool and a fake broker."""

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from twisted.internet.task import Clock as ReactorClock

from smtpfeeds_common.clock import Clock
from smtpfeeds_common.errors import BatchTooLarge, BrokerRefused, BrokerUnavailable
from smtpfeeds_common.spool import Event, Spool, read_status, replay
from smtpfeeds_common.spool.file import PAGE_BYTES
from smtpfeeds_common.wire import MAX_ROWS, decode
from smtpfeeds_sensor.counters import new_counters
from smtpfeeds_sensor.delivery.deliver import Delivery
from smtpfeeds_sensor.delivery.housekeeping import Housekeeping
from smtpfeeds_sensor.delivery.recorder import CHECK_AGAIN_S, Recorder
from smtpfeeds_sensor.delivery.state import State
from smtpfeeds_sensor.delivery.testing import FakeLink
from spool_support import BOOT

NOW = 1_795_000_000_000
DAY = 86_400_000


class Set:
    """A delivery with its surroundings, and a clock that tests move."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.spool = Spool(path, sensor="s", boot=BOOT)
        self.link = FakeLink()
        self.count = new_counters()
        self.now_s = 1000.0
        #: How far the wall clock is off.
        self.off_ms = 0
        self.clock = Clock(
            steady_s=120,
            utc_ms=lambda: NOW + int(self.now_s * 1000) + self.off_ms,
            elapsed_ms=lambda: int(self.now_s * 1000),
            boot=BOOT,
        )
        self.delivery = Delivery(
            path,
            self.link,
            self.count,
            self.clock,
            monotonic=lambda: self.now_s,
            rng=lambda: 1.0,
        )

    def hear(self, number: int = 1, first: int = 0) -> None:
        for index in range(number):
            self.spool.fold(Event(0, (first + index).to_bytes(4), NOW))
        self.spool.commit()

    def step(self, after_s: float = 1.0) -> float:
        self.now_s += after_s
        return self.delivery.step()


@pytest.fixture
def parts(tmp_path: Path) -> Iterator[Set]:
    parts = Set(tmp_path / "s.spool")
    yield parts
    parts.delivery.close()
    parts.spool.close()


def test_confirmed_batch_is_forgotten(parts: Set) -> None:
    parts.hear(3)
    parts.step()
    parts.step()
    assert [len(decode(b.body).batch.observations) for b in parts.link.confirmed] == [3]
    status = read_status(parts.path)
    assert (status.batches_waiting, status.batches_kept) == (0, 1)
    assert parts.count["batches_confirmed"] == 1


def test_large_spool_is_delivered_in_one_run(parts: Set) -> None:
    parts.hear(2 * MAX_ROWS + 5)
    parts.step()
    parts.step()
    assert sum(len(decode(b.body).batch.observations) for b in parts.link.confirmed) == (
        2 * MAX_ROWS + 5
    )


def test_empty_batch_each_minute_shows_that_the_sensor_is_alive(parts: Set) -> None:
    for _ in range(180):
        parts.step()
    assert 2 <= len(parts.link.confirmed) <= 3
    assert all(decode(b.body).batch.observations == [] for b in parts.link.confirmed)


def test_nothing_is_sealed_while_the_broker_is_away(parts: Set) -> None:
    """A week without the broker costs one row per client, not one per visit."""
    parts.link.away = BrokerUnavailable("no route")
    for _ in range(50):
        parts.hear(1)
        parts.step(10)
    status = read_status(parts.path)
    assert (status.batches_waiting, status.rows["smtpgreet"]) == (0, 1)
    parts.link.away = None
    parts.step(100)
    assert [decode(b.body).batch.observations[0].hits for b in parts.link.confirmed] == [50]


def test_batch_without_a_confirm_is_sent_again_with_the_same_number(parts: Set) -> None:
    parts.hear()
    parts.link.fails.append(BrokerUnavailable("no confirm in time"))
    parts.step()
    assert parts.link.confirmed == []
    waiting = read_status(parts.path).batches_waiting
    parts.hear(1, first=77)
    for _ in range(5):
        parts.step(100)
    assert waiting == 1
    assert [batch.seq for batch in parts.link.confirmed[:2]] == [1, 2]
    assert len({batch.spool for batch in parts.link.confirmed}) == 1
    assert parts.link.opened == 2


@pytest.mark.parametrize("outcome", [BrokerRefused("403"), BrokerUnavailable("gone")])
def test_batches_that_wait_are_bounded(
    parts: Set, outcome: BrokerRefused | BrokerUnavailable
) -> None:
    """If a broker accepts connections but no batch, no further batches are sealed."""
    for number in range(30):
        parts.link.fails.append(outcome)
        parts.hear(1, first=number)
        parts.step(100)
    assert read_status(parts.path).batches_waiting <= 4


def test_refusal_stops_all_batches_and_is_logged_once(
    parts: Set, caplog: pytest.LogCaptureFixture
) -> None:
    parts.hear()
    for _ in range(4):
        parts.link.fails.append(BrokerRefused("403 ACCESS_REFUSED"))
        parts.step(30)
    assert caplog.text.count("refuses what is published") == 1
    assert parts.delivery.gauges()["broker_refusing"] == 1
    status = read_status(parts.path)
    assert (status.batches_too_large, status.batches_refused) == (0, 0)
    parts.step(100)
    parts.step(100)
    assert [batch.seq for batch in parts.link.confirmed][:1] == [1]
    assert parts.delivery.gauges()["broker_refusing"] == 0


TOO_LARGE = BatchTooLarge("message size 9 is larger than configured max size 8")


def test_batch_that_is_too_large_is_split_until_it_is_accepted(parts: Set) -> None:
    """Each row is delivered once, and the next batches are sealed smaller."""
    parts.hear(100)
    parts.link.most_bytes = 3_000
    for _ in range(20):
        parts.step(10)
    batches = [decode(batch.body).batch for batch in parts.link.confirmed]
    assert sorted(row.ip for batch in batches for row in batch.observations) == [
        f"0.0.0.{number}" for number in sorted(range(100), key=str)
    ]
    assert sum(hour.events for batch in batches for hour in batch.hours) == 100
    assert len({(batch.spool, batch.seq) for batch in batches}) == len(batches)
    assert parts.count["batches_split"] > 0
    status = read_status(parts.path)
    assert (status.batches_waiting, status.batches_too_large) == (0, 0)
    parts.link.confirmed.clear()
    split = parts.count["batches_split"]
    parts.hear(100)
    parts.step(10)
    parts.step(10)
    assert parts.count["batches_split"] == split
    assert len(parts.link.confirmed) > 1, "they are sealed smaller from the start"


def test_batch_that_cannot_be_split_is_held_and_others_are_delivered(parts: Set) -> None:
    parts.hear()
    parts.link.fails.extend([TOO_LARGE] * 3)
    parts.step()
    parts.step()
    assert read_status(parts.path).batches_too_large == 2
    parts.hear(1, first=9)
    parts.step(10)
    parts.step(10)
    assert [decode(b.body).batch.observations[0].ip for b in parts.link.confirmed] == ["0.0.0.9"]
    assert (parts.count["batches_split"], parts.count["batches_too_large"]) == (1, 2)


def test_replayed_batch_that_is_too_large_now_is_not_sent_under_new_names(parts: Set) -> None:
    parts.hear(5)
    parts.step()
    assert replay(parts.path, 0) == 1
    parts.link.fails.append(TOO_LARGE)
    parts.step()
    parts.step()
    assert len(parts.link.confirmed) == 1
    status = read_status(parts.path)
    assert (status.batches_to_replay, status.batches_kept, status.batches_too_large) == (0, 1, 0)


def test_replay_does_not_delay_new_batches(parts: Set) -> None:
    for number in range(30):
        parts.hear(1, first=number)
        parts.step()
    assert replay(parts.path, 0) == 30
    parts.hear(1, first=99)
    parts.link.confirmed.clear()
    parts.link.publish_takes = lambda: setattr(parts, "now_s", parts.now_s + 0.3)
    parts.step()
    sent = [decode(batch.body).batch.observations[0].ip for batch in parts.link.confirmed]
    assert sent[0] == "0.0.0.99"
    assert 1 < len(sent) < 10, "the rest in the next looks"
    for _ in range(10):
        parts.step()
    assert len(parts.link.confirmed) == 31


# The clock


@pytest.mark.parametrize("step_ms", [3_600_000, -3_600_000, -40 * DAY, 3650 * DAY, -3650 * DAY])
def test_nothing_is_sealed_while_the_clock_is_in_doubt_and_each_event_counts_once(
    parts: Set, step_ms: int, caplog: pytest.LogCaptureFixture
) -> None:
    parts.hear()
    parts.step()
    parts.off_ms = step_ms
    for _ in range(60):
        hear_by(parts)
        parts.step()
    assert parts.delivery.state.name == "HELD"
    assert caplog.text.count("nothing is sealed while the clock is in doubt") == 1
    assert len(parts.link.confirmed) == 1
    parts.off_ms = 0
    for _ in range(130):
        hear_by(parts)
        parts.step()
    assert parts.delivery.state is State.DELIVERING
    rows = [row for b in parts.link.confirmed for row in decode(b.body).batch.observations]
    assert sum(row.hits for row in rows if row.ip == "255.0.0.0") == 190
    began_ms = NOW + 1_000_000
    assert all(began_ms <= row.first_ms <= row.last_ms for row in rows if row.ip == "255.0.0.0")
    assert all(row.last_ms <= NOW + int(parts.now_s * 1000) for row in rows)


def hear_by(parts: Set) -> None:
    """Hear a client as the recorder does, by the clock."""
    now = parts.clock.read()
    dated = now.utc_ms is not None
    at_ms = now.utc_ms if now.utc_ms is not None else now.elapsed_ms
    parts.spool.fold(Event(0, b"\xff\0\0\0", at_ms, dated=dated))
    parts.spool.commit()


def test_sealed_batches_are_delivered_while_the_clock_is_in_doubt(parts: Set) -> None:
    parts.hear()
    parts.link.fails.append(BrokerUnavailable("gone"))
    parts.step()
    parts.off_ms = -3650 * DAY
    parts.step(100)
    assert [batch.seq for batch in parts.link.confirmed] == [1]
    assert parts.delivery.state is State.HELD


# Messages for an operator


def test_status_has_the_last_delivery_and_the_reason_of_the_last_failure(parts: Set) -> None:
    parts.hear()
    parts.step()
    first_ms = NOW + 1_001_000
    status = read_status(parts.path)
    assert (status.delivered_ms, status.failed_ms, status.failure) == (first_ms, None, "")
    parts.hear(1, first=2)
    parts.link.fails.append(BrokerRefused("403 ACCESS_REFUSED"))
    parts.step()
    status = read_status(parts.path)
    assert (status.failed_ms, status.failure) == (first_ms + 1_000, "403 ACCESS_REFUSED")
    parts.step(100)
    status = read_status(parts.path)
    assert status.delivered_ms == first_ms + 101_000
    assert status.failure == "403 ACCESS_REFUSED", "the last one stays"


def test_replay_starts_at_the_next_run(parts: Set) -> None:
    parts.hear()
    parts.step()
    parts.step()
    assert replay(parts.path, 0) == 1
    parts.step()
    first, again = parts.link.confirmed
    assert again == first


def test_replaced_spool_is_reopened(parts: Set) -> None:
    parts.hear()
    parts.step()
    parts.spool.replace()
    parts.hear(1, first=5)
    parts.step(10)
    parts.step(10)
    assert decode(parts.link.confirmed[-1].body).batch.observations[0].ip == "0.0.0.5"


def test_locked_spool_is_tried_again_soon(parts: Set) -> None:
    parts.step()
    db = sqlite3.connect(parts.path, isolation_level=None)
    db.execute("BEGIN IMMEDIATE")
    sealer = parts.delivery._sealer
    assert sealer is not None
    sealer._db.execute("PRAGMA busy_timeout=0")
    assert parts.step(10) < 0.1
    db.execute("COMMIT")
    db.close()
    parts.hear()
    parts.step(10)
    assert parts.link.confirmed


def test_bound_is_kept_without_a_deliverer(tmp_path: Path) -> None:
    parts = Set(tmp_path / "s.spool")
    parts.hear(3000)
    bounds = type(parts.spool.bounds)(max_bytes=20_000)
    keeper = Housekeeping(parts.path, bounds, parts.count, parts.clock)
    keeper.step()
    assert parts.count["events_expired"] > 0
    assert keeper.gauges()["spool_rows"] == read_status(parts.path).rows["smtpgreet"] < 3000
    parts.spool.close()


def test_failure_of_housekeeping_is_logged_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A disk may be full for days, and housekeeping runs every five seconds."""
    parts = Set(tmp_path / "s.spool")
    keeper = Housekeeping(parts.path, parts.spool.bounds, parts.count, parts.clock)
    aside = parts.path.rename(tmp_path / "aside")
    for _ in range(3):
        keeper.step()
    assert caplog.text.count("upkeep of the spool failed") == 1
    aside.rename(parts.path)
    keeper.step()
    parts.path.rename(aside)
    keeper.step()
    assert caplog.text.count("upkeep of the spool failed") == 2
    parts.spool.close()


def test_damage_that_only_the_delivery_meets_is_checked_for_and_the_file_replaced(
    parts: Set, caplog: pytest.LogCaptureFixture
) -> None:
    """The sensor still writes into such a file; it would never be delivered."""
    timer = ReactorClock()
    recorder = Recorder(parts.spool, timer, parts.clock, parts.count)
    keeper = Housekeeping(parts.path, parts.spool.bounds, parts.count, parts.clock)
    parts.link.away = BrokerUnavailable("away")
    parts.hear(600)
    parts.link.away = None
    parts.link.fails.append(BrokerUnavailable("lost"))
    parts.step()  # one batch is sealed and waits
    keeper.step()
    recorder.check_file()
    assert (parts.delivery.reports_damage, keeper.reports_damage) == (False, False)
    parts.delivery.close()
    with closing(sqlite3.connect(parts.path)) as db:
        assert db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0] == 0
        (page,) = db.execute("SELECT rootpage FROM sqlite_master WHERE name = 'batch'").fetchone()
    with parts.path.open("r+b") as file:
        file.seek((page - 1) * PAGE_BYTES)
        file.write(b"\xff" * PAGE_BYTES)
    parts.hear(1)
    parts.step(60)
    keeper.step()
    assert (parts.delivery.reports_damage, keeper.reports_damage) == (True, True)
    recorder.check_file()
    assert parts.spool.quarantined == 0, "it was checked less than a minute ago"
    timer.advance(CHECK_AGAIN_S)
    recorder.check_file()
    assert (parts.spool.quarantined, parts.count["spool_replaced"]) == (1, 1)
    parts.hear(1, first=7)
    parts.step(60)
    assert not parts.delivery.reports_damage
    batches = [decode(sealed.body).batch for sealed in parts.link.confirmed]
    assert [row.ip for batch in batches for row in batch.observations] == ["0.0.0.7"]
    assert "damaged spool quarantined" in caplog.text
