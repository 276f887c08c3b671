"""Publications in a separate process: their inputs, how they end, and how that is reported.

A test locks a table that the process reads, to stop a publication in the middle.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import psycopg
import pytest
from click.testing import CliRunner

from ingest_support import until
from ingest_support.fixtures import dsn  # noqa: F401 - fixtures
from publish_support import Origins
from smtpfeeds_aggregator.classification.lists.model import AddressList, parse_prefix
from smtpfeeds_aggregator.classification.lists.table import ListTable
from smtpfeeds_aggregator.cli.publish import publish
from smtpfeeds_aggregator.clock.database import ClockInDoubt, DatabaseClock, Reading
from smtpfeeds_aggregator.health import Health
from smtpfeeds_aggregator.metrics import Metrics
from smtpfeeds_aggregator.origin import EMPTY, OriginSource
from smtpfeeds_aggregator.publish.generation import FeedsDirectory
from smtpfeeds_aggregator.publish.once import Published, publish_once
from smtpfeeds_aggregator.publish.process import ProcessRunner
from smtpfeeds_aggregator.publish.sanity import SuspiciousFeeds
from smtpfeeds_aggregator.publish.service import PublishLoop
from smtpfeeds_aggregator.publish.status import Running, StatusFile, Success
from smtpfeeds_aggregator.publish.stopping import PublishStopped
from smtpfeeds_aggregator.settings import AggregatorSettings
from smtpfeeds_aggregator.store.connection import Connection, connect
from smtpfeeds_aggregator.store.errors import DatabaseRefused
from smtpfeeds_aggregator.store.publication import PublicationStore
from smtpfeeds_common.errors import SmtpfeedsError

# ruff: noqa: F811 - fixtures are imported by name and used by name

LONG_AGO = datetime(2020, 1, 1, tzinfo=UTC)
#: No publication is as new as this.
FAR_AHEAD = datetime(2100, 1, 1, tzinfo=UTC)
NO_LISTS = ListTable((), "none")


@pytest.fixture
def settings(dsn: str, tmp_path: Path) -> AggregatorSettings:
    return AggregatorSettings(
        dsn=dsn, feeds_dir=str(tmp_path / "www"), publish_non_global=True, formats=("txt", "csv")
    )


@pytest.fixture
def connection(settings: AggregatorSettings) -> Iterator[Connection]:
    with connect(settings, "test", autocommit=True) as connection:
        yield connection


def observe(connection: Connection, addresses: int) -> None:
    connection.execute(
        "INSERT INTO observation"
        " SELECT '192.0.2.0'::inet + n, 'smtpgreet', now(), now(), 1, 0, NULL"
        " FROM generate_series(1, %s) AS n ON CONFLICT DO NOTHING",
        (addresses,),
    )


def runner_of(
    settings: AggregatorSettings,
    origins: Any = Origins,
    lists: ListTable = NO_LISTS,
    clock: DatabaseClock | None = None,
    metrics: Metrics | None = None,
    **options: Any,
) -> ProcessRunner:
    class NoTable:
        current = EMPTY

    table = NoTable() if origins is Origins else origins
    return ProcessRunner(
        settings, table, lambda: lists, clock or DatabaseClock(), metrics or Metrics(), **options
    )


def current(settings: AggregatorSettings) -> Path:
    return Path(settings.feeds_dir, "feeds", "current").resolve(strict=True)


@contextmanager
def stopped_in_the_middle(settings: AggregatorSettings, run: Any) -> Iterator[tuple[Any, Running]]:
    """Start a run in a thread; it waits for a table while the caller looks at it."""
    status = StatusFile(Path(settings.feeds_dir))
    with psycopg.connect(settings.dsn) as other, ThreadPoolExecutor(1) as pool:
        other.execute("LOCK TABLE observation")
        future: Future[Any] = pool.submit(run)
        try:
            until(lambda: status.read_running() is not None or future.done(), "it runs")
            running = status.read_running()
            assert running is not None, future.result()
            yield future, running
        finally:
            other.rollback()


def is_locked(settings: AggregatorSettings) -> bool:
    with connect(settings, "test", autocommit=True) as connection:
        key = FeedsDirectory(Path(settings.feeds_dir)).lock_key()
        return PublicationStore(connection).is_locked(key)


def is_alive(process: int) -> bool:
    with contextlib.suppress(OSError):
        return "Z" not in Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0]
    return False


def test_process_publishes_with_the_table_lists_and_clock_of_the_aggregator(
    settings: AggregatorSettings,
    connection: Connection,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The table may be only in memory, as for plain files."""
    observe(connection, 3)
    table, names = tmp_path / "table.dat", tmp_path / "names.json"
    table.write_text("192.0.2.0/31\t64496\n192.0.2.2/31\t64497\n")
    names.write_text('{"64496": "ONE-NET", "64497": "TWO-NET"}')
    origins = OriginSource(replace(settings, origin_table=str(table), as_names=str(names)))
    origins.load()
    survey = AddressList(
        *("survey", "scanner", "Census", "https://example.net/", "file"),
        *(datetime.now(UTC).date(), "stated", (parse_prefix("192.0.2.3"),)),
    )
    readings: list[Reading] = []

    class Clock(DatabaseClock):
        def check_publication(self, reading: Reading) -> datetime:
            readings.append(reading)
            return super().check_publication(reading)

    (tmp_path / "www").mkdir()
    stray = tmp_path / "www" / ".unfinished" / "dead"
    stray.mkdir(parents=True)
    monkeypatch.setenv("SMTPFEEDS_AGGREGATOR_DSN", settings.dsn)
    monkeypatch.setenv("NOTIFY_SOCKET", "@nobody")
    metrics = Metrics()
    runner = runner_of(settings, origins, ListTable([survey], "lists-1"), Clock(), metrics)
    with (
        caplog.at_level(logging.INFO),
        stopped_in_the_middle(settings, lambda: runner.run(LONG_AGO, threading.Event())) as (
            future,
            running,
        ),
    ):
        process = Path(f"/proc/{running.process_id}")
        shown = (process / "cmdline").read_bytes() + (process / "environ").read_bytes()
        assert settings.dsn.encode() not in shown
        assert b"NOTIFY_SOCKET" not in shown
        assert os.getpriority(os.PRIO_PROCESS, running.process_id) > os.getpriority(
            os.PRIO_PROCESS, 0
        )
        assert os.getsid(running.process_id) == running.process_id != os.getsid(0)
        sample = metrics.registry.get_sample_value
        assert sample("smtpfeeds_publish_process_id") == running.process_id
        assert sample("smtpfeeds_publish_process_start_timestamp_seconds")
        assert sample("smtpfeeds_publish_timeout_seconds") == running.timeout_s == 1800
    published = future.result()
    assert isinstance(published, Published)
    assert published.generation == current(settings)
    assert published.addresses == {"smtpgreet": 3, "smtpdata": 0}
    rows = (published.generation / "smtpgreet.txt").read_text()
    assert "ONE-NET" in rows
    assert "TWO-NET" in rows
    manifest = json.loads((published.generation / "manifest.json").read_text())
    assert manifest["origin_generation"] == origins.current.generation
    assert manifest["list_generation"] == "lists-1"
    assert "Census" in (published.generation / "smtpgreet.csv").read_text()
    assert len(readings) == 2, "at the start, and before the switch"
    lines = [record for record in caplog.records if "interrupted run" in record.message]
    assert [(line.name, line.levelno) for line in lines] == [
        ("smtpfeeds_aggregator.publish.once", logging.WARNING)
    ]
    assert sample("smtpfeeds_publish_process_id") == 0
    assert not is_alive(running.process_id)
    assert runner.run(LONG_AGO, threading.Event()) is None, "published since then"


def test_killed_process_frees_its_lock_and_is_a_failed_run(
    settings: AggregatorSettings, connection: Connection, tmp_path: Path
) -> None:
    """Its session ends during a statement that still waits for the table."""
    config = tmp_path / "aggregator.toml"
    config.write_text(
        f"dsn = {json.dumps(settings.dsn)}\nfeeds_dir = {json.dumps(settings.feeds_dir)}\n"
    )
    arguments = ["status", "--config", str(config), "--format"]
    metrics, health, clock = Metrics(), Health(), DatabaseClock()
    loop = PublishLoop(
        settings, runner_of(settings, clock=clock, metrics=metrics), clock, metrics, health
    )
    with stopped_in_the_middle(settings, loop.publish) as (future, running):
        shown = json.loads(CliRunner().invoke(publish, [*arguments, "json"]).stdout)
        assert shown["running"]["process_id"] == running.process_id
        assert shown["running"]["timeout_s"] == shown["timeout_s"] == 1800
        text = CliRunner().invoke(publish, [*arguments, "text"]).stdout
        assert f"process {running.process_id}, at most 1800 s" in text
        os.kill(running.process_id, signal.SIGKILL)
        future.result(60)
        until(lambda: not is_locked(settings), "the lock is free though the table is not")
    assert health.problems()[0].startswith("publish: SIGKILL ended the process that publishes")
    sample = metrics.registry.get_sample_value
    assert sample("smtpfeeds_publish_failures", {"reason": "killed"}) == 1
    assert sample("smtpfeeds_publish_runs", {"result": "failed"}) == 1
    assert sample("smtpfeeds_publish_last_failure_timestamp_seconds")
    killed = json.loads(CliRunner().invoke(publish, [*arguments, "json"]).stdout)
    assert killed["running"] is None
    assert killed["last_failure"]["kind"] == "killed"
    loop.publish()
    assert health.problems() == []
    after = json.loads(CliRunner().invoke(publish, [*arguments, "json"]).stdout)
    assert (after["last_failure"], after["earlier_failure"]["kind"]) == (None, "killed")


def test_edition_of_a_process_that_ends_after_the_switch_counts(
    settings: AggregatorSettings, connection: Connection, caplog: pytest.LogCaptureFixture
) -> None:
    """It waits for a table that it writes after the switch; what it left undone is noted."""
    observe(connection, 3)
    metrics, health, clock = Metrics(), Health(), DatabaseClock()
    runner = runner_of(settings, clock=clock, metrics=metrics)
    loop = PublishLoop(settings, runner, clock, metrics, health)
    status = StatusFile(Path(settings.feeds_dir))
    with psycopg.connect(settings.dsn) as other, ThreadPoolExecutor(1) as pool:
        other.execute("LOCK TABLE publication_summary")
        future = pool.submit(loop.publish)
        try:
            until(lambda: status.read().success is not None or future.done(), "it has switched", 60)
            running = status.read_running()
            assert running is not None, future.result()
            assert status.not_cleaned() is None, "it may still do it"
            os.kill(running.process_id, signal.SIGKILL)
            assert future.result(60) % settings.publish_interval_s == 0, "nothing is to repeat"
        finally:
            other.rollback()
    noted = status.read()
    assert noted.failure is None
    assert noted.success is not None
    assert noted.success.generation == current(settings).name
    assert noted.success.addresses == {"smtpgreet": 3, "smtpdata": 0}
    assert "did not finish" in (status.not_cleaned() or "")
    sample = metrics.registry.get_sample_value
    assert sample("smtpfeeds_publish_runs", {"result": "published"}) == 1
    assert sample("smtpfeeds_publish_not_cleaned") == 1
    assert sample("smtpfeeds_publish_failures", {"reason": "killed"}) == 0
    assert health.problems() == []
    assert "the process was ended afterwards" in caplog.text


def test_process_past_its_time_or_its_stop_is_ended(
    settings: AggregatorSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SIGKILL ends it, because it waits in the database client and handles no signal there."""
    metrics, clock, processes = Metrics(), DatabaseClock(), list[float]()
    monkeypatch.setattr(metrics.publish_process_id, "set", processes.append)
    short = replace(settings, publish_timeout_s=1)
    runner = runner_of(short, clock=clock, metrics=metrics, grace_s=0.1)
    loop = PublishLoop(short, runner, clock, metrics, Health())
    status = StatusFile(Path(settings.feeds_dir))
    # From a time at which the clock was ahead: a run that has published nothing is not that one.
    status.published(Success(datetime.now(UTC) + timedelta(days=1), "earlier", {}, {}, 1.0))
    with psycopg.connect(settings.dsn) as other:
        other.execute("LOCK TABLE observation")
        again_s = loop.publish()
    process, none = map(int, processes)
    assert not is_alive(process)
    assert none == 0
    assert again_s % settings.publish_interval_s == 0, "it would take as long again now"
    failure = status.read().failure
    assert failure is not None
    assert (failure.kind, failure.refused) == ("timed_out", False)
    assert "longer than 1 s (publish_timeout_s)" in failure.reason
    assert metrics.registry.get_sample_value("smtpfeeds_publish_failures", {"reason": "timed_out"})
    stop = threading.Event()
    with stopped_in_the_middle(
        settings, lambda: runner_of(settings, grace_s=0.1).run(LONG_AGO, stop)
    ) as (future, running):
        stop.set()
        with pytest.raises(PublishStopped):
            future.result(60)
        assert not is_alive(running.process_id)
    assert not Path(settings.feeds_dir, "feeds", "manifest.json").exists()


def test_errors_of_the_process_keep_their_kind(
    settings: AggregatorSettings, connection: Connection
) -> None:
    observe(connection, 120)
    publish_once(settings, Origins(), connection)
    good = current(settings)
    connection.execute("DELETE FROM observation")

    class Doubting(DatabaseClock):
        def check_publication(self, reading: Reading) -> datetime:
            del reading
            raise ClockInDoubt("the clock went back")

    absent = settings.dsn.replace("dbname=", "dbname=absent_")
    assert absent != settings.dsn
    cases: list[tuple[ProcessRunner, type[SmtpfeedsError], str]] = [
        (runner_of(settings), SuspiciousFeeds, "smtpgreet: no address, after 120"),
        (runner_of(settings, clock=Doubting()), ClockInDoubt, "^the clock went back$"),
        (runner_of(replace(settings, dsn=absent)), DatabaseRefused, "does not exist"),
    ]
    for runner, error, words in cases:
        with pytest.raises(error, match=words):
            runner.run(FAR_AHEAD, threading.Event())
    assert current(settings) == good


PARENT = """
import sys, threading
from datetime import UTC, datetime
import msgspec
from smtpfeeds_aggregator.clock.database import DatabaseClock
from smtpfeeds_aggregator.classification.lists.table import ListTable
from smtpfeeds_aggregator.metrics import Metrics
from smtpfeeds_aggregator.origin import EMPTY
from smtpfeeds_aggregator.publish.process import ProcessRunner
from smtpfeeds_aggregator.settings import AggregatorSettings

class NoTable:
    current = EMPTY

settings = msgspec.json.decode(sys.stdin.read(), type=AggregatorSettings)
lists = ListTable((), "none")
runner = ProcessRunner(settings, NoTable(), lambda: lists, DatabaseClock(), Metrics())
runner.run(datetime(2020, 1, 1, tzinfo=UTC), threading.Event())
"""


def test_process_ends_with_its_parent(settings: AggregatorSettings) -> None:
    with subprocess.Popen([sys.executable, "-c", PARENT], stdin=subprocess.PIPE) as parent:
        assert parent.stdin is not None
        parent.stdin.write(msgspec.json.encode(settings))

        def run() -> None:
            assert parent.stdin is not None
            parent.stdin.close()
            parent.wait()

        with stopped_in_the_middle(settings, run) as (_, running):
            parent.kill()
            until(lambda: not is_alive(running.process_id), "it ends too")
            # Its threads end one by one; its files are closed when the last one ends.
            status = StatusFile(Path(settings.feeds_dir))
            until(lambda: status.read_running() is None, "status shows no run")
            until(lambda: not is_locked(settings), "the lock is free")
