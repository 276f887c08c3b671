"""Aggregators and clients of 0.1.0 keep working while hosts are upgraded, the aggregator first."""

from __future__ import annotations

import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from ingest_support import (
    DAY_MS,
    Table,
    data,
    greet,
    made_batch,
    now_ms,
    running,
    settings_of,
    until,
)
from ingest_support.fixtures import migrated_database
from ingest_support.storing import apply, ingest_store
from recorded import FIRST, command_of, environment_of, run_of
from servers.postgres import PostgresServer, installed
from servers.processes import HANG_LIMIT_S
from smtpfeeds_aggregator.service import Service
from smtpfeeds_aggregator.store.connection import Connection, connect
from smtpfeeds_aggregator.store.migrations import Migration, check_schema, migrate, migrations
from smtpfeeds_common.addresses import pack_address
from smtpfeeds_common.errors import SchemaMismatch
from smtpfeeds_common.history import History, moved, of_stored, recent_flags
from smtpfeeds_common.spool import Event, Spool

#: A step of a later version; like all steps, it only adds.
ADDS = Migration(
    9000,
    "adds",
    "ALTER TABLE observation ADD COLUMN later bigint NOT NULL DEFAULT 7;"
    " CREATE TABLE later (id bigint PRIMARY KEY)",
)


@pytest.fixture
def table(database: str) -> Iterator[Table]:
    asked = Table(database)
    yield asked
    asked.connection.close()


@pytest.fixture
def connection(database: str) -> Iterator[Connection]:
    with connect(settings_of(database), "test", autocommit=True) as opened:
        yield opened


def hear(folder: Path, sensor: str, address: str, flags: int = 0) -> int:
    """Store one greet and return its time."""
    at_ms = now_ms() - 1000
    spool = Spool(folder / f"{sensor}.spool", sensor=sensor)
    spool.fold(Event(0, pack_address(address), at_ms, flags))
    spool.commit()
    spool.close()
    return at_ms


@contextmanager
def first_version(config: Path) -> Iterator[subprocess.Popen[str]]:
    """Run an aggregator of 0.1.0."""
    process = subprocess.Popen(
        command_of("aggregator", "run", "--config", str(config)),
        env=environment_of(FIRST),
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        yield process
    finally:
        process.send_signal(signal.SIGTERM)
        _, log = process.communicate(timeout=HANG_LIMIT_S)
    assert process.returncode == 0, log


def test_aggregator_and_queries_of_the_first_version_work_after_an_upgrade(
    database: str, tmp_path: Path, table: Table, connection: Connection
) -> None:
    """This holds if 0.1.0 starts again afterwards, or if a later version adds to the tables."""
    spools = tmp_path / "spools"
    spools.mkdir()
    config = tmp_path / "aggregator.toml"
    config.write_text(f'dsn = "{database}"\nbroker = ["spool:{spools}"]\n')
    migrated = run_of(FIRST, "aggregator", "migrate", "--config", str(config))
    assert "applied 0001 first_schema" in migrated.stdout, migrated.stderr

    with first_version(config):
        hear(spools, "before", "192.0.2.1")
        until(lambda: len(table.hits()) == 1, "it counts before the upgrade")
        migrate(connection, (*migrations(), ADDS))
        hear(spools, "after", "192.0.2.2")
        until(lambda: len(table.hits()) == 2, "it goes on after the upgrade")

    again = run_of(FIRST, "aggregator", "migrate", "--config", str(config))
    assert (again.returncode, again.stdout) == (0, "the schema is up to date\n"), again.stderr
    with first_version(config):
        hear(spools, "again", "192.0.2.1")
        until(lambda: sum(table.hits().values()) == 3, "it starts again and counts")
    query = run_of(FIRST, "query", "192.0.2.1", "--format", "csv", "--dsn", database)
    assert (query.returncode, query.stdout.count("192.0.2.1")) == (0, 1), query.stderr
    purged = run_of(FIRST, "sensors", "purge", "again", "--since", "1h", "--yes", "--dsn", database)
    assert purged.returncode == 0, purged.stderr
    assert table.hits() == {("192.0.2.1", "smtpgreet"): 1, ("192.0.2.2", "smtpgreet"): 1}
    check_schema(connection)


class Heard:
    """Events of one address, which its row must represent, whichever version has written it."""

    def __init__(self, table: Table) -> None:
        self._table = table
        self._events: list[tuple[int, int]] = []

    def add(self, at_ms: int, flags: int) -> None:
        self._events.append((at_ms, flags))

    def a_week_passes(self) -> None:
        self._events = [(at_ms - 7 * DAY_MS, flags) for at_ms, flags in self._events]
        for name in ("observation", "sighting"):
            self._table.run(
                f"UPDATE {name} SET first_seen = first_seen - interval '7 days',"
                " last_seen = last_seen - interval '7 days',"
                " day = CASE day WHEN 0 THEN 0 ELSE day - 7 END"
            )

    def check(self) -> None:
        names = "day, days, flags_now, flags_before, flags, first_seen, last_seen"
        ((day, days, now, before, every, *times),) = self._table(f"SELECT {names} FROM observation")
        first, last = (int(time.timestamp()) // 86_400 for time in times)
        row = of_stored(History(day, days, now, before), every, first, last)
        seen = {last - at_ms // DAY_MS for at_ms, _ in self._events}
        assert moved(row, row.day).days >> row.day - last == sum(1 << back for back in seen)
        recent = [flags for at, flags in self._events if last // 7 - at // DAY_MS // 7 < 2]
        assert recent_flags(row, last) == sum(recent)


def test_days_and_behaviours_are_right_while_both_versions_write(
    database: str, tmp_path: Path, table: Table, connection: Connection
) -> None:
    """A row of 0.1.0 is converted, written by 0.1.0 again, and converted again."""
    spools = tmp_path / "spools"
    spools.mkdir()
    config = tmp_path / "aggregator.toml"
    config.write_text(f'dsn = "{database}"\nbroker = ["spool:{spools}"]\n')
    run_of(FIRST, "aggregator", "migrate", "--config", str(config))
    heard = Heard(table)
    with first_version(config):
        heard.add(hear(spools, "one", "192.0.2.1", 1), 1)
        until(lambda: sum(table.hits().values()) == 1, "the first version counts it")
    migrate(connection)
    heard.check()
    store = ingest_store(database)
    for turn in range(2):
        heard.a_week_passes()
        at_ms = now_ms() - 1000
        apply(store, made_batch(greet("192.0.2.1", at_ms, flags=2 << 2 * turn)))
        heard.add(at_ms, 2 << 2 * turn)
        heard.check()
        heard.a_week_passes()
        with first_version(config):
            heard.add(hear(spools, f"more{turn}", "192.0.2.1", 4 << 2 * turn), 4 << 2 * turn)
            until(lambda: sum(table.hits().values()) == 3 + 2 * turn, "it goes on")  # noqa: B023
        heard.check()
    store.close()


def test_schema_of_the_first_version_becomes_that_of_a_fresh_installation(
    database: str, tmp_path: Path, connection: Connection
) -> None:
    config = tmp_path / "aggregator.toml"
    config.write_text(f'dsn = "{database}"\nbroker = ["spool:{tmp_path}"]\n')
    run_of(FIRST, "aggregator", "migrate", "--config", str(config))
    assert [step.version for step in migrate(connection)] == [
        step.version for step in migrations()[1:]
    ]
    check_schema(connection)


def test_programs_older_than_a_step_allows_say_which_version_is_needed(
    database: str, tmp_path: Path, connection: Connection, table: Table
) -> None:
    """A step may keep readers of this version working and stop its writers."""
    migrate(connection)
    migrate(connection, (*migrations(), Migration(9000, "writes", "", "0.1.0", "9.1.0")))
    check_schema(connection, write=False)
    for refused in (
        lambda: check_schema(connection),
        lambda: migrate(connection),
        lambda: Service(settings_of(database, f"spool:{tmp_path}")),
    ):
        with pytest.raises(SchemaMismatch, match=r"step 9000 writes.*9\.1\.0 or later may write"):
            refused()
    table.run("UPDATE schema_step SET oldest_reader = '9.1.0' WHERE version = 9000")
    with pytest.raises(SchemaMismatch, match=r"9\.1\.0 or later may read.*install the newer"):
        check_schema(connection, write=False)


def test_incompatible_migration_stops_the_first_version(
    database: str, connection: Connection
) -> None:
    migrate(connection, (*migrations(), Migration(9000, "renames", "", "0.1.0", "0.2.0")))
    query = run_of(FIRST, "query", "--dsn", database)
    assert query.returncode == 3
    assert "install the newer smtpfeeds" in query.stderr


def test_account_that_may_only_read_needs_no_grant_after_an_upgrade(
    database: str, connection: Connection
) -> None:
    migrate(connection)
    rights = connection.execute(
        "SELECT has_table_privilege('pg_monitor', 'schema_step', 'SELECT')"
    ).fetchone()
    assert rights == (True,)


def contents(table: Table) -> dict[str, tuple[int, str]]:
    """Return the number of rows of each table, and a hash of all of them."""
    names = table("SELECT tablename FROM pg_tables WHERE schemaname = current_schema() ORDER BY 1")
    rows = 'string_agg(t::text, chr(10) ORDER BY t::text COLLATE "C")'
    return {
        name: table(f"SELECT count(*), md5(coalesce({rows}, '')) FROM \"{name}\" AS t")[0]
        for (name,) in names
    }


def test_dump_of_an_older_postgresql_works_in_the_newest(
    postgres: PostgresServer, database: str, tmp_path: Path
) -> None:
    """These are the steps of docs/how-to/upgrade.md."""
    oldest = min(installed(), key=lambda name: int(name.rpartition("-")[2]))
    spools, dump = tmp_path / "spools", tmp_path / "dump"
    spools.mkdir()
    batch = made_batch(greet("192.0.2.1"), data("192.0.2.2"), sensor="by-broker")
    older = PostgresServer(tmp_path, installed()[oldest])
    with older.private:
        first = migrated_database(older)
        store = ingest_store(first)
        apply(store, batch)
        store.close()
        before = Table(first)
        with running(settings_of(first, f"spool:{spools}")):
            hear(spools, "on-this-host", "192.0.2.1")
            until(lambda: sum(before.hits().values()) == 3, "it counts before")
        stored = contents(before)
        before.connection.close()
        assert older.private.major != postgres.private.major
        run_program(postgres, "pg_dump", "--format=custom", f"--file={dump}", f"--dbname={first}")
    run_program(postgres, "pg_restore", "--exit-on-error", f"--dbname={database}", str(dump))
    table = Table(database)
    assert contents(table) == stored
    with running(settings_of(database, f"spool:{spools}")):
        hear(spools, "on-this-host", "192.0.2.3")
        until(lambda: sum(table.hits().values()) == 4, "it goes on")
    store = ingest_store(database)
    assert apply(store, batch).fresh == frozenset()
    store.close()
    assert table.hits() == {
        ("192.0.2.1", "smtpgreet"): 2,
        ("192.0.2.2", "smtpgreet"): 0,  # who sends data has greeted
        ("192.0.2.2", "smtpdata"): 1,
        ("192.0.2.3", "smtpgreet"): 1,
    }
    table.connection.close()


def run_program(server: PostgresServer, name: str, *words: str) -> None:
    """Run one of PostgreSQL's programs, of the version of this server."""
    newest = installed()[f"embedded-{server.private.major}"]
    subprocess.run([newest / name, *words], check=True, stdin=subprocess.DEVNULL)
