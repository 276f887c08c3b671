"""Delivery: what each outcome of a publish leads to, with a real spool and a broker that obeys."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from smtpfeeds_common.errors import BatchTooLarge, BrokerRefused, BrokerUnavailable
from smtpfeeds_common.spool import Event, Spool, read_status, replay
from smtpfeeds_common.wire import MAX_ROWS, decode
from smtpfeeds_sensor.counters import new_counters
from smtpfeeds_sensor.delivery.deliverer import Delivery, Housekeeping
from smtpfeeds_sensor.delivery.testing import FakeLink

NOW = 1_795_000_000_000


class Set:
    """A delivery with its surroundings, and a clock that tests move."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.spool = Spool(path, sensor="s")
        self.link = FakeLink()
        self.count = new_counters()
        self.now_s = 1000.0
        self.delivery = Delivery(
            path,
            self.link,
            self.count,
            lambda: NOW + int(self.now_s * 1000),
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
    made = Set(tmp_path / "s.spool")
    yield made
    made.delivery.close()
    made.spool.close()


def test_confirmed_batch_is_forgotten(parts: Set) -> None:
    parts.hear(3)
    parts.step()
    parts.step()
    assert [len(decode(b.body).batch.observations) for b in parts.link.confirmed] == [3]
    status = read_status(parts.path)
    assert (status.batches_waiting, status.batches_kept) == (0, 1)
    assert parts.count["batches_confirmed"] == 1


def test_large_spool_goes_in_one_look(parts: Set) -> None:
    parts.hear(2 * MAX_ROWS + 5)
    parts.step()
    parts.step()
    assert sum(len(decode(b.body).batch.observations) for b in parts.link.confirmed) == (
        2 * MAX_ROWS + 5
    )


def test_empty_batch_each_minute_says_it_is_alive(parts: Set) -> None:
    for _ in range(180):
        parts.step()
    assert 2 <= len(parts.link.confirmed) <= 3
    assert all(decode(b.body).batch.observations == [] for b in parts.link.confirmed)


def test_nothing_is_sealed_while_the_broker_is_away(parts: Set) -> None:
    """A week without it costs one row a client, not one a visit."""
    parts.link.away = BrokerUnavailable("no route")
    for _ in range(50):
        parts.hear(1)
        parts.step(10)
    status = read_status(parts.path)
    assert (status.batches_waiting, status.rows["smtpgreet"]) == (0, 1)
    parts.link.away = None
    parts.step(100)
    assert [decode(b.body).batch.observations[0].hits for b in parts.link.confirmed] == [50]


def test_batch_without_a_confirm_goes_again_under_the_same_number(parts: Set) -> None:
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
    """A broker that takes connections and no batch: no more is sealed than waits."""
    for number in range(30):
        parts.link.fails.append(outcome)
        parts.hear(1, first=number)
        parts.step(100)
    assert read_status(parts.path).batches_waiting <= 4


def test_refusal_holds_everything_and_alarms_once(
    parts: Set, caplog: pytest.LogCaptureFixture
) -> None:
    parts.hear()
    for _ in range(4):
        parts.link.fails.append(BrokerRefused("403 ACCESS_REFUSED"))
        parts.step(30)
    assert caplog.text.count("refuses what is published") == 1
    assert parts.delivery.gauges()["broker_refusing"] == 1
    assert read_status(parts.path).batches_set_aside == 0
    parts.step(100)
    parts.step(100)
    assert [batch.seq for batch in parts.link.confirmed][:1] == [1]
    assert parts.delivery.gauges()["broker_refusing"] == 0


def test_only_a_batch_called_too_large_is_set_aside(parts: Set) -> None:
    parts.hear()
    parts.link.fails.append(BatchTooLarge("message size 9 is larger than configured max size 8"))
    parts.step()
    assert read_status(parts.path).batches_set_aside == 1
    parts.hear(1, first=9)
    parts.step(10)
    parts.step(10)
    assert [decode(b.body).batch.observations[0].ip for b in parts.link.confirmed] == ["0.0.0.9"]
    assert parts.count["batches_set_aside"] == 1


def test_replay_is_noticed_at_the_next_look(parts: Set) -> None:
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
    parts.spool.replace("s")
    parts.hear(1, first=5)
    parts.step(10)
    parts.step(10)
    assert decode(parts.link.confirmed[-1].body).batch.observations[0].ip == "0.0.0.5"


def test_locked_spool_is_tried_again_soon(parts: Set) -> None:
    import sqlite3

    parts.step()
    db = sqlite3.connect(parts.path, isolation_level=None)
    db.execute("BEGIN IMMEDIATE")
    sealer = parts.delivery._sealer
    assert sealer is not None
    sealer._db.execute("PRAGMA busy_timeout=0")
    parts.hear_later = True  # type: ignore[attr-defined]
    assert parts.step(10) < 0.1
    db.execute("COMMIT")
    db.close()
    parts.hear()
    parts.step(10)
    assert parts.link.confirmed


def test_bound_is_kept_without_a_deliverer(tmp_path: Path) -> None:
    made = Set(tmp_path / "s.spool")
    made.hear(3000)
    bounds = type(made.spool.bounds)(max_bytes=20_000)
    keeper = Housekeeping(made.path, bounds, made.count, lambda: NOW)
    keeper.step()
    assert made.count["events_expired"] > 0
    assert keeper.gauges()["spool_rows"] == read_status(made.path).rows["smtpgreet"] < 3000
    made.spool.close()


def test_housekeeping_says_its_trouble_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A disk may be full for days, and is looked at every five seconds."""
    made = Set(tmp_path / "s.spool")
    keeper = Housekeeping(made.path, made.spool.bounds, made.count, lambda: NOW)
    aside = made.path.rename(tmp_path / "aside")
    for _ in range(3):
        keeper.step()
    assert caplog.text.count("spool not looked after") == 1
    aside.rename(made.path)
    keeper.step()
    made.path.rename(aside)
    keeper.step()
    assert caplog.text.count("spool not looked after") == 2
    made.spool.close()
