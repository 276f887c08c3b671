"""The schema: forward only, atomic, one at a time, the same by every way."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from ingest_support import settings_of
from smtpfeeds_aggregator.service import Service
from smtpfeeds_aggregator.store.connection import Connection, connect
from smtpfeeds_aggregator.store.migrations import Migration, check_schema, migrate, migrations
from smtpfeeds_common.errors import DatabaseUnavailable, SchemaMismatch

#: Everything that makes a schema, as PostgreSQL describes it.
DESCRIBE = (
    """SELECT table_name, column_name, data_type, is_nullable, column_default, collation_name,
    is_identity FROM information_schema.columns WHERE table_schema = 'public' ORDER BY 1, 2""",
    """SELECT conrelid::regclass::text, conname, pg_get_constraintdef(oid) FROM pg_constraint
    WHERE connamespace = 'public'::regnamespace ORDER BY 1, 2""",
    "SELECT indexname, indexdef FROM pg_indexes WHERE schemaname = 'public' ORDER BY 1",
    """SELECT relname, reloptions FROM pg_class WHERE relnamespace = 'public'::regnamespace
    AND relkind = 'r' ORDER BY 1""",
    "SELECT version, name FROM schema_migration ORDER BY 1",
)


@pytest.fixture
def connection(every_database: str) -> Iterator[Connection]:
    with connect(settings_of(every_database), "test", autocommit=True) as made:
        yield made


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


def test_numbers_of_migrations_have_no_gap_and_no_twin() -> None:
    assert [step.version for step in migrations()] == list(range(1, len(migrations()) + 1))


def test_two_at_once_wait_for_each_other(database: str) -> None:
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


def test_migration_that_fails_leaves_nothing_of_itself(connection: Connection) -> None:
    bad = Migration(len(migrations()) + 1, "bad", "CREATE TABLE half (); SELECT 1/0;")
    migrate(connection)
    with pytest.raises(Exception, match="division by zero"):
        migrate(connection, (*migrations(), bad))
    assert connection.execute("SELECT to_regclass('half')").fetchone() == (None,)
    check_schema(connection)


def test_run_refuses_an_empty_an_older_and_a_newer_schema(database: str) -> None:
    settings = settings_of(database, "spool:/nowhere")
    with pytest.raises(SchemaMismatch, match=r"no smtpfeeds schema.*aggregator migrate"):
        Service(settings)
    with connect(settings, "test", autocommit=True) as own:
        migrate(own)
        newest = len(migrations())
        own.execute("UPDATE schema_migration SET version = 0 WHERE version = %s", (newest,))
        with pytest.raises(SchemaMismatch, match=r"older.*aggregator migrate"):
            Service(settings)
        own.execute("UPDATE schema_migration SET version = 99 WHERE version = 0")
        with pytest.raises(SchemaMismatch, match="99.*install the newer"):
            Service(settings)
        with pytest.raises(SchemaMismatch, match="install the newer"):
            migrate(own)


def test_no_server_is_said_in_our_words() -> None:
    with pytest.raises(DatabaseUnavailable, match="cannot be used now"):
        connect(settings_of("host=127.0.0.1 port=9 dbname=x connect_timeout=2"), "test")
