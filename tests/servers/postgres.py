"""PostgreSQL servers for tests, embedded and the system's, with a new database for each test."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any, LiteralString

import psycopg
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict

from servers.clock import SteppedClock
from smtpfeeds_deploy.single_host import postgres_binaries
from smtpfeeds_deploy.single_host.postgres import PrivatePostgres
from smtpfeeds_deploy.single_host.postgres_cluster import SUPERUSER


def installed() -> dict[str, Path]:
    """Return the installations by names such as `embedded-18` or `system-15`, newest first."""
    folders: dict[str, Path] = {}
    for kind, binaries in (
        ("embedded", postgres_binaries.embedded()),
        ("system", postgres_binaries.of_the_system()),
    ):
        folders |= {f"{kind}-{each.major}": each.folder for each in binaries}
    return folders


class PostgresServer:
    """A server without fsync that creates databases for tests."""

    def __init__(
        self,
        directory: Path,
        binaries: Path | None = None,
        settings: dict[str, str] | None = None,
        clock: SteppedClock | None = None,
    ) -> None:
        """Do not start yet; `settings` override defaults, `clock` is the server's wall clock."""
        options: dict[str, Any] = {
            "binaries": binaries,
            "durable": False,
            "settings": {"max_connections": "100", **(settings or {})},
        }
        self._private = (
            PrivatePostgres(directory, **options)
            if clock is None
            else _PostgresWithClock(directory, clock, **options)
        )
        self._numbers = itertools.count(1)

    @property
    def private(self) -> PrivatePostgres:
        """The server itself: `stop`, `start`, `pid`, `socket_path` (a CuttingProxy's target)."""
        return self._private

    def create_database(self, *, template: str = "template0", encoding: str = "UTF8") -> str:
        """Create a database that belongs to the aggregator's role; return its connection string.

        Args:
            template: the name of the database to copy, which must have no connections.
            encoding: the encoding of its texts.
        """
        name = f"test_{next(self._numbers)}"
        self._execute(
            "CREATE DATABASE {} OWNER smtpfeeds TEMPLATE {} ENCODING {} LOCALE 'C'",
            name,
            template,
            encoding,
        )
        return self._private.dsn_for(name)

    def set_default(self, dsn: str, name: str, value: str) -> None:
        """Set the default of a parameter for new sessions of a database."""
        with psycopg.connect(self.superuser_dsn(), autocommit=True) as connection:
            connection.execute(
                sql.SQL("ALTER DATABASE {} SET {} = {}").format(
                    sql.Identifier(database_name(dsn)),
                    sql.Identifier(name),
                    sql.SQL(value),  # pyright: ignore[reportArgumentType] # tests bring it,
                )
            )

    def drop_database(self, dsn: str) -> None:
        """Drop a test's database, even while clients are connected."""
        self._execute("DROP DATABASE IF EXISTS {} WITH (FORCE)", database_name(dsn))

    def superuser_dsn(self, database: str = "postgres") -> str:
        return self._private.dsn_for(database, user=SUPERUSER)

    def dsn_through(self, host: str, port: int, dsn: str) -> str:
        """Return the same database by TCP, through a CuttingProxy to `private.socket_path`."""
        return f"host={host} port={port} dbname={database_name(dsn)} user=smtpfeeds sslmode=disable"

    def _execute(self, statement: LiteralString, *names: str) -> None:
        composed = sql.SQL(statement).format(*map(sql.Identifier, names))
        with psycopg.connect(self.superuser_dsn(), autocommit=True) as connection:
            connection.execute(composed)


class _PostgresWithClock(PrivatePostgres):
    """A server with a stepped clock, also after a restart."""

    def __init__(self, directory: Path, clock: SteppedClock, **options: Any) -> None:
        super().__init__(directory, **options)
        self._clock = clock

    def start(self) -> None:
        with self._clock.in_environment():
            super().start()


def database_name(dsn: str) -> str:
    """Return the database that a connection string names."""
    return str(conninfo_to_dict(dsn)["dbname"])
