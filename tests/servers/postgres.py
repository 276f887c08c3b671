"""PostgreSQL servers for tests: the embedded versions and the system's, a fresh database a test."""

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
    """A name such as `embedded-18` or `system-15` for each PostgreSQL here, newest first."""
    folders: dict[str, Path] = {}
    for kind, binaries in (
        ("embedded", postgres_binaries.embedded()),
        ("system", postgres_binaries.of_the_system()),
    ):
        folders |= {f"{kind}-{each.major}": each.folder for each in binaries}
    return folders


class PostgresServer:
    """One running server, without fsync, that hands out databases."""

    def __init__(
        self,
        directory: Path,
        binaries: Path | None = None,
        settings: dict[str, str] | None = None,
        clock: SteppedClock | None = None,
    ) -> None:
        """Not started yet; `settings` go over the defaults, `clock` is the server's wall clock."""
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
        """A new database that belongs to the aggregator's role; its connection string.

        Args:
            template: Another test database's name (nobody connected to it), to start from a copy.
            encoding: Of the texts in it.
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
        """Set what new sessions of a database begin with."""
        with psycopg.connect(self.superuser_dsn(), autocommit=True) as connection:
            connection.execute(
                sql.SQL("ALTER DATABASE {} SET {} = {}").format(
                    sql.Identifier(database_name(dsn)),
                    sql.Identifier(name),
                    sql.SQL(value),  # pyright: ignore[reportArgumentType] # tests bring it,
                )
            )

    def drop_database(self, dsn: str) -> None:
        """Drop a test's database, also with clients connected."""
        self._execute("DROP DATABASE IF EXISTS {} WITH (FORCE)", database_name(dsn))

    def superuser_dsn(self, database: str = "postgres") -> str:
        return self._private.dsn_for(database, user=SUPERUSER)

    def dsn_through(self, host: str, port: int, dsn: str) -> str:
        """The same database by TCP, through a CuttingProxy on `private.socket_path`."""
        return f"host={host} port={port} dbname={database_name(dsn)} user=smtpfeeds sslmode=disable"

    def _execute(self, statement: LiteralString, *names: str) -> None:
        composed = sql.SQL(statement).format(*map(sql.Identifier, names))
        with psycopg.connect(self.superuser_dsn(), autocommit=True) as connection:
            connection.execute(composed)


class _PostgresWithClock(PrivatePostgres):
    """A server whose every start gets the same stepped clock."""

    def __init__(self, directory: Path, clock: SteppedClock, **options: Any) -> None:
        super().__init__(directory, **options)
        self._clock = clock

    def start(self) -> None:
        with self._clock.in_environment():
            super().start()


def database_name(dsn: str) -> str:
    """The database a connection string names."""
    return str(conninfo_to_dict(dsn)["dbname"])
