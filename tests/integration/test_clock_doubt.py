"""Stepping the clock of a real PostgreSQL under load loses, deletes or misdates nothing.

`LIMITS` turns ten minutes and an hour into seconds; the unit tests use the real limits.
"""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from ingest_support import Table, settings_of, until
from ingest_support.fixtures import migrated_database
from publish_support import Origins, RunHere
from servers.clock import SteppedClock
from servers.postgres import PostgresServer
from servers.processes import bound_to_parent, end
from smtpfeeds_aggregator import clock_watch
from smtpfeeds_aggregator.clock.database import ClockLimits, DatabaseClock
from smtpfeeds_aggregator.health import Health
from smtpfeeds_aggregator.ingest import hold
from smtpfeeds_aggregator.maintenance import Maintenance
from smtpfeeds_aggregator.metrics import Metrics
from smtpfeeds_aggregator.publish import service as publishing
from smtpfeeds_aggregator.publish.service import PublishLoop
from smtpfeeds_aggregator.service import Service
from smtpfeeds_aggregator.settings import AggregatorSettings
from smtpfeeds_aggregator.store.clock import ClockStore, read_clock
from smtpfeeds_aggregator.store.connection import connect, discard
from smtpfeeds_common.addresses import pack_address
from smtpfeeds_common.cli import main
from smtpfeeds_common.errors import SpoolBusy
from smtpfeeds_common.spool import Event, Spool

LIMITS = ClockLimits(steady_s=2.0, settle_s=2.0, sensors_steady_s=2.0)
DAYS_OLD = 20


@pytest.fixture(scope="module")
def clock_file(tmp_path_factory: pytest.TempPathFactory, clock_library: Path) -> Path:
    folder = clock_library.parent / "clock-doubt"
    folder.mkdir()
    folder.chmod(0o755)
    return folder / "clock"


@pytest.fixture(scope="module")
def the_clock(clock_library: Path, clock_file: Path) -> SteppedClock:
    return SteppedClock(clock_library, clock_file)


@pytest.fixture(scope="module")
def server(
    tmp_path_factory: pytest.TempPathFactory, the_clock: SteppedClock
) -> Iterator[PostgresServer]:
    """A PostgreSQL of this module, whose clock is stepped."""
    server = PostgresServer(tmp_path_factory.mktemp("doubted"), clock=the_clock)
    with server.private:
        yield server


@pytest.fixture
def stepped(the_clock: SteppedClock) -> Iterator[SteppedClock]:
    the_clock.offset = timedelta(0)
    yield the_clock
    the_clock.offset = timedelta(0)


@pytest.fixture
def dsn(server: PostgresServer, stepped: SteppedClock) -> Iterator[str]:
    dsn = migrated_database(server)
    yield dsn
    stepped.offset = timedelta(0)
    server.drop_database(dsn)


@pytest.fixture
def table(dsn: str) -> Iterator[Table]:
    asked = Table(dsn)
    yield asked
    asked.connection.close()


@pytest.fixture(autouse=True)
def _short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clock_watch, "_LOOK_S", 0.2)
    monkeypatch.setattr(publishing, "DOUBT_S", 0.2)
    monkeypatch.setattr(hold, "_RETRY_LAST_S", 0.3)


class Sensor(threading.Thread):
    """Hears a new address every few milliseconds; its own clock is right."""

    def __init__(self, folder: Path, name: str, ahead: timedelta = timedelta(0)) -> None:
        super().__init__()
        self._path, self._sensor, self._ahead = folder / f"{name}.spool", name, ahead
        self.heard = 0
        self.stop = threading.Event()

    def run(self) -> None:
        spool = Spool(self._path, sensor=self._sensor)
        try:
            while not self.stop.wait(0.005):
                self.heard += 1
                address = pack_address(f"192.0.{self.heard >> 8}.{self.heard & 255}")
                at = datetime.now(UTC) + self._ahead
                spool.fold(Event(0, address, int(at.timestamp() * 1000)))
                with suppress(SpoolBusy):
                    spool.commit()
            while spool.unwritten:
                with suppress(SpoolBusy):
                    spool.commit()
        finally:
            spool.close()


class Site:
    """An aggregator in this process, and sensors on the same host."""

    def __init__(self, dsn: str, folder: Path, limits: ClockLimits = LIMITS) -> None:
        self.folder = folder
        self.spools = folder / "spools"
        self.spools.mkdir(exist_ok=True)
        self.settings = settings_of(
            dsn,
            f"spool:{self.spools}",
            feeds_dir=str(folder / "www"),
            publish_interval_s=1,
            publish_non_global=True,
            generations_kept=1000,
            seal_interval_s=0.05,
        )
        self.service = Service(self.settings, clock=DatabaseClock(limits))

    def reasons(self) -> set[str]:
        metric = self.service.metrics.clock_in_doubt
        return {
            reason
            for reason in ("step", "earlier", "sensors")
            if metric.labels(reason)._value.get()
        }

    def problem(self) -> str:
        return " ".join(self.service.health.problems())

    def wait_for(self, *reasons: str, limit_s: float = 60) -> None:
        what = f"the clock is in doubt for {reasons or 'no reason'}"
        until(lambda: self.reasons() == set(reasons), what, limit_s)

    def generated(self) -> list[datetime]:
        """Return when each edition was generated, from its manifest."""
        paths = (self.folder / "www" / "feeds" / "generations").glob("*/manifest.json")
        manifests = [json.loads(path.read_text()) for path in paths]
        return sorted(datetime.fromisoformat(each["generated"]) for each in manifests)


@contextmanager
def running(site: Site) -> Iterator[None]:
    site.service.start()
    try:
        yield
    finally:
        assert not site.service.finish()


@contextmanager
def load(site: Site, *names: str, ahead: timedelta = timedelta(0)) -> Iterator[list[Sensor]]:
    sensors = [Sensor(site.spools, name, ahead) for name in names]
    for sensor in sensors:
        sensor.start()
    try:
        yield sensors
    finally:
        for sensor in sensors:
            sensor.stop.set()
            sensor.join(60)


def add_old_rows(table: Table) -> None:
    """Addresses that a clock 40 days ahead would have deleted."""
    for name, more in (("observation", ""), ("sighting", ", sensor, targets")):
        values = ", 's1', 1" if more else ""
        table.run(
            f"INSERT INTO {name} (ip, feed, first_seen, last_seen, hits{more})"
            f" SELECT '198.51.100.0'::inet + n, 'smtpgreet', now() - interval '{DAYS_OLD} days',"
            f" now() - interval '{DAYS_OLD} days', 1{values} FROM generate_series(1, 50) AS n"
        )


def counted(table: Table) -> int:
    return int(
        table.one("SELECT coalesce(sum(hits), 0) FROM observation WHERE ip << '192.0.0.0/16'")
    )


STEPS = {
    "a second ahead": timedelta(seconds=1),
    "a second behind": timedelta(seconds=-1),
    "an hour ahead": timedelta(hours=1),
    "an hour behind": timedelta(hours=-1),
    "40 days ahead": timedelta(days=40),
    "40 days behind": timedelta(days=-40),
    "10 years ahead": timedelta(days=3650),
    "10 years behind": timedelta(days=-3650),
    "to 1970": datetime(1970, 1, 2, tzinfo=UTC) - datetime.now(UTC),
}


@pytest.mark.parametrize("step", STEPS.values(), ids=STEPS)
def test_step_under_load_loses_deletes_and_misdates_nothing(
    dsn: str,
    table: Table,
    tmp_path: Path,
    stepped: SteppedClock,
    step: timedelta,
    caplog: pytest.LogCaptureFixture,
) -> None:
    add_old_rows(table)
    begun = datetime.now(UTC).replace(microsecond=0)
    site = Site(dsn, tmp_path)
    with running(site), load(site, "s1", "s2") as sensors:
        until(lambda: counted(table) > 20 and bool(site.generated()), "it counts and publishes")
        stepped.step(step)
        if abs(step) > timedelta(minutes=1):
            until(lambda: "step" in site.reasons(), "the step is seen")
            assert "(step)" in site.problem()
            with moving(stepped):
                assert_nothing_is_done(site, table, sensors, caplog)
        stepped.step(-step)
        site.wait_for()
        editions = len(site.generated())
        until(lambda: len(site.generated()) > editions, "it publishes again", 60)
        for sensor in sensors:
            sensor.stop.set()
            sensor.join(60)
        heard = sum(sensor.heard for sensor in sensors)
        until(lambda: counted(table) == heard, "everything is counted, each event once", 60)
    done = datetime.now(UTC) + timedelta(seconds=2)
    assert table.one("SELECT sum(events) FROM activity") == heard
    assert table.one("SELECT count(*) FROM observation WHERE ip << '198.51.100.0/24'") == 50
    assert table.one("SELECT count(*) FROM sighting WHERE ip << '198.51.100.0/24'") == 50
    (times,) = table(
        "SELECT min(first_seen), max(last_seen) FROM observation WHERE ip << '192.0.0.0/16'"
    )
    (heard_at,) = table("SELECT min(heard_at), max(heard_at) FROM sensor")
    (hours,) = table("SELECT min(hour), max(hour) + interval '1 hour' FROM activity")
    margin = timedelta(seconds=2)
    for first, last in (times, heard_at, (site.generated()[0], site.generated()[-1])):
        assert begun - margin <= first <= last <= done + margin
    assert begun - timedelta(hours=1) <= hours[0] <= hours[1] <= done + timedelta(hours=1)


@contextmanager
def moving(clock: SteppedClock) -> Iterator[None]:
    """Move the clock to and fro: the doubt ends when it has been steady for `steady_s`."""
    stepped, done = clock.offset, threading.Event()

    def move() -> None:
        by = timedelta(minutes=2)
        while not done.wait(0.1):
            clock.step(by)
            by = -by

    thread = threading.Thread(target=move)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()
        clock.offset = stepped


def assert_nothing_is_done(
    site: Site, table: Table, sensors: list[Sensor], caplog: pytest.LogCaptureFixture
) -> None:
    """The doubt is seen. What was being written before may still be committed, and nothing else."""
    assert "Nothing is acknowledged, deleted, expired or published" in site.problem()
    waits = {"batches wait", "publishing waits"}
    until(lambda: waits <= set(caplog.messages), "batches and publishing wait")
    before, heard = (counted(table), site.generated()), sensors[0].heard
    until(lambda: sensors[0].heard > heard + 100, "sensors go on", 60)
    assert (counted(table), site.generated()) == before


def test_step_while_the_database_is_down_is_seen(
    dsn: str, server: PostgresServer, table: Table, tmp_path: Path, stepped: SteppedClock
) -> None:
    site = Site(dsn, tmp_path, ClockLimits())
    with running(site), load(site, "s1") as sensors:
        until(lambda: counted(table) > 20, "it counts")
        server.private.stop()
        stepped.step(timedelta(hours=-1))
        server.private.start()
        site.wait_for("step")
        command("aggregator", "accept-clock", "--dsn", dsn, "--yes")
        site.wait_for()
        sensors[0].stop.set()
        sensors[0].join(60)
        asked = Table(dsn)
        until(lambda: counted(asked) == sensors[0].heard, "everything is counted", 60)
        asked.connection.close()


def command(*words: str, answers: str = "") -> str:
    ended = CliRunner().invoke(main, list(words), input=answers)
    assert ended.exit_code == 0, ended.output
    return ended.output


def test_clock_earlier_than_the_newest_time_stops_work_until_it_is_accepted(
    dsn: str, table: Table, tmp_path: Path, stepped: SteppedClock
) -> None:
    table.run("UPDATE database_clock SET noted = now()")
    stepped.step(timedelta(days=-3650))
    site = Site(dsn, tmp_path)
    with running(site), load(site, "s1") as sensors:
        site.wait_for("earlier")
        until(lambda: sensors[0].heard > 100, "the sensor goes on")
        assert (counted(table), site.generated()) == (0, [])
        shown = json.loads(command("aggregator", "clock", "--dsn", dsn, "--json"))
        assert shown[0]["in_doubt"] == "earlier"
        assert "earlier than the newest time noted in the database" in shown[0]["detail"]
        stepped.offset = timedelta(0)
        site.wait_for("step")
        site.wait_for()
        until(lambda: counted(table) > 0, "it counts by the right clock")
        stepped.step(timedelta(hours=-2))
        site.wait_for("step", "earlier")
        result = command("aggregator", "accept-clock", "--dsn", dsn, answers="y\n")
        assert "accepted: the database's clock shows" in result
        site.wait_for()
        before = counted(table)
        until(lambda: counted(table) > before, "it counts by the accepted clock")
        shown = json.loads(command("aggregator", "clock", "--dsn", dsn, "--json"))
        assert (shown[0]["in_doubt"], shown[0]["detail"]) == ("", "")


def test_answer_no_accepts_nothing(dsn: str, table: Table) -> None:
    ended = CliRunner().invoke(main, ["aggregator", "accept-clock", "--dsn", dsn], input="n\n")
    assert ended.exit_code != 0
    assert table.one("SELECT acceptances FROM database_clock") == 0


@pytest.mark.parametrize("ahead", [timedelta(days=-20), timedelta(days=20)], ids=str)
def test_clock_that_differs_from_three_sensors_is_in_doubt(
    dsn: str,
    table: Table,
    tmp_path: Path,
    stepped: SteppedClock,
    ahead: timedelta,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """This holds even if the clock was wrong before any start, so that no step was seen."""
    stepped.step(ahead)
    site = Site(dsn, tmp_path, ClockLimits(steady_s=2, settle_s=3600, sensors_steady_s=2))
    with running(site), load(site, "s1", "s2", "s3") as sensors:
        site.wait_for("sensors")
        assert "the median of the clocks of 3 sensors" in site.problem()
        assert_nothing_is_done(site, table, sensors, caplog)
        before = counted(table)
        command("aggregator", "accept-clock", "--dsn", dsn, "--yes")
        site.wait_for()
        until(lambda: counted(table) > before, "it counts by the accepted clock")
        heard = sensors[0].heard
        until(lambda: sensors[0].heard > heard + 400, "it is accepted for good", 60)
        assert site.reasons() == set()
        for sensor in sensors:
            sensor.stop.set()
            sensor.join(60)
        heard = sum(sensor.heard for sensor in sensors)
        until(lambda: counted(table) == heard, "everything is counted, each event once", 60)


def test_doubt_of_the_sensors_outlasts_a_restart(
    dsn: str, table: Table, tmp_path: Path, stepped: SteppedClock
) -> None:
    """Until the sensors report again nothing is published; then the reason is the same."""
    table.run(
        "UPDATE database_clock SET doubts = '{sensors}', doubt = 'an earlier run', ahead_s = -3e6"
    )
    stepped.step(timedelta(days=40))
    site = Site(dsn, tmp_path, ClockLimits(steady_s=2, settle_s=3600, sensors_steady_s=2))
    with running(site):
        until(lambda: "too few sensors have been heard" in site.problem(), "it is said")
        with load(site, "s1", "s2", "s3"):
            site.wait_for("sensors")
        assert site.generated() == []
        stepped.offset = timedelta(0)
        site.wait_for()
        with load(site, "s1", "s2", "s3"):
            until(lambda: site.generated() != [], "it publishes by the right clock", 60)
        assert not any(problem.startswith("clock") for problem in site.service.health.problems())
    assert table.one("SELECT doubts FROM database_clock") == []


def test_nothing_is_deleted_until_the_clock_is_settled(
    dsn: str, table: Table, stepped: SteppedClock
) -> None:
    table.run(
        "INSERT INTO observation (ip, feed, first_seen, last_seen, hits)"
        " VALUES ('192.0.2.1', 'smtpgreet', now() - interval '31 days', now() - interval"
        " '31 days', 1)"
    )
    at_s = [1000.0]
    clock = DatabaseClock(monotonic=lambda: time.monotonic() + at_s[0])
    stop = threading.Event()
    with connect(settings_of(dsn), "test", autocommit=True) as connection:
        maintenance = Maintenance(settings_of(dsn), clock, Metrics(), Health())
        for minutes, rows in ((0, 1), (59, 1), (61, 0)):
            # An hour passes on every clock.
            at_s[0], stepped.offset = 1000 + minutes * 60, timedelta(minutes=minutes)
            clock.take(read_clock(connection, clock.monotonic))
            maintenance._round(stop)
            assert table.one("SELECT count(*) FROM observation") == rows
        discard(maintenance._connection)


def test_newest_time_is_stored_once_a_minute_and_never_decreases(
    dsn: str, table: Table, stepped: SteppedClock
) -> None:
    with connect(settings_of(dsn), "test", autocommit=True) as connection:
        store = ClockStore(connection)
        note_now(store)
        first = table.one("SELECT noted FROM database_clock")
        assert abs(first - datetime.now(UTC)) < timedelta(minutes=1)
        for step in (timedelta(seconds=50), timedelta(days=-400)):
            stepped.offset = step
            note_now(store)
            assert table.one("SELECT noted FROM database_clock") == first
        stepped.offset = timedelta(seconds=120)
        note_now(store)
        assert table.one("SELECT noted FROM database_clock") > first


def note_now(store: ClockStore) -> None:
    store.note(store.read(time.monotonic), every_s=60)


def test_step_between_reading_and_storing_the_time_is_not_stored(
    dsn: str, table: Table, stepped: SteppedClock
) -> None:
    """Else the clock would seem to be earlier as soon as it is right again."""
    noted = "SELECT noted FROM database_clock"
    with connect(settings_of(dsn), "test", autocommit=True) as connection:
        store = ClockStore(connection)
        reading = store.read(time.monotonic)
        stepped.step(timedelta(days=40))
        store.note(reading, every_s=0)
        assert table.one(noted) == reading.now
        before = store.read(time.monotonic)
        stepped.offset = timedelta(0)
        accepted = store.accept()
        store.note(before, every_s=0)
        assert table.one(noted) == accepted


@contextmanager
def program(config: Path, log: Path, clock: SteppedClock) -> Iterator[None]:
    """Run the command on a host with this clock."""
    words = ["-m", "smtpfeeds_common.cli", "aggregator", "run", "--config", str(config)]
    with log.open("ab") as stream:
        process = subprocess.Popen(
            bound_to_parent([sys.executable, *words]), env=clock.environment, stderr=stream
        )
    try:
        yield
    finally:
        end(process, limit_s=60)
    assert process.returncode == 0, log.read_text()


def hear(spools: Path, address: str, at: datetime) -> None:
    spool = Spool(spools / "s1.spool", sensor="s1")
    spool.fold(Event(0, pack_address(address), int(at.timestamp() * 1000)))
    spool.commit()
    spool.close()


def test_restart_after_weeks_needs_no_operator(
    dsn: str, table: Table, tmp_path: Path, stepped: SteppedClock
) -> None:
    """On one host with one clock, events from before are counted, and nothing is deleted yet."""
    spools, www = tmp_path / "spools", tmp_path / "www"
    spools.mkdir()
    config, log = tmp_path / "aggregator.toml", tmp_path / "log"
    config.write_text(
        f'dsn = "{dsn}"\nbroker = ["spool:{spools}"]\nfeeds_dir = "{www}"\n'
        "publish_non_global = true\npublish_interval_s = 3600\n"
    )
    table.run("UPDATE database_clock SET noted = now()")
    with program(config, log, stepped):
        hear(spools, "192.0.2.1", stepped.now())
        until(lambda: counted(table) == 1, "it counts", 60)
    hear(spools, "192.0.2.2", stepped.now())
    stepped.step(timedelta(days=35))
    with program(config, log, stepped):
        hear(spools, "192.0.2.3", stepped.now())
        until(lambda: counted(table) == 3, "it counts what waited, and what is new", 60)

        def published() -> bool:
            with suppress(FileNotFoundError, ValueError):
                manifest: dict[str, Any] = json.loads((www / "feeds/manifest.json").read_text())
                age = stepped.now() - datetime.fromisoformat(manifest["generated"])
                return age < timedelta(hours=1)
            return False

        until(published, "it publishes", 60)
    assert "in doubt" not in log.read_text()


@pytest.mark.parametrize("behind_ms", [20, -20, 700])
def test_editions_of_two_aggregators_are_one_for_each_point_of_the_grid(
    dsn: str, tmp_path: Path, stepped: SteppedClock, behind_ms: int
) -> None:
    """Grid, generated and expires follow the database's clock, not that of the host."""
    stepped.offset = timedelta(milliseconds=-behind_ms)
    settings = AggregatorSettings(
        dsn=dsn, feeds_dir=str(tmp_path), publish_interval_s=1, generations_kept=1000
    )
    loops = []
    for _ in range(2):
        clock = DatabaseClock()
        with connect(settings, "test", autocommit=True) as connection:
            clock.take(read_clock(connection, clock.monotonic))
        runner = RunHere(settings, Origins(), clock)
        loops.append(PublishLoop(settings, runner, clock, Metrics(), Health()))
    stop = threading.Event()
    threads = [threading.Thread(target=loop.run, args=(stop,)) for loop in loops]
    for thread in threads:
        thread.start()

    def editions() -> list[dict[str, Any]]:
        paths = sorted((tmp_path / "feeds" / "generations").glob("*/manifest.json"))
        return [json.loads(path.read_text()) for path in paths]

    try:
        until(lambda: len(editions()) >= 6, "six editions", 60)
    finally:
        stop.set()
        for thread in threads:
            thread.join(60)
    times = [datetime.fromisoformat(edition["generated"]) for edition in editions()]
    assert len(set(times)) == len(times), "one for each second"
    for edition, at in zip(editions(), times, strict=True):
        assert datetime.fromisoformat(edition["expires"]) == at + timedelta(seconds=2)
    published = sum(
        int(loop._metrics.publish_runs.labels("published")._value.get()) for loop in loops
    )
    assert published == len(times)
