"""Fixtures of the ingest tests; a module imports those that it uses by name."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any
from weakref import WeakKeyDictionary

import psycopg
import pytest
from click.testing import CliRunner, Result

from ingest_support import Table, settings_of
from servers.postgres import PostgresServer, database_name
from smtpfeeds_aggregator.store.connection import Connection, connect
from smtpfeeds_aggregator.store.migrations import migrate
from smtpfeeds_common.cli import main

Run = Callable[..., Result]

#: For each server, the name of the database that `migrated_database` copies.
_templates: WeakKeyDictionary[PostgresServer, str] = WeakKeyDictionary()


def migrated_database(server: PostgresServer) -> str:
    """Create a database with the schema as a copy, which takes half the time of the migrations."""
    if server not in _templates:
        dsn = server.create_database()
        with connect(settings_of(dsn), "test", autocommit=True) as connection:
            migrate(connection)
        _templates[server] = database_name(dsn)
    return server.create_database(template=_templates[server])


@pytest.fixture
def dsn(postgres: PostgresServer) -> Iterator[str]:
    """A database with the schema, on the newest PostgreSQL."""
    dsn = migrated_database(postgres)
    yield dsn
    postgres.drop_database(dsn)


@pytest.fixture
def every_dsn(every_postgres: PostgresServer) -> Iterator[str]:
    """A database with the schema, on each installed PostgreSQL in turn."""
    dsn = migrated_database(every_postgres)
    yield dsn
    every_postgres.drop_database(dsn)


@pytest.fixture
def connection(dsn: str) -> Iterator[Connection]:
    """A connection to `dsn`, in autocommit."""
    with connect(settings_of(dsn), "test", autocommit=True) as connection:
        yield connection


@pytest.fixture
def run(dsn: str) -> Run:
    """A function that runs `smtpfeeds` with `dsn` in its environment."""

    def call(*arguments: str, **more: Any) -> Result:
        return CliRunner().invoke(main, arguments, env={"SMTPFEEDS_AGGREGATOR_DSN": dsn}, **more)

    return call


@pytest.fixture
def table(dsn: str) -> Iterator[Table]:
    """Queries of `dsn`."""
    asked = Table(dsn)
    yield asked
    asked.connection.close()


def terminate_others(dsn: str) -> None:
    """Terminate all other sessions of the database, as an administrator or a failure does."""
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )
