"""The spool source delivers like a sensor's publisher, and confirms what is committed.

It runs without its thread: it takes a turn whenever a test waits, and uses the test's clocks.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from ingest_support import now_ms
from smtpfeeds_aggregator.accounts import RefusalCode
from smtpfeeds_aggregator.metrics import Metrics
from smtpfeeds_aggregator.sources import Delivery, Refusal
from smtpfeeds_aggregator.sources.spool import SpoolSource
from smtpfeeds_common.clock import Clock
from smtpfeeds_common.spool import Event, Sealer, Spool, read_status, replay
from smtpfeeds_common.wire import decode
from spool_support import BOOT

#: More than anything here takes.
_TURNS = 100


class Host:
    """A host's clocks: the monotonic one, and the offset of the wall clock."""

    def __init__(self) -> None:
        self.now_s = 1_000.0
        self.off_ms = 0
        self._began_ms = now_ms() - 1_000_000

    def utc_ms(self) -> int:
        return self._began_ms + int(self.now_s * 1000) + self.off_ms

    def elapsed_ms(self) -> int:
        return int(self.now_s * 1000)


class Running:
    def __init__(self, folder: Path) -> None:
        self.clock = Host()
        self.metrics = Metrics()
        self.source = SpoolSource(
            folder,
            seal_interval_s=0.05,
            metrics=self.metrics,
            clock=Clock(utc_ms=self.clock.utc_ms, elapsed_ms=self.clock.elapsed_ms, boot=BOOT),
            monotonic=lambda: self.clock.now_s,
        )

    def until(self, condition: Callable[[], bool], what: str) -> None:
        """Let the source take turns of 50 ms until a condition holds."""
        for _ in range(_TURNS):
            if condition():
                return
            self.turn()
        assert condition(), f"not within {_TURNS} turns: {what}"

    def turn(self) -> None:
        self.clock.now_s += 0.05
        self.source.turn()

    def take(self, count: int) -> list[Delivery]:
        """Return this many deliveries."""
        deliveries: list[Delivery] = []

        def are_there() -> bool:
            while len(deliveries) < count and (delivery := self.source.get(0)) is not None:
                deliveries.append(delivery)
            return len(deliveries) >= count

        self.until(are_there, f"{count} deliveries came")
        return deliveries

    def take_heard(self) -> Delivery:
        """Return the next delivery with rows; empty ones only show that a sensor is alive."""
        while True:
            (delivery,) = self.take(1)
            if rows_of(delivery):
                return delivery
            self.source.acknowledge([delivery])

    def nothing_comes(self) -> bool:
        """Return whether nothing is delivered in the next second."""
        for _ in range(20):
            self.turn()
            if self.source.get(0) is not None:
                return False
        return True


@contextmanager
def source_on(folder: Path) -> Iterator[Running]:
    running = Running(folder)
    running.turn()
    try:
        yield running
    finally:
        running.source.close()


@pytest.fixture
def spool(tmp_path: Path) -> Iterator[Spool]:
    spool = Spool(tmp_path / "s1.spool", sensor="s1", boot=BOOT)
    yield spool
    spool.close()


def heard(spool: Spool, *ips: bytes) -> None:
    for ip in ips:
        spool.fold(Event(0, ip, now_ms()))
    spool.commit()


def rows_of(delivery: Delivery) -> list[str]:
    return [row.ip for row in decode(delivery.body).batch.observations]


def test_events_are_sealed_delivered_and_confirmed(spool: Spool, tmp_path: Path) -> None:
    heard(spool, b"\xc0\0\2\1", b"\xc0\0\2\2")
    with source_on(tmp_path) as running:
        (delivery,) = running.take(1)
        assert (delivery.account, delivery.routing_key) == ("s1", "observations.s1")
        assert rows_of(delivery) == ["192.0.2.1", "192.0.2.2"]
        assert running.source.consuming
        running.source.acknowledge([delivery])
        running.until(lambda: read_status(spool.path).batches_waiting == 0, "it is forgotten")
        heard(spool, b"\xc0\0\2\3")
        assert rows_of(running.take(1)[0]) == ["192.0.2.3"]


def test_unacknowledged_batch_is_delivered_again_after_a_restart(
    spool: Spool, tmp_path: Path
) -> None:
    heard(spool, b"\xc0\0\2\1")
    with source_on(tmp_path) as running:
        first = running.take(1)[0]
    with source_on(tmp_path) as running:
        again = running.take(1)[0]
    assert again.body == first.body


def test_at_most_four_batches_of_a_spool_are_unconfirmed(spool: Spool, tmp_path: Path) -> None:
    with source_on(tmp_path) as running:
        taken = []
        for n in range(4):
            heard(spool, bytes([192, 0, 2, n]))
            taken += running.take(1)
        heard(spool, b"\xc0\0\2\x09")
        assert running.nothing_comes()
        running.source.acknowledge(taken[:1])
        assert rows_of(running.take(1)[0]) == ["192.0.2.9"]


def test_pause_seals_nothing_and_resume_delivers_again(spool: Spool, tmp_path: Path) -> None:
    heard(spool, b"\xc0\0\2\1")
    with source_on(tmp_path) as running:
        first = running.take(1)[0]
        running.source.pause()
        assert not running.source.is_current(first)
        assert not running.source.consuming
        heard(spool, b"\xc0\0\2\2")
        assert running.nothing_comes()
        running.source.resume()
        again = running.take(2)
        assert [rows_of(delivery) for delivery in again] == [["192.0.2.1"], ["192.0.2.2"]]
        assert again[0].redelivered


def test_refused_batch_is_held_in_its_spool_and_refused_rows_are_not(
    spool: Spool, tmp_path: Path
) -> None:
    with source_on(tmp_path) as running:
        heard(spool, b"\xc0\0\2\1")
        running.source.refuse(running.take(1)[0], Refusal(RefusalCode.DATABASE, "bad", b""))
        running.until(
            lambda: read_status(spool.path).failure == "bad", "it is held, and the reason noted"
        )
        assert read_status(spool.path).batches_refused == 1
        heard(spool, b"\xc0\0\2\2")
        running.source.refuse(running.take(1)[0], Refusal(RefusalCode.ROWS, "one bad", b""))
        running.until(lambda: read_status(spool.path).batches_waiting == 0, "it is forgotten")
        assert read_status(spool.path).batches_refused == 1


def test_missing_or_unreadable_folder_is_reported_and_used_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The thread continues, and `/health` reports it."""
    with source_on(tmp_path) as running:
        running.until(lambda: running.source.consuming, "the folder is there")

        def refused(_: Path) -> Iterator[Path]:
            raise PermissionError(13, "Permission denied")

        with monkeypatch.context() as patched:
            patched.setattr(Path, "iterdir", refused)
            running.clock.now_s += 2
            running.until(lambda: not running.source.consuming, "it is noticed")
        running.clock.now_s += 2
        running.until(lambda: running.source.consuming, "it is there again")
    failures = running.metrics.registry.get_sample_value("smtpfeeds_ingest_spool_failures_total")
    assert failures
    assert failures >= 1


def test_quiet_sensor_sends_an_empty_batch_each_minute(spool: Spool, tmp_path: Path) -> None:
    with source_on(tmp_path) as running:
        running.source.acknowledge(running.take(1))
        assert running.nothing_comes()
        running.clock.now_s += 61
        (alive,) = running.take(1)
        assert rows_of(alive) == []


def test_unusable_spool_is_opened_as_soon_as_possible(
    tmp_path: Path,
) -> None:
    folder = tmp_path / "later"
    with source_on(folder) as running:
        assert running.nothing_comes()
        assert not running.source.consuming
        folder.mkdir()
        spool = Spool(folder / "s1.spool", sensor="s1")
        other = Sealer(spool.path)
        heard(spool, b"\xc0\0\2\1")
        assert running.nothing_comes()
        other.close()
        running.source.acknowledge(running.take(1))
        running.until(lambda: read_status(spool.path).batches_waiting == 0, "it is forgotten")
        spool.close()
        for file in folder.iterdir():
            file.unlink()
        spool = Spool(folder / "s1.spool", sensor="s1")
        heard(spool, b"\xc0\0\2\7")
        assert rows_of(running.take(1)[0]) == ["192.0.2.7"]
        spool.close()


def test_replay_is_delivered_together_with_new_batches(spool: Spool, tmp_path: Path) -> None:
    with source_on(tmp_path) as running:
        heard(spool, b"\xc0\0\2\1")
        running.source.acknowledge([running.take_heard()])
        running.until(lambda: read_status(spool.path).batches_waiting == 0, "it is confirmed")
        assert replay(spool.path, 0) >= 1
        again = running.take_heard()
        assert rows_of(again) == ["192.0.2.1"]
        heard(spool, b"\xc0\0\2\2")
        assert rows_of(running.take_heard()) == ["192.0.2.2"]
        running.source.acknowledge([again])
        running.until(
            lambda: read_status(spool.path).batches_to_replay == 0, "it is confirmed again"
        )


def test_refused_replay_is_given_up_and_stays_confirmed(spool: Spool, tmp_path: Path) -> None:
    with source_on(tmp_path) as running:
        heard(spool, b"\xc0\0\2\1")
        running.source.acknowledge([running.take_heard()])
        running.until(lambda: read_status(spool.path).batches_waiting == 0, "it is confirmed")
        replay(spool.path, 0)
        running.source.refuse(running.take_heard(), Refusal(RefusalCode.DATABASE, "bad", b""))
        running.until(lambda: read_status(spool.path).batches_to_replay == 0, "it is given up")
        status = read_status(spool.path)
        assert (status.batches_kept >= 1, status.batches_refused) == (True, 0)


@pytest.mark.parametrize("step_s", [3_600, -3_600, 40 * 86_400, -40 * 86_400, -3650 * 86_400])
def test_clock_steps_stop_no_timer_and_lose_no_event(
    spool: Spool, tmp_path: Path, step_s: int
) -> None:
    """Nothing is sealed during the doubt; then each event has a possible time."""
    with source_on(tmp_path) as running:
        heard(spool, b"\xc0\0\2\1")
        running.source.acknowledge([running.take_heard()])
        running.clock.off_ms = step_s * 1000
        doubt = "smtpfeeds_ingest_spool_clock_in_doubt"
        sample = running.metrics.registry.get_sample_value
        running.until(lambda: sample(doubt) == 1, "the step is noticed")
        heard(spool, b"\xc0\0\2\2")
        spool.fold(Event(0, b"\xc0\0\2\3", running.clock.elapsed_ms() - 500, dated=False))
        spool.commit()
        assert running.nothing_comes()
        running.clock.off_ms = 0
        running.until(
            lambda: running.source._clock.doubt.startswith("the host's clock was stepped"), "back"
        )
        running.clock.now_s += 121
        delivery = running.take_heard()
        assert sorted(rows_of(delivery)) == ["192.0.2.2", "192.0.2.3"]
        now = running.clock.utc_ms()
        for row in decode(delivery.body).batch.observations:
            assert now - 200_000 < row.first_ms <= row.last_ms <= now


def test_trouble_with_one_spool_does_not_affect_others(
    spool: Spool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Also for an unexpected error: that spool is opened again, and the thread continues."""
    seal = Sealer.seal

    def broken(self: Sealer, *args: object, **more: object) -> object:
        if self.path.name == "bad.spool":
            raise RuntimeError("a surprise")
        return seal(self, *args, **more)  # type: ignore[arg-type] # handed on as they came

    bad = Spool(tmp_path / "bad.spool", sensor="bad")
    with monkeypatch.context() as patched:
        patched.setattr(Sealer, "seal", broken)
        with source_on(tmp_path) as running:
            running.until(lambda: "a surprise" in caplog.text, "it is met")
            heard(spool, b"\xc0\0\2\1")
            running.source.acknowledge([running.take_heard()])
            patched.undo()
            heard(bad, b"\xc0\0\2\x09")
            running.clock.now_s += 2
            assert rows_of(running.take_heard()) == ["192.0.2.9"]
    bad.close()
