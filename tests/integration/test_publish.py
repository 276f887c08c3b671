"""Publishing from a real PostgreSQL into generations behind one symlink.

The module is long because all tests need the same filled database and feeds directory.
"""

from __future__ import annotations

import csv
import gzip
import json
import os
import re
import stat
import subprocess
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from ingest_support import running, until
from ingest_support.fixtures import dsn  # noqa: F401 - fixtures
from publish_support import NOW, Info, Origins, RunHere
from smtpfeeds_aggregator.classification.lists.model import AddressList, parse_prefix
from smtpfeeds_aggregator.classification.lists.table import ListTable
from smtpfeeds_aggregator.clock.database import DatabaseClock
from smtpfeeds_aggregator.health import Health
from smtpfeeds_aggregator.ingest.worker import IngestWorker
from smtpfeeds_aggregator.metrics import Metrics
from smtpfeeds_aggregator.publish import check, generation_writer, service
from smtpfeeds_aggregator.publish.generation import FeedsDirectory
from smtpfeeds_aggregator.publish.once import publish_once
from smtpfeeds_aggregator.publish.service import PublishLoop
from smtpfeeds_aggregator.publish.written import PlainAndCompressed
from smtpfeeds_aggregator.service import Service
from smtpfeeds_aggregator.settings import AggregatorSettings
from smtpfeeds_aggregator.store.connection import Connection, connect
from smtpfeeds_aggregator.store.publication import PublicationStore
from smtpfeeds_common.errors import DatabaseUnavailable, PublishError

# ruff: noqa: F811 - fixtures are imported by name and used by name

MINUTE = timedelta(minutes=1)


@pytest.fixture
def settings(dsn: str, tmp_path: Path) -> AggregatorSettings:
    return AggregatorSettings(
        dsn=dsn, feeds_dir=str(tmp_path / "www"), publish_non_global=True, generations_kept=2
    )


@pytest.fixture
def connection(settings: AggregatorSettings) -> Iterator[Connection]:
    with connect(settings, "test", autocommit=True) as connection:
        yield connection


@pytest.fixture
def feeds(settings: AggregatorSettings) -> Path:
    return Path(settings.feeds_dir) / "feeds"


def files_below(folder: Path) -> set[str]:
    """Return the paths of all files of a folder."""
    folder = folder.resolve()
    return {p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()}


def observe(
    connection: Connection,
    ip: str,
    feed: str = "smtpgreet",
    *,
    last: datetime = NOW - MINUTE,
    asn: int | None = None,
    sensors: tuple[str, ...] = ("sensor-1",),
    hits: int = 3,
    flags: int = 0,
) -> None:
    first = last - timedelta(hours=1)
    connection.execute(
        "INSERT INTO observation VALUES (%s, %s, %s, %s, %s, %s, %s)",
        (ip, feed, first, last, hits, flags, asn),
    )
    for sensor in sensors:
        connection.execute(
            "INSERT INTO sighting VALUES (%s, %s, %s, %s, %s, %s, %s, 1)",
            (ip, feed, sensor, first, last, hits, flags),
        )


def rows(path: Path) -> list[list[str]]:
    return [
        [field.strip() for field in line.split("  |  ")]
        for line in path.read_text().splitlines()
        if not line.startswith("#")
    ]


def stored_asns(connection: Connection) -> dict[str, int | None]:
    rows = connection.execute("SELECT DISTINCT host(ip), asn FROM observation").fetchall()
    return dict(rows)


def test_window_becomes_files_of_every_format(
    settings: AggregatorSettings, connection: Connection, feeds: Path
) -> None:
    observe(connection, "192.0.2.9", last=NOW - MINUTE, sensors=("a", "b"), hits=7, flags=5)
    observe(connection, "192.0.2.9", "smtpdata", last=NOW - 2 * MINUTE)
    observe(connection, "2001:db8::1", last=NOW - timedelta(days=6))
    table = Origins({"192.0.2.9": 64505})
    published = publish_once(settings, table, connection, now=NOW)
    assert published is not None
    assert published.addresses == {"smtpgreet": 2, "smtpdata": 1}
    name = "1-10-10-10 - Indian Public DNS"
    assert rows(feeds / "smtpgreet.txt") == [
        ["NA", "NA", "2001:db8::1", "2026-11-17 10:59:30", "smtpgreet"],
        ["64505", name, "192.0.2.9", "2026-11-23 10:58:30", "smtpgreet"],
    ]
    assert rows(feeds / "smtpdata.txt") == [
        ["64505", name, "192.0.2.9", "2026-11-23 10:57:30", "smtpdata"]
    ]
    assert rows(feeds / "smtpgreet-ipv6.txt") == rows(feeds / "smtpgreet.txt")[:1]
    assert rows(feeds / "smtpgreet-ipv4.txt") == rows(feeds / "smtpgreet.txt")[1:]
    with (feeds / "smtpgreet.csv").open(newline="") as stream:
        (_, row) = csv.DictReader(stream)
    assert row == {
        "ASN": "64505",
        "ASname": name,
        "ipaddr": "192.0.2.9",
        "lastseen": "2026-11-23 10:58:30",
        "category": "smtpgreet",
        "first_seen": "2026-11-23 09:58:30",
        # The count seven is published as the step that begins at six.
        "hits": "6",
        "sensors": "2",
        "tags": "bare_lf full_host_name",
        "class": "probe",
        "why": "greet",
        "actor": "NA",
        "days_seen": "1",
        "days": "......#",
        "targets": "2",
        "new": "true",
    }
    objects = [json.loads(line) for line in (feeds / "smtpgreet.ndjson").read_text().splitlines()]
    assert len(objects) == 2
    assert objects[1] == {
        **row,
        "ASN": 64505,
        "hits": 6,
        "sensors": 2,
        "tags": ["bare_lf", "full_host_name"],
        "why": ["greet"],
        "actor": None,
        "days_seen": 1,
        "targets": 2,
        "new": True,
    }
    with gzip.open(feeds / "smtpgreet.ndjson.gz", "rt") as stream:
        assert stream.read() == (feeds / "smtpgreet.ndjson").read_text()


def test_listed_address_is_a_survey_with_its_actor_until_the_entry_is_too_old(
    settings: AggregatorSettings, connection: Connection, feeds: Path
) -> None:
    observe(connection, "192.0.2.9", last=NOW - MINUTE)
    observe(connection, "2001:db8::1", last=NOW - MINUTE)
    observe(connection, "192.0.2.77", last=NOW - MINUTE)
    prefixes = tuple(map(parse_prefix, ("192.0.2.9", "2001:db8::/64")))
    day = NOW.date() - timedelta(days=60)
    listed = AddressList("shodan_v4", "scanner", "shodan", "", "test", day, "stated", prefixes)
    lists = ListTable([listed], "list-1")

    def classes(now: datetime) -> dict[str, tuple[str, list[str], str | None]]:
        publish_once(settings, Origins(), connection, lists=lists, now=now)
        lines = (feeds / "smtpgreet.ndjson").read_text().splitlines()
        return {
            row["ipaddr"]: (row["class"], row["why"], row["actor"])
            for row in map(json.loads, lines)
        }

    assert classes(NOW) == {
        "192.0.2.9": ("survey", ["listed:shodan"], "shodan"),
        "2001:db8::1": ("survey", ["listed:shodan"], "shodan"),
        "192.0.2.77": ("probe", ["greet"], None),
    }
    assert json.loads((feeds / "manifest.json").read_text())["list_generation"] == "list-1"
    older = classes(NOW + timedelta(days=1))
    assert older["192.0.2.9"] == ("probe", ["listed-old:shodan"], "shodan")
    assert older["2001:db8::1"][0] == "survey", "a range counts for a year"


def test_sums_are_what_sha256sum_reads(
    settings: AggregatorSettings, connection: Connection, feeds: Path
) -> None:
    observe(connection, "192.0.2.9")
    publish_once(settings, Origins(), connection, now=NOW)
    current = feeds / "current"
    checked = subprocess.run(
        ["sha256sum", "--check", "--strict", "SHA256SUMS"],
        cwd=current,
        check=True,
        capture_output=True,
        text=True,
    )
    names = {line.partition(":")[0] for line in checked.stdout.splitlines()}
    assert names == files_below(current) - {"SHA256SUMS"}
    assert "manifest.json" in names


def test_manifest_describes_the_files(
    settings: AggregatorSettings, connection: Connection, feeds: Path
) -> None:
    observe(connection, "192.0.2.9")
    publish_once(settings, Origins({"192.0.2.9": 64496}), connection, now=NOW)
    document = json.loads((feeds / "manifest.json").read_text())
    assert document["generated"] == "2026-11-23T10:59:30Z"
    assert document["expires"] == "2026-11-23T12:00:00Z"  # one point of the grid is missed
    assert document["window"] == {"start": "2026-11-16T11:00:00Z", "end": "2026-11-23T11:00:00Z"}
    assert document["origin_generation"] == "table-1"
    assert set(document["files"]) == {
        name
        for name in files_below(feeds / "current")
        if name.startswith(("smtp", "misp/", "archive/"))
    }
    for name, file in document["files"].items():
        assert file["sha256"] == sha256((feeds / name).read_bytes()).hexdigest()
        assert file["sha256"] == sha256((feeds / document["base"] / name).read_bytes()).hexdigest()
    assert document["files"]["smtpgreet.txt"]["addresses"] == 1
    assert document["files"]["smtpgreet-ipv6.txt"]["addresses"] == 0


def test_window_begins_seven_days_before_the_next_minute(
    settings: AggregatorSettings, connection: Connection, feeds: Path
) -> None:
    start = datetime(2026, 11, 16, 11, 0, tzinfo=UTC)
    observe(connection, "192.0.2.1", last=start)
    observe(connection, "192.0.2.2", last=start - timedelta(microseconds=1))
    publish_once(settings, Origins(), connection, now=NOW)
    assert [row[2] for row in rows(feeds / "smtpgreet.txt")] == ["192.0.2.1"]


def test_publication_uses_the_time_of_the_database(
    settings: AggregatorSettings, connection: Connection, feeds: Path
) -> None:
    observe(connection, "192.0.2.1", last=datetime.now(UTC) - timedelta(days=8))
    observe(connection, "192.0.2.2", last=datetime.now(UTC) - timedelta(days=6))
    published = publish_once(settings, Origins(), connection)
    assert published is not None
    assert abs(published.window_end - datetime.now(UTC)) < timedelta(minutes=2)
    assert [row[2] for row in rows(feeds / "smtpgreet.txt")] == ["192.0.2.2"]


def test_what_is_not_routable_or_excluded_is_left_out_and_counted(
    settings: AggregatorSettings, connection: Connection, feeds: Path
) -> None:
    for ip in ("192.0.2.1", "10.1.2.3", "2001:db8::1", "8.8.8.8", "9.9.9.9", "2a00:1450::1"):
        observe(connection, ip)
    connection.execute(
        "INSERT INTO exclusion (prefix, reason, since, until) VALUES"
        " ('9.9.9.0/24', 'asked', %(past)s, NULL), ('8.8.8.0/24', 'over', %(past)s, %(past)s)",
        {"past": datetime.now(UTC) - timedelta(days=1)},
    )
    strict = replace(settings, publish_non_global=False)
    publish_once(strict, Origins(), connection, now=NOW)
    assert [row[2] for row in rows(feeds / "smtpgreet.txt")] == ["8.8.8.8", "2a00:1450::1"]
    document = json.loads((feeds / "manifest.json").read_text())
    assert document["left_out"] == {
        "smtpgreet": {"not_global": 3, "excluded": 1},
        "smtpdata": {"not_global": 0, "excluded": 0},
    }


def test_origins_that_differ_are_written_back(
    settings: AggregatorSettings, connection: Connection
) -> None:
    """Origins of rows that are not published are included, because queries show them."""
    for ip, asn in (("192.0.2.1", None), ("192.0.2.2", 64496), ("192.0.2.3", 5), ("10.0.0.1", 5)):
        observe(connection, ip, asn=asn)
    observe(connection, "192.0.2.1", "smtpdata")
    table = Origins({"192.0.2.1": 64496, "192.0.2.2": 64496, "10.0.0.1": 64497})
    strict = replace(settings, publish_non_global=False)
    published = publish_once(strict, table, connection, now=NOW)
    assert published is not None
    assert published.origins_changed == 4
    assert stored_asns(connection) == {
        "192.0.2.1": 64496, "192.0.2.2": 64496, "192.0.2.3": None, "10.0.0.1": 64497,
    }  # fmt: skip
    names = connection.execute("SELECT asn, name FROM autonomous_system ORDER BY asn").fetchall()
    assert names == [(64496, "COGENT-174"), (64497, "Pipe in the middle")]
    used = connection.execute("SELECT generation, source FROM origin_generation").fetchall()
    assert used == [("table-1", "made up")]


def test_stored_origins_are_used_without_a_table(
    settings: AggregatorSettings, connection: Connection, feeds: Path
) -> None:
    observe(connection, "192.0.2.1", asn=64496)
    connection.execute("INSERT INTO autonomous_system VALUES (64496, 'Kept Name')")
    publish_once(settings, Origins(info=Info(prefixes=0)), connection, now=NOW)
    assert rows(feeds / "smtpgreet.txt")[0][:2] == ["64496", "Kept Name"]
    assert stored_asns(connection) == {"192.0.2.1": 64496}
    assert json.loads((feeds / "manifest.json").read_text())["origin_generation"] is None


def test_files_are_world_readable_whatever_the_umask(
    settings: AggregatorSettings, connection: Connection, feeds: Path
) -> None:
    before = os.umask(0o077)
    try:
        publish_once(settings, Origins(), connection, now=NOW)
    finally:
        os.umask(before)
    current = (feeds / "current").resolve()
    for path in current.rglob("*"):
        wanted = 0o755 if path.is_dir() else 0o644
        assert stat.S_IMODE(path.stat().st_mode) == wanted
    for folder in (current, current.parent, feeds, feeds.parent):
        assert stat.S_IMODE(folder.stat().st_mode) == 0o755


def test_links_are_relative_and_old_generations_are_deleted(
    settings: AggregatorSettings, connection: Connection, feeds: Path
) -> None:
    names = []
    for minutes in range(4):
        published = publish_once(settings, Origins(), connection, now=NOW + minutes * MINUTE)
        assert published is not None
        names.append(published.generation.name)
    assert (feeds / "current").readlink() == Path("generations") / names[-1]
    assert (feeds / "smtpgreet.txt").readlink() == Path("current/smtpgreet.txt")
    assert sorted(path.name for path in (feeds / "generations").iterdir()) == names[-2:]


def test_nothing_but_generations_is_in_what_is_served(
    settings: AggregatorSettings, connection: Connection, feeds: Path
) -> None:
    """Settings, a spool and a database may be in the directory above."""
    publish_once(settings, Origins(), connection, now=NOW)
    (generation,) = (feeds / "generations").iterdir()
    links = {path.name for path in feeds.iterdir() if path.is_symlink()}
    assert links == {"current", *(path.name for path in generation.iterdir())}
    assert {path.name for path in feeds.iterdir()} == {*links, "generations"}
    for link in links:
        assert (feeds / link).resolve().is_relative_to(generation)


def test_file_that_a_format_no_longer_has_loses_its_link(
    settings: AggregatorSettings, connection: Connection, feeds: Path
) -> None:
    publish_once(settings, Origins(), connection, now=NOW)
    (feeds / "gone.txt").symlink_to("current/gone.txt")
    (feeds / "smtpgreet.csv").unlink()
    publish_once(settings, Origins(), connection, now=NOW + MINUTE)
    assert not (feeds / "gone.txt").is_symlink()
    assert (feeds / "smtpgreet.csv").read_text().startswith("ASN,")


def test_failed_check_leaves_the_last_good_generation(
    settings: AggregatorSettings,
    connection: Connection,
    feeds: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    observe(connection, "192.0.2.1")
    publish_once(settings, Origins(), connection, now=NOW)
    good = (feeds / "smtpgreet.txt").read_bytes()
    observe(connection, "192.0.2.2")

    def spoilt(folder: Path, files: Any, *_: Any) -> Any:
        path = folder / files[0].name
        path.write_text(path.read_text().replace("  |  192.0.2.2 ", " | 192.0.2.2 "))
        return check.check_feed(folder, files)

    monkeypatch.setattr(generation_writer, "check_feed", spoilt)
    with pytest.raises(PublishError, match=r"smtpgreet\.txt, line 70: not an ASN"):
        publish_once(settings, Origins(), connection, now=NOW + MINUTE)
    assert (feeds / "smtpgreet.txt").read_bytes() == good
    assert len(list((feeds / "generations").iterdir())) == 1


def test_octet_that_changes_on_disk_before_the_check_is_not_published(
    settings: AggregatorSettings,
    connection: Connection,
    feeds: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """This holds for plain and compressed files, for those with rows and for documents."""
    observe(connection, "192.0.2.1")
    publish_once(settings, Origins(), connection, now=NOW)
    good = (feeds / "current").readlink()
    close = PlainAndCompressed.__exit__
    for name in ("smtpgreet.txt", "smtpdata-ipv4.txt", "smtpgreet.csv", "smtpgreet.stix.json"):
        for spoilt in (name, f"{name}.gz"):

            def close_and_flip(self: PlainAndCompressed, *given: Any, spoilt: str = spoilt) -> None:
                close(self, *given)
                if self._name == spoilt.removesuffix(".gz"):
                    (path,) = (feeds.parent / ".unfinished").iterdir()
                    octets = bytearray((path / spoilt).read_bytes())
                    octets[len(octets) // 2] ^= 0x80
                    (path / spoilt).write_bytes(octets)

            with monkeypatch.context() as patched:
                patched.setattr(PlainAndCompressed, "__exit__", close_and_flip)
                with pytest.raises(PublishError, match=f"^{re.escape(spoilt)}"):
                    publish_once(settings, Origins(), connection, now=NOW + MINUTE)
            assert (feeds / "current").readlink() == good
    publish_once(settings, Origins(), connection, now=NOW + MINUTE)
    assert (feeds / "current").readlink() != good


def test_remains_of_a_killed_run_are_removed(
    settings: AggregatorSettings, connection: Connection, feeds: Path
) -> None:
    publish_once(settings, Origins(), connection, now=NOW)
    dead = feeds.parent / ".unfinished" / "20261101T000000Z-dead"
    dead.mkdir()
    (dead / "smtpgreet.txt").write_text("half")
    (feeds.parent / ".unfinished" / ".current-dead").symlink_to("nowhere")
    publish_once(settings, Origins(), connection, now=NOW + MINUTE)
    assert list((feeds.parent / ".unfinished").iterdir()) == []


def test_only_one_publishes_a_directory_at_a_time(
    settings: AggregatorSettings, connection: Connection, feeds: Path
) -> None:
    publish_once(settings, Origins(), connection, now=NOW)
    key = FeedsDirectory(feeds.parent).lock_key()
    with connect(settings, "other", autocommit=True) as other:
        another = PublicationStore(other)
        assert another.try_lock(key)
        assert publish_once(settings, Origins(), connection, now=NOW + MINUTE) is None
        another.unlock(key)
    assert publish_once(settings, Origins(), connection, now=NOW + MINUTE) is not None


def test_lost_lock_prevents_the_switch(
    settings: AggregatorSettings,
    connection: Connection,
    feeds: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Another process may publish by now, so the files written so far are deleted."""
    publish_once(settings, Origins(), connection, now=NOW)
    before = (feeds / "current").readlink()

    def and_lose_the_lock(folder: Path, files: Any, *_: Any) -> Any:
        connection.execute("SELECT pg_advisory_unlock_all()")
        return check.check_feed(folder, files)

    monkeypatch.setattr(generation_writer, "check_feed", and_lose_the_lock)
    with pytest.raises(PublishError, match="lost the lock"):
        publish_once(settings, Origins(), connection, now=NOW + MINUTE)
    assert (feeds / "current").readlink() == before
    assert [path.name for path in (feeds / "generations").iterdir()] == [before.name]


def test_other_content_in_place_of_the_feeds_is_unchanged(
    settings: AggregatorSettings, connection: Connection, feeds: Path
) -> None:
    feeds.mkdir(parents=True)
    (feeds / "precious").touch()
    with pytest.raises(PublishError, match="not created by smtpfeeds"):
        publish_once(settings, Origins(), connection, now=NOW)
    assert (feeds / "precious").exists()


def publishing(
    settings: AggregatorSettings, origins: Origins | None = None, **options: Any
) -> PublishLoop:
    clock = DatabaseClock()
    runner = RunHere(settings, origins or Origins(), clock)
    return PublishLoop(settings, runner, clock, Metrics(), Health(), **options)


def runs(loop: PublishLoop, result: str) -> int:
    return int(loop._metrics.publish_runs.labels(result)._value.get())


def problems(loop: PublishLoop) -> list[str]:
    return loop._health.problems()


def tomorrow() -> float:
    """Return the grid's next point for an interval of a day."""
    today = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    return (today + timedelta(days=1)).timestamp()


class TestLoop:
    def test_publishes_at_once_and_then_on_the_grid(
        self, settings: AggregatorSettings, connection: Connection, feeds: Path
    ) -> None:
        loop = publishing(replace(settings, publish_interval_s=1))
        stop = threading.Event()
        thread = threading.Thread(target=loop.run, args=(stop,))
        thread.start()
        try:
            until(lambda: runs(loop, "published") >= 3, "three publications")
        finally:
            stop.set()
            thread.join(60)
        assert not thread.is_alive()
        assert runs(loop, "published") >= 3
        assert runs(loop, "failed") == 0
        assert (feeds / "manifest.json").exists()

    def test_failure_is_counted_and_the_loop_continues(self, settings: AggregatorSettings) -> None:
        calls = 0

        def flaky(service_settings: AggregatorSettings) -> Connection:
            nonlocal calls
            calls += 1
            if calls == 1:
                raise DatabaseUnavailable("gone for a moment")
            return connect(service_settings, "publish", autocommit=True)

        loop = publishing(settings, connect=flaky)
        begun_s = time.time()
        assert begun_s < loop.publish() <= time.time() + service.RETRY_S
        assert runs(loop, "failed") == 1
        assert problems(loop) == ["publish: gone for a moment"]
        loop.publish()
        assert problems(loop) == []
        assert runs(loop, "published") == 1

    def test_one_of_two_processes_is_enough(self, settings: AggregatorSettings) -> None:
        """The second process starts a moment later, at the same point of the grid."""
        daily = replace(settings, publish_interval_s=86_400)
        first, second = publishing(daily), publishing(daily)
        assert first.publish() == second.publish() == tomorrow()
        assert (runs(first, "published"), runs(second, "published")) == (1, 0)
        assert runs(second, "left to another") == 1

    def test_lock_of_a_killed_process_is_free_within_seconds(
        self,
        settings: AggregatorSettings,
        connection: Connection,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        """The successor does not wait for the grid's next point, which is a day away."""
        monkeypatch.setattr(service, "TAKE_OVER_S", 0.1)
        directory = FeedsDirectory(Path(settings.feeds_dir))
        directory.check()
        key = directory.lock_key()
        assert PublicationStore(connection).try_lock(key)
        loop = publishing(replace(settings, publish_interval_s=86_400))
        stop = threading.Event()
        thread = threading.Thread(target=loop.run, args=(stop,))
        thread.start()
        try:
            time.sleep(1)
            assert runs(loop, "published") == 0
            connection.close()
            until(lambda: runs(loop, "published") > 0, "the other takes over")
        finally:
            stop.set()
            thread.join(60)
        assert (runs(loop, "published"), runs(loop, "left to another")) == (1, 0)

    def test_unreadable_directory_is_a_failed_run(
        self, settings: AggregatorSettings, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """It does not end the loop, or ingest beside it."""

        def refused(_: FeedsDirectory) -> None:
            raise PermissionError(13, "Permission denied")

        monkeypatch.setattr(FeedsDirectory, "generated", refused)
        loop = publishing(settings)
        stop = threading.Event()
        thread = threading.Thread(target=loop.run, args=(stop,))
        thread.start()
        try:
            until(lambda: runs(loop, "failed") >= 1, "the failed run is counted")
            assert "Permission denied" in problems(loop)[0]
            assert thread.is_alive()
        finally:
            stop.set()
            thread.join(60)

    def test_stopped_run_does_not_finish_first(
        self, settings: AggregatorSettings, connection: Connection, feeds: Path
    ) -> None:
        """A run in progress ends before the switch, is not a failure, and leaves no files."""
        observe(connection, "192.0.2.1", last=datetime.now(UTC))
        stop = threading.Event()

        class Stopping(Origins):
            def lookup_many(self, addresses: Sequence[bytes]) -> list[int | None]:
                stop.set()
                return super().lookup_many(addresses)

        loop = publishing(settings, Stopping())
        loop.run(stop)
        assert problems(loop) == []
        assert runs(loop, "failed") == 0
        assert runs(loop, "published") == 0
        assert list((feeds / "generations").iterdir()) == []
        assert list((feeds.parent / ".unfinished").iterdir()) == []

    def test_bug_is_a_failed_run(self, settings: AggregatorSettings) -> None:
        """Ingest, in the same process, continues."""

        def faulty(_: AggregatorSettings) -> Connection:
            raise ZeroDivisionError

        loop = publishing(settings, connect=faulty)
        loop.publish()
        assert problems(loop)[0].startswith("publish: ZeroDivisionError")


def test_publications_are_in_metrics_and_health(
    settings: AggregatorSettings, tmp_path: Path, feeds: Path
) -> None:
    """Metrics and health show a failure, and its end."""
    spools = tmp_path / "spools"
    spools.mkdir()
    feeds.mkdir(parents=True)
    (feeds / "in the way").touch()
    service_settings = replace(settings, broker=(f"spool:{spools}",), publish_interval_s=1)
    with running(service_settings) as service:

        def count(result: str) -> float:
            name, labels = "smtpfeeds_publish_runs", {"result": result}
            return service.metrics.registry.get_sample_value(name, labels) or 0.0

        until(lambda: count("failed") >= 1, "the failed run is counted")
        until(
            lambda: any("not created by smtpfeeds" in each for each in service.health.problems()),
            "health names the failure, which is counted first",
        )
        (feeds / "in the way").unlink()
        until(lambda: count("published") >= 1, "the good run is counted")
        until(lambda: service.health.problems() == [], "all is well again")


def test_unexpected_end_of_a_part_that_moves_batches_fails_the_program(
    settings: AggregatorSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A service manager restarts it only after a failing exit code."""
    monkeypatch.setattr(IngestWorker, "store", lambda *_: None)
    service = Service(replace(settings, broker=(f"spool:{tmp_path}",)))
    service.start()
    service._watch()
    assert service.finish()


def test_failed_publishing_is_started_again_and_ingest_continues(
    settings: AggregatorSettings, tmp_path: Path, feeds: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spools = tmp_path / "spools"
    spools.mkdir()
    failures = iter([ZeroDivisionError("a fault of ours")])
    original = PublishLoop.run

    def run(loop: PublishLoop, stop: threading.Event) -> None:
        for failure in failures:
            raise failure
        original(loop, stop)

    monkeypatch.setattr(PublishLoop, "run", run)
    with running(replace(settings, broker=(f"spool:{spools}",))) as service:
        until(
            lambda: any("publish thread: it failed" in line for line in service.health.problems()),
            "the health shows it",
        )
        until(feeds.exists, "it publishes all the same")
