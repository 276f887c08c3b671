"""Stepping the clock of a real sensor under load: all clients are answered and counted once.

Only the sensor's wall clock is stepped; monotonic clocks and the test's clock stay right.
"""

from __future__ import annotations

import contextlib
import threading
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Self

import pytest

from sensor_support import SensorProcess
from sensor_support.centre import Centre
from servers.clock import SteppedClock
from servers.fixtures import Vhost
from servers.processes import HANG_LIMIT_S, free_port, wait_until
from smtpfeeds_common.clock import EARLIEST_MS, Clock
from smtpfeeds_common.spool import Sealer, read_status
from smtpfeeds_common.wire import Batch, decode

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
STEPS = [
    timedelta(seconds=1),
    timedelta(seconds=-1),
    timedelta(hours=1),
    timedelta(hours=-1),
    timedelta(days=40),
    timedelta(days=-40),
    timedelta(days=3650),
    timedelta(days=-3650),
]


@contextmanager
def stepped(folder: Path, clock: SteppedClock, **settings: object) -> Iterator[SensorProcess]:
    sensor = SensorProcess(folder, max_connections_per_source=1_000, **settings)
    sensor.within = clock.command()
    sensor.start()
    try:
        yield sensor
    finally:
        if sensor.process is not None and sensor.process.poll() is None:
            sensor.kill()


class Load:
    """Clients that connect one after the other, each source repeatedly."""

    def __init__(self, sensor: SensorProcess) -> None:
        self.sensor = sensor
        #: How often the greet of each source was answered.
        self.answered: dict[str, int] = {}
        self.failures: list[str] = []
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._run, args=(number,)) for number in range(4)]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.end()

    def end(self) -> None:
        """Start no more clients, and wait for those that are connected."""
        self._stop.set()
        for thread in self._threads:
            thread.join(60)

    def _run(self, number: int) -> None:
        turn = 0
        while not self._stop.is_set():
            turn += 1
            source = f"127.6.{number}.{1 + turn % 50}"
            try:
                with self.sensor.connect(0, source) as client:
                    codes = [client.reply(), client.say(b"EHLO c.example\r\n")]
            except OSError as exc:
                codes = []
                self.failures.append(f"{source}: {exc}")
            if codes == [220, 250]:
                # Each source belongs to one thread.
                self.answered[source] = self.answered.get(source, 0) + 1
            else:
                self.failures.append(f"{source}: {codes}")

    def more(self, number: int = 20) -> None:
        """Wait until so many more clients are answered."""
        wanted = sum(self.answered.values()) + number
        wait_until(lambda: sum(list(self.answered.values())) >= wanted, what="answers")


def hits(batches: list[Batch]) -> dict[str, int]:
    counted: dict[str, int] = {}
    for batch in batches:
        for row in batch.observations:
            counted[row.ip] = counted.get(row.ip, 0) + row.hits
    return counted


def now_ms() -> int:
    return time.time_ns() // 1_000_000


def test_everyone_is_answered_and_counted_once_at_the_right_time(
    tmp_path: Path, clock: SteppedClock
) -> None:
    """Each step is undone before the clock is trusted, so no event has a wrong time."""
    began_ms = now_ms()
    with stepped(tmp_path, clock) as sensor, Load(sensor) as load:
        load.more()
        for step in STEPS:
            clock.step(step)
            load.more()
            clock.step(-step)
            load.more()
        clock.set(EPOCH)
        load.more()
        clock.offset = timedelta(0)
        load.more()
        load.end()
        assert load.failures == []
        assert sensor.stop() == 0
        assert "Traceback" not in sensor.log.read_text()
    sealed: list[Batch] = []
    with contextlib.closing(Sealer(sensor.spool)) as sealer:
        assert read_status(sensor.spool).undated > 0
        while new_file := sealer.seal(Clock().read()):
            sealed.append(decode(new_file.body).batch)
    assert hits(sealed) == load.answered
    assert sum(hour.events for batch in sealed for hour in batch.hours) == sum(
        load.answered.values()
    )
    for batch in sealed:
        for row in batch.observations:
            # Steps of one second are trusted.
            assert began_ms - 2_000 <= row.first_ms <= row.last_ms <= now_ms() + 2_000


def test_broker_gets_every_event_once_through_all_steps(
    tmp_path: Path, clock: SteppedClock, vhost: Vhost
) -> None:
    """This holds even if the clock stays wrong until it is trusted."""
    centre = Centre(vhost)
    centre.declare_queue()
    settings = {"broker": [centre.account()], "seal_interval_s": 0.1, "clock_steady_s": 1.0}
    with stepped(tmp_path, clock, **settings) as sensor, Load(sensor) as load:
        for step in STEPS:
            clock.step(step)
            load.more(60)
        clock.set(EPOCH)
        load.more(100)
        clock.offset = timedelta(0)
        load.more()
        load.end()
        assert load.failures == []
        batches: list[Batch] = []
        names = set()
        expected = load.answered
        while hits(batches) != expected:
            properties, body = centre.take(60)
            assert properties.user_id == "s1"
            batch = decode(body).batch
            if (batch.spool, batch.seq) not in names:
                names.add((batch.spool, batch.seq))
                batches.append(batch)
        assert sensor.stop() == 0
    assert all(batch.sealed_ms >= EARLIEST_MS for batch in batches)
    status = read_status(sensor.spool)
    assert (status.drops, status.undated, status.batches_waiting) == (0, 0, 0)
    assert "Traceback" not in sensor.log.read_text()
    centre.connection.close()


@pytest.mark.parametrize("step", [timedelta(hours=1), timedelta(hours=-1), timedelta(days=-3650)])
def test_time_limits_do_not_depend_on_the_wall_clock(
    tmp_path: Path, clock: SteppedClock, step: timedelta
) -> None:
    """A step times no client out, and lets none stay longer."""
    with stepped(tmp_path, clock, idle_timeout_s=3, session_timeout_s=60) as sensor:
        busy, idle = sensor.connect(), sensor.connect()
        assert [busy.reply(), idle.reply()] == [220, 220]
        clock.step(step)
        for _ in range(6):
            assert busy.say(b"NOOP\r\n") == 250
            time.sleep(0.5)
        assert idle.reply() == 421
        assert idle.is_closed(30)
        assert busy.say(b"NOOP\r\n") == 250
        for client in (busy, idle):
            client.close()
        assert sensor.stop() == 0
        assert sensor.counters()["limit_idle"] == 1


def test_events_of_a_host_that_starts_in_1970_count_once_its_clock_is_right(
    tmp_path: Path, clock: SteppedClock, vhost: Vhost
) -> None:
    """It answers, says why it delivers nothing, and dates events by the monotonic clock."""
    centre = Centre(vhost)
    centre.declare_queue()
    port = free_port()
    settings = {
        "broker": [centre.account()],
        "seal_interval_s": 0.1,
        "state_interval_s": 1.0,
        "clock_steady_s": 1.0,
        "metrics_listen": f"127.0.0.1:{port}",
    }
    clock.set(EPOCH + timedelta(days=1))
    with stepped(tmp_path, clock, **settings) as sensor:
        before_ms = now_ms()
        with sensor.connect(0, "127.0.0.7") as client:
            assert client.reply() == 220
            assert client.say(b"EHLO x\r\n") == 250
        after_ms = now_ms()
        wait_until(
            lambda: "impossible time, 1970-01-02" in sensor.call("status").stdout,
            what="the status tells it",
        )
        assert "clock in doubt" in sensor.log.read_text()
        metrics = urllib.request.urlopen(
            f"http://127.0.0.1:{port}/metrics", timeout=HANG_LIMIT_S
        ).read()
        assert b"smtpfeeds_sensor_clock_in_doubt 1.0" in metrics
        assert (
            centre.channel.queue_declare(
                "smtpfeeds.observations", passive=True
            ).method.message_count
            == 0
        )
        # A kill loses nothing of it.
        sensor.kill()
        sensor.start()
        clock.offset = timedelta(0)
        batch = decode(centre.take_events(60)[1]).batch
        (row,) = batch.observations
        assert (row.ip, row.hits) == ("127.0.0.7", 1)
        assert before_ms - 1_000 <= row.first_ms == row.last_ms <= after_ms + 1_000
        wait_until(
            lambda: "clock is trusted again" in sensor.log.read_text(),
            what="the log tells it",
        )
        assert sensor.stop() == 0
    assert read_status(sensor.spool).doubt == ""
    centre.connection.close()
