"""Migrations go forward, are atomic, run one at a time, and always give the same schema."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from datetime import UTC, datetime

import pytest

from ingest_support import settings_of
from smtpfeeds_aggregator.service import Service
from smtpfeeds_aggregator.store import migrations as migrations_module
from smtpfeeds_aggregator.store.connection import Connection, connect
from smtpfeeds_aggregator.store.migrations import (
    Migration,
    check_schema,
    migrate,
    migrations,
    read_step,
)
from smtpfeeds_common.errors import DatabaseUnavailable, SchemaMismatch

#: All parts of a schema, as PostgreSQL describes them.
DESCRIBE = (
    """SELECT table_name, column_name, data_type, is_nullable, column_default, collation_name,
    is_identity FROM information_schema.columns WHERE table_schema = 'public' ORDER BY 1, 2""",
    """SELECT conrelid::regclass::text, conname, pg_get_constraintdef(oid) FROM pg_constraint
    WHERE connamespace = 'public'::regnamespace ORDER BY 1, 2""",
    "SELECT indexname, indexdef FROM pg_indexes WHERE schemaname = 'public' ORDER BY 1",
    """SELECT relname, reloptions FROM pg_class WHERE relnamespace = 'public'::regnamespace
    AND relkind = 'r' ORDER BY 1""",
    "SELECT version, name FROM schema_migration ORDER BY 1",
    "SELECT version, name, oldest_reader, oldest_writer, applied_by FROM schema_step ORDER BY 1",
)


@pytest.fixture
def connection(every_database: str) -> Iterator[Connection]:
    with connect(settings_of(every_database), "test", autocommit=True) as connection:
        yield connection


def describe(connection: Connection) -> list[list[tuple[object, ...]]]:
    return [connection.execute(question.encode()).fetchall() for question in DESCRIBE]


def test_migrating_step_by_step_and_installing_fresh_give_the_same_schema(
    connection: Connection, every_postgres: object
) -> None:
    for count in range(1, len(migrations()) + 1):
        migrate(connection, migrations()[:count])
    stepwise = describe(connection)
    connection.execute("DROP SCHEMA public CASCADE")
    connection.execute("CREATE SCHEMA public")
    assert len(migrate(connection)) == len(migrations())
    assert describe(connection) == stepwise
    assert migrate(connection) == []


def test_numbers_of_migrations_are_unique() -> None:
    numbers = [step.version for step in migrations()]
    assert numbers == sorted(set(numbers))


def test_migration_states_the_oldest_compatible_programs() -> None:
    text = "-- Adds.\n-- oldest reader: 0.1.0\n-- oldest writer: 0.2.0\nSELECT 1;"
    step = read_step(20, "adds", text)
    assert (step.oldest_reader, step.oldest_writer) == ("0.1.0", "0.2.0")
    assert not step.first_version_works
    with pytest.raises(ValueError, match="0020_adds.sql: state"):
        read_step(20, "adds", text.replace("reader", "raeder"))


def test_missing_migrations_are_applied_in_order(connection: Connection) -> None:
    """Branches number their steps in ranges, so a step may follow a higher one."""
    first, high = migrations()[0], Migration(9040, "high", "CREATE TABLE high ()")
    low = Migration(9010, "low", "CREATE TABLE low ()")
    between = Migration(9020, "between", "ALTER TABLE low ADD COLUMN high bigint")
    assert migrate(connection, (first, high)) == [first, high]
    assert migrate(connection, (first, low, between, high)) == [low, between]


def test_migration_waits_for_a_locked_table_without_blocking_others(
    connection: Connection, every_database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A publication's snapshot may stay open for minutes; ingest continues meanwhile."""
    migrate(connection)
    monkeypatch.setattr(migrations_module, "_LOCK_WAIT", "50ms")
    step = Migration(9000, "adds", "ALTER TABLE observation ADD COLUMN more bigint DEFAULT 0")
    with connect(settings_of(every_database), "reader") as reader:
        reader.execute("SELECT count(*) FROM observation")
        with connect(settings_of(every_database), "worker", autocommit=True) as worker:
            pauses: list[float] = []

            def pause(seconds: float) -> None:
                pauses.append(seconds)
                with worker.transaction():
                    worker.execute("LOCK TABLE observation IN ROW EXCLUSIVE MODE NOWAIT")
                if len(pauses) == 3:
                    reader.rollback()

            assert migrate(connection, (*migrations(), step), pause=pause) == [step]
            assert len(pauses) == 3


def test_migration_fails_if_a_table_stays_locked(
    connection: Connection, every_database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    migrate(connection)
    monkeypatch.setattr(migrations_module, "_LOCK_WAIT", "1ms")
    step = Migration(9000, "adds", "ALTER TABLE observation ADD COLUMN more bigint DEFAULT 0")
    with connect(settings_of(every_database), "reader") as reader:
        reader.execute("SELECT count(*) FROM observation")
        with pytest.raises(DatabaseUnavailable, match=r"9000 adds.*keeps a table locked"):
            migrate(connection, (*migrations(), step), pause=lambda _: None)


def test_two_migrations_at_once_wait_for_each_other(database: str) -> None:
    done: list[int] = []
    failures: list[BaseException] = []

    def run() -> None:
        try:
            with connect(settings_of(database), "test", autocommit=True) as own:
                done.append(len(migrate(own)))
        except Exception as exc:  # noqa: BLE001 - asserted on by the main thread
            failures.append(exc)

    threads = [threading.Thread(target=run) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
    assert sorted(done) == [0, 0, 0, len(migrations())]


def test_failed_migration_changes_nothing(connection: Connection) -> None:
    bad = Migration(9000, "bad", "CREATE TABLE half (); SELECT 1/0;")
    migrate(connection)
    with pytest.raises(Exception, match="division by zero"):
        migrate(connection, (*migrations(), bad))
    assert connection.execute("SELECT to_regclass('half')").fetchone() == (None,)
    check_schema(connection)


def test_run_refuses_an_empty_an_older_and_an_unknown_schema(
    database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = settings_of(database, "spool:/nowhere")
    with pytest.raises(SchemaMismatch, match=r"no smtpfeeds schema.*aggregator migrate"):
        Service(settings)
    with connect(settings, "test", autocommit=True) as own:
        migrate(own)
        own.execute("INSERT INTO schema_migration VALUES (9000, 'unknown')")
        with pytest.raises(SchemaMismatch, match="9000.*install the newer"):
            Service(settings)
        with pytest.raises(SchemaMismatch, match="install the newer"):
            migrate(own)
        own.execute("DELETE FROM schema_migration WHERE version = 9000")
        later = (*migrations(), Migration(9000, "later", ""))
        monkeypatch.setattr(migrations_module, "migrations", lambda: later)
        with pytest.raises(SchemaMismatch, match=r"older.*9000 later.*aggregator migrate"):
            Service(settings)


def test_missing_server_is_an_error_in_plain_words() -> None:
    with pytest.raises(DatabaseUnavailable, match="cannot be used now"):
        connect(settings_of("host=127.0.0.1 port=9 dbname=x connect_timeout=2"), "test")


def test_migration_stores_the_newest_time_if_there_are_rows(
    database: str,
) -> None:
    """The clock may be wrong at a first start, so its time is not kept."""
    first, *others = migrations()
    with connect(settings_of(database), "test", autocommit=True) as connection:
        migrate(connection, (first,))
        connection.execute(
            "INSERT INTO sensor (name, heard_at) VALUES ('s1', now() - '9 days'::interval)"
        )
        migrate(connection)
        rows = connection.execute(
            "SELECT noted = (SELECT heard_at FROM sensor) FROM database_clock"
        ).fetchall()
        assert rows == [(True,)]
        step = next(step for step in others if step.name == "database_clock")
        connection.execute("DROP TABLE database_clock; TRUNCATE sensor")
        connection.execute(step.sql.encode())
        rows = connection.execute("SELECT noted FROM database_clock").fetchall()
        assert rows == [(datetime(2026, 1, 1, tzinfo=UTC),)]
