"""An account for analysts: it asks everything, and writes nothing."""

from __future__ import annotations

import json
from pathlib import Path

import psycopg
import pytest
from click.testing import CliRunner, Result

from servers.postgres import PostgresServer, database_name
from smtpfeeds_aggregator.settings import AggregatorSettings
from smtpfeeds_aggregator.store.connection import connect
from smtpfeeds_aggregator.store.migrations import migrate
from smtpfeeds_common.cli import main


def run(*arguments: str) -> Result:
    return CliRunner().invoke(main, arguments)


def test_role_of_readers_can_query_and_not_write(
    postgres: PostgresServer, database: str, tmp_path: Path
) -> None:
    role = 'an "analyst"'
    with connect(AggregatorSettings(dsn=database), "test", autocommit=True) as connection:
        migrate(connection)
        connection.execute(
            "INSERT INTO observation (ip, feed, first_seen, last_seen, hits)"
            " VALUES ('192.0.2.1', 'smtpgreet', now(), now(), 1)"
        )
    roles = ("aggregator", "roles")
    grant = (*roles, "grant", "read")
    none = run(*grant, role, "--dsn", database)
    assert (none.exit_code, "has no role" in none.stderr) == (2, True)
    assert run(*grant, "smtpfeeds", "--dsn", database).exit_code == 2
    with psycopg.connect(postgres.superuser_dsn(), autocommit=True) as administrator:
        administrator.execute('CREATE ROLE "an ""analyst""" LOGIN')
        try:
            theirs = postgres.private.dsn_for(database_name(database), user=role)
            assert run("query", "192.0.2.1", "--dsn", theirs).exit_code == 3
            file = tmp_path / "query.toml"
            words = ("--write-settings", str(file), "--role-dsn", theirs)
            assert run(*grant, role, "--dsn", database, *words).exit_code == 0
            assert file.stat().st_mode & 0o007 == 0
            asked = run("query", "192.0.2.1", "--config", str(file), "--json")
            assert [row["ipaddr"] for row in json.loads(asked.stdout)] == ["192.0.2.1"]
            assert run("query", "192.0.2.1", "--config", str(file)).exit_code == 0
            assert run("feed", "list", "--config", str(file)).exit_code == 0
            with (
                psycopg.connect(theirs) as connection,
                pytest.raises(psycopg.errors.InsufficientPrivilege),
            ):
                connection.execute("DELETE FROM observation")
            refused = run("exclude", "add", "192.0.2.0/24", "--why", "x", "--config", str(file))
            assert refused.exit_code == 3
            # Written once: a file of the operator's is not replaced.
            assert run(*grant, role, "--dsn", database, *words).exit_code == 2
            assert run(*roles, "revoke", role, "--dsn", database).exit_code == 0
            assert run("query", "192.0.2.1", "--config", str(file)).exit_code == 3
        finally:
            administrator.execute(f"DROP DATABASE {database_name(database)} WITH (FORCE)".encode())
            administrator.execute('DROP ROLE "an ""analyst"""')
