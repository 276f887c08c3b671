"""Fixtures of the ingest tests; a module that uses them imports them by name."""

from __future__ import annotations

from collections.abc import Iterator

import psycopg
import pytest

from ingest_support import Table, settings_of
from servers.postgres import PostgresServer
from smtpfeeds_aggregator.store.connection import connect
from smtpfeeds_aggregator.store.migrations import migrate


def migrated_database(server: PostgresServer) -> str:
    dsn = server.create_database()
    with connect(settings_of(dsn), "test", autocommit=True) as connection:
        migrate(connection)
    return dsn


@pytest.fixture
def dsn(postgres: PostgresServer) -> Iterator[str]:
    """A database with the schema, on the newest PostgreSQL."""
    dsn = migrated_database(postgres)
    yield dsn
    postgres.drop_database(dsn)


@pytest.fixture
def every_dsn(every_postgres: PostgresServer) -> Iterator[str]:
    """A database with the schema, on each PostgreSQL that is here in turn."""
    dsn = migrated_database(every_postgres)
    yield dsn
    every_postgres.drop_database(dsn)


@pytest.fixture
def table(dsn: str) -> Iterator[Table]:
    """Questions to `dsn`."""
    asked = Table(dsn)
    yield asked
    asked.connection.close()


def terminate_others(dsn: str) -> None:
    """End every other session of the database, as an administrator or a failing server does."""
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )
