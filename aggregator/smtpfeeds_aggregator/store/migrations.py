"""Brings the schema up to this program's, forward only.

Our own runner rather than a migration library, for one promise: a migration
and the record that it ran are one transaction, so a kill between any two steps
leaves either all of it or nothing (yoyo, tried, marks in a second one, and looks
the host's name up in the DNS for its log). An advisory lock makes two runs at
once wait for each other.

A migration is a numbered file of SQL beside ``sql/__init__.py``. It must be safe
while the previous version still runs: it adds, it never renames or takes away
what that version uses.
"""

import re
from dataclasses import dataclass, field
from functools import cache
from importlib.resources import files
from typing import Final

from smtpfeeds_common.errors import SchemaMismatch

from . import sql as sql_files
from .connection import Connection, database_errors
from .sql import queries

_FILE: Final = re.compile(r"^(\d{4})_(\w+)\.sql$")


@dataclass(frozen=True, slots=True)
class Migration:
    """One step: its number, its name, its SQL."""

    version: int
    name: str
    sql: str = field(repr=False)


@cache
def migrations() -> tuple[Migration, ...]:
    """All steps that this program knows, in order."""
    found = []
    for file in files(sql_files).joinpath("migrations").iterdir():
        match = _FILE.match(file.name)
        if match:
            found.append(Migration(int(match[1]), match[2], file.read_text(encoding="utf-8")))
    return tuple(sorted(found, key=lambda step: step.version))


def migrate(connection: Connection, steps: tuple[Migration, ...] | None = None) -> list[Migration]:
    """Apply what is missing, each step in a transaction of its own.

    Args:
        connection: in autocommit mode.
        steps: other steps than this program's, for tests.

    Returns:
        The steps that were applied now.

    Raises:
        SchemaMismatch: the schema is newer than this program.
        DatabaseUnavailable: no right to create tables, or the connection broke.
    """
    own = migrations() if steps is None else steps
    sql = queries("schema.sql")
    done: list[Migration] = []
    with database_errors():
        connection.execute(sql["lock_schema"])
        try:
            connection.execute(sql["create_schema_migration"])
            applied = _applied(connection)
            _refuse_newer(applied, own)
            for step in own:
                if step.version not in applied:
                    _apply(connection, step)
                    done.append(step)
        finally:
            if not connection.closed:
                connection.execute(sql["unlock_schema"])
    return done


def _apply(connection: Connection, step: Migration) -> None:
    with connection.transaction():
        connection.execute(step.sql.encode())
        connection.execute(
            queries("schema.sql")["record_migration"],
            {"version": step.version, "name": step.name},
        )


def check_schema(connection: Connection) -> None:
    """Make sure that the schema is exactly this program's.

    Raises:
        SchemaMismatch: it is missing, older or newer.
        DatabaseUnavailable: it cannot be asked.
    """
    with database_errors():
        row = connection.execute(queries("schema.sql")["schema_exists"]).fetchone()
        applied = _applied(connection) if row and row[0] else frozenset[int]()
    _refuse_newer(applied, migrations())
    missing = [step for step in migrations() if step.version not in applied]
    if missing:
        state = "has no smtpfeeds schema" if not applied else "is older than this program"
        raise SchemaMismatch(
            f"the database {state} (missing: {', '.join(_label(step) for step in missing)}); "
            "run `smtpfeeds aggregator migrate`"
        )


def _applied(connection: Connection) -> frozenset[int]:
    rows = connection.execute(queries("schema.sql")["applied_migrations"]).fetchall()
    return frozenset(int(row[0]) for row in rows)


def _refuse_newer(applied: frozenset[int], own: tuple[Migration, ...]) -> None:
    newest = max((step.version for step in own), default=0)
    if applied and max(applied) > newest:
        raise SchemaMismatch(
            f"the database's schema has version {max(applied)}, this program knows up to {newest}; "
            "install the newer smtpfeeds on this host"
        )


def _label(step: Migration) -> str:
    return f"{step.version:04d} {step.name}"
