"""Migrates the schema to this program's version, forward only, while older programs run.

It is not a migration library, because a step and its record must be one transaction: a
kill at any time leaves a complete step or nothing of it. (yoyo records a step in a second
transaction, and looks up the host's name in the DNS for its log.) An advisory lock makes
concurrent runs wait for each other.

A step is a numbered SQL file in ``sql/migrations``. It must be safe while the previous
version still runs: it adds columns and tables, with defaults, and never renames or removes
what that version uses. Numbers may have gaps; missing steps are applied in order. Each file
except the first states two versions, which are recorded in ``schema_step`` with it:

    -- oldest reader: 0.1.0
    -- oldest writer: 0.1.0

A program may read the tables if it is at least every step's oldest reader, and write them
if it is at least every step's oldest writer, even if it does not know a step of a later
version. Version 0.1.0 reads only ``schema_migration`` and stops at an unknown row. So a
step that it can run with is recorded in ``schema_step`` alone, any other step in both.
"""

import re
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from importlib.resources import files
from typing import Final, NamedTuple

from psycopg import errors

from smtpfeeds_common import __version__
from smtpfeeds_common.errors import DatabaseUnavailable, SchemaMismatch

from . import sql as sql_files
from .connection import Connection
from .errors import database_errors
from .sql import queries

_FILE: Final = re.compile(r"^(\d{4})_(\w+)\.sql$")
_OLDEST: Final = re.compile(r"^-- oldest (reader|writer): (\d+\.\d+\.\d+)$", re.MULTILINE)
#: The version that reads ``schema_migration`` alone, and its only step.
FIRST_VERSION: Final = "0.1.0"
FIRST_STEP: Final = 1

#: Later statements queue behind a step that waits for a table's lock, so each wait is short.
_LOCK_WAIT: Final = "3s"
#: A publication may hold its snapshot of a table for ten minutes.
_LOCK_TRIES: Final = 150
_LOCK_PAUSE_S: Final = 2.0


@dataclass(frozen=True, slots=True)
class Migration:
    """A step: its number, name and SQL, and the oldest programs that work after it."""

    version: int
    name: str
    sql: str = field(repr=False)
    oldest_reader: str = FIRST_VERSION
    oldest_writer: str = FIRST_VERSION

    @property
    def label(self) -> str:
        """The step's number and name, for messages."""
        return f"{self.version:04d} {self.name}"

    @property
    def first_version_works(self) -> bool:
        """Whether programs of 0.1.0 may use the tables after it."""
        return {self.oldest_reader, self.oldest_writer} == {FIRST_VERSION}


class AppliedStep(NamedTuple):
    """A recorded step; ``schema_migration`` has no oldest reader and writer."""

    version: int
    name: str
    oldest_reader: str | None = None
    oldest_writer: str | None = None


@cache
def migrations() -> tuple[Migration, ...]:
    """Return all steps that this program knows, in order.

    Raises:
        ValueError: a file does not state its oldest reader and writer.
    """
    steps = []
    for file in files(sql_files).joinpath("migrations").iterdir():
        match = _FILE.match(file.name)
        if match:
            steps.append(read_step(int(match[1]), match[2], file.read_text(encoding="utf-8")))
    return tuple(sorted(steps, key=lambda step: step.version))


def read_step(version: int, name: str, sql: str) -> Migration:
    """Make a step from a file's number, name and text.

    Raises:
        ValueError: the text does not state its oldest reader and writer.
    """
    oldest = dict(_OLDEST.findall(sql))
    if version != FIRST_STEP and set(oldest) != {"reader", "writer"}:
        raise ValueError(f"{version:04d}_{name}.sql: state `-- oldest reader:` and `writer:`")
    return Migration(
        version,
        name,
        sql,
        oldest.get("reader", FIRST_VERSION),
        oldest.get("writer", FIRST_VERSION),
    )


def migrate(
    connection: Connection,
    steps: tuple[Migration, ...] | None = None,
    *,
    pause: Callable[[float], object] = time.sleep,
) -> list[Migration]:
    """Apply the missing steps, each in its own transaction.

    Args:
        connection: in autocommit mode.
        steps: replace this program's steps, for tests.
        pause: sleeps between two attempts to lock a table.

    Returns:
        The steps that were applied.

    Raises:
        SchemaMismatch: the schema is too new for this program.
        DatabaseUnavailable: the role may not create tables, a table stays locked, or the
            connection broke.
    """
    own = migrations() if steps is None else steps
    sql = queries("schema.sql")
    applied_now: list[Migration] = []
    with database_errors():
        connection.execute(sql["lock_schema"])
        try:
            if not _tables(connection).schema_step:
                connection.execute(sql["create_schema_tables"])
            recorded = _recorded(connection)
            _refuse_newer(recorded, own, write=True)
            known = {step.version for step in recorded}
            for step in own:
                if step.version not in known:
                    _apply(connection, step, pause)
                    applied_now.append(step)
        finally:
            if not connection.closed:
                connection.execute(sql["unlock_schema"])
    return applied_now


def _apply(connection: Connection, step: Migration, pause: Callable[[float], object]) -> None:
    for _ in range(_LOCK_TRIES):
        try:
            with connection.transaction():
                connection.execute("SELECT set_config('lock_timeout', %s, true)", (_LOCK_WAIT,))
                connection.execute(step.sql.encode())
                _record(connection, step)
        except (errors.LockNotAvailable, errors.DeadlockDetected):
            pause(_LOCK_PAUSE_S)
        else:
            return
    raise DatabaseUnavailable(
        f"step {step.label} is not applied, and nothing of it is in the database: another session "
        f"keeps a table locked; find it in pg_stat_activity, end it and run "
        "`smtpfeeds aggregator migrate` again"
    )


def _record(connection: Connection, step: Migration) -> None:
    sql = queries("schema.sql")
    row = {"version": step.version, "name": step.name}
    if step.version == FIRST_STEP or not step.first_version_works:
        connection.execute(sql["record_migration"], row)
    if step.version != FIRST_STEP:
        more = {
            "oldest_reader": step.oldest_reader,
            "oldest_writer": step.oldest_writer,
            "applied_by": __version__,
        }
        connection.execute(sql["record_step"], {**row, **more})


def check_schema(connection: Connection, *, write: bool = True) -> None:
    """Check that the schema has all steps of this program, and no later one that excludes it.

    Args:
        connection: to the database.
        write: the program also writes.

    Raises:
        SchemaMismatch: the schema is missing, older, or too new for this program.
        DatabaseUnavailable: the database does not answer.
    """
    with database_errors():
        recorded = _recorded(connection)
    _refuse_newer(recorded, migrations(), write=write)
    known = {step.version for step in recorded}
    missing = [step.label for step in migrations() if step.version not in known]
    if missing:
        state = "is older than this program" if known else "has no smtpfeeds schema"
        raise SchemaMismatch(
            f"the database {state} (missing: {', '.join(missing)}); "
            "run `smtpfeeds aggregator migrate`"
        )


class _Tables(NamedTuple):
    """Which of the two tables of steps exist."""

    schema_migration: bool
    schema_step: bool


def _tables(connection: Connection) -> _Tables:
    row = connection.execute(queries("schema.sql")["which_tables"]).fetchone()
    assert row is not None
    return _Tables(*row)


def _recorded(connection: Connection) -> list[AppliedStep]:
    """Return all steps in the database, each once."""
    sql, tables = queries("schema.sql"), _tables(connection)
    with connection.pipeline():
        newer = connection.execute(sql["applied_steps"]) if tables.schema_step else ()
        older = connection.execute(sql["applied_migrations"]) if tables.schema_migration else ()
    steps = [AppliedStep(*row) for row in newer]
    known = {step.version for step in steps}
    return steps + [AppliedStep(*row) for row in older if row[0] not in known]


def _refuse_newer(recorded: list[AppliedStep], own: tuple[Migration, ...], *, write: bool) -> None:
    known = {step.version for step in own}
    for step in recorded:
        oldest = step.oldest_writer if write else step.oldest_reader
        if step.version not in known and _is_newer(oldest):
            verb = "write" if write else "read"
            raise SchemaMismatch(
                f"the database's schema is newer than this program (step {step.version:04d} "
                f"{step.name}): smtpfeeds {oldest or 'of that step'} or later may {verb} it, this "
                f"is {__version__}; install the newer smtpfeeds on this host"
            )


def _is_newer(oldest: str | None) -> bool:
    return oldest is None or _numbers(oldest) > _numbers(__version__)


def _numbers(version: str) -> tuple[int, ...]:
    """Return the leading numbers of a version, to compare: (0, 2, 0) for `0.2.0.dev1`."""
    match = re.match(r"\d+(?:\.\d+)*", version)
    return tuple(int(number) for number in match[0].split(".")) if match else ()
