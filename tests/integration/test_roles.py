"""Database roles: each part of smtpfeeds works with its own, and can do nothing else."""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import psycopg
import pytest
from click.testing import CliRunner, Result
from psycopg import sql

from ingest_support import (
    DAY_MS,
    KnowsAllOrigins,
    Table,
    data,
    delivery_of,
    folder_of,
    greet,
    made_batch,
    now_ms,
    running,
    settings_of,
    until,
)
from ingest_support.fixtures import dsn, table  # noqa: F401 - fixtures
from ingest_support.storing import RETENTION, apply, ingest_store
from servers.postgres import PostgresServer, database_name
from smtpfeeds_aggregator.accounts import Flood, RefusalCode, RefusedMessage
from smtpfeeds_aggregator.ingest.check import check
from smtpfeeds_aggregator.ingest.fold import fold
from smtpfeeds_aggregator.store.clock import ClockStore
from smtpfeeds_aggregator.store.connection import connect
from smtpfeeds_aggregator.store.maintenance import MaintenanceStore
from smtpfeeds_aggregator.store.refusals import RefusalStore
from smtpfeeds_aggregator.store.sql import queries
from smtpfeeds_common.cli import main

# ruff: noqa: F811 - fixtures are imported by name and used by name

PARTITION = Path(__file__).parents[2] / "deploy" / "postgresql" / "partition.sql"
PARTS = ("ingest", "publish", "read")
_NEW_OBSERVATION = """INSERT INTO observation (ip, feed, first_seen, last_seen, hits)
    VALUES ('192.0.2.9', 'smtpgreet', now(), now(), 1)"""
_NEW_SIGHTING = """INSERT INTO sighting (ip, feed, sensor, first_seen, last_seen, hits)
    VALUES ('192.0.2.9', 'smtpgreet', 's1', now(), now(), 1)"""
#: What a role of a part may not do.
REFUSED = {
    "ingest": (
        "DROP TABLE observation",
        "ALTER TABLE observation ADD COLUMN more integer",
        "TRUNCATE observation",
        "CREATE TABLE mine (n integer)",
        "CREATE INDEX ON sighting (last_seen)",
        "SELECT FROM exclusion",
        "INSERT INTO exclusion (prefix, reason) VALUES ('192.0.2.0/24', 'x')",
        "SELECT FROM past_epoch",
        "SELECT FROM publication_summary",
        "UPDATE sensor SET epoch = 7",
        "UPDATE sensor SET enrolled_at = now()",
        "UPDATE sensor SET revoked_at = NULL",
        "DELETE FROM sensor",
        "INSERT INTO granted_role (role, part) VALUES ('me', 'publish')",
        "UPDATE schema_step SET oldest_writer = '9.9.9'",
    ),
    "publish": (
        "DROP TABLE observation",
        "CREATE TABLE mine (n integer)",
        _NEW_OBSERVATION,
        _NEW_SIGHTING,
        "UPDATE observation SET hits = 1",
        "DELETE FROM observation",
        "DELETE FROM sighting",
        "INSERT INTO activity VALUES (now(), 'smtpgreet', 's1', 1)",
        "INSERT INTO sensor (name) VALUES ('new')",
        "DELETE FROM exclusion",
        "SELECT FROM spool",
        "SELECT FROM refusal",
        "UPDATE database_clock SET noted = now()",
    ),
    "read": (
        _NEW_OBSERVATION,
        "UPDATE observation SET asn = 1",
        "DELETE FROM sighting",
        "INSERT INTO exclusion (prefix, reason) VALUES ('192.0.2.0/24', 'x')",
        "UPDATE autonomous_system SET name = 'x'",
        "UPDATE sensor SET heard_at = now()",
        "TRUNCATE refusal",
        "CREATE TABLE mine (n integer)",
        "DROP VIEW rotated_enrolment",
    ),
}


@dataclass
class Roles:
    """A role for each part in one database, and who owns it."""

    owner: str
    dsns: dict[str, str]
    names: dict[str, str]


def run(*arguments: str) -> Result:
    return CliRunner().invoke(main, arguments)


@pytest.fixture
def roles(postgres: PostgresServer, dsn: str) -> Iterator[Roles]:
    database = database_name(dsn)
    names = {part: f"{database} the {part} role" for part in PARTS}
    with psycopg.connect(postgres.superuser_dsn(), autocommit=True) as administrator:
        for name in names.values():
            administrator.execute(sql.SQL("CREATE ROLE {} LOGIN").format(sql.Identifier(name)))
        # A strict setup: only roles with the privilege may connect.
        administrator.execute(
            sql.SQL("REVOKE ALL ON DATABASE {} FROM PUBLIC").format(sql.Identifier(database))
        )
        for part, name in names.items():
            done = run("aggregator", "roles", "grant", part, name, "--dsn", dsn)
            assert (done.exit_code, done.stdout) == (0, f"{name} may {part}\n"), done.output
        dsns = {part: postgres.private.dsn_for(database, user=name) for part, name in names.items()}
        yield Roles(dsn, dsns, names)
        postgres.drop_database(dsn)
        for name in names.values():
            administrator.execute(sql.SQL("DROP ROLE {}").format(sql.Identifier(name)))


def test_each_part_works_with_its_role_and_can_do_nothing_else(
    roles: Roles, table: Table, tmp_path: Path
) -> None:
    _ingests(roles.dsns["ingest"])
    _retires(roles.dsns["ingest"], table)
    _publishes(roles, tmp_path)
    asked = run("query", "--all", "--dsn", roles.dsns["read"], "--json")
    assert {row["ipaddr"] for row in json.loads(asked.stdout)} == {"8.8.8.8"}
    for part, statements in REFUSED.items():
        with psycopg.connect(roles.dsns[part], autocommit=True) as connection:
            for statement in statements:
                with pytest.raises(psycopg.errors.InsufficientPrivilege):
                    connection.execute(statement.encode())
    # An operator's commands are the owner's.
    for words in (("sensors", "rotate", "s1"), ("sensors", "purge", "s1", "--epoch", "1", "--yes")):
        done = run(*words, "--dsn", roles.dsns["ingest"])
        assert (done.exit_code, "use the role that owns the tables" in done.stderr) == (3, True)
    # The unit file runs `migrate` at each start: with this role it does nothing, or fails.
    unchanged = run("aggregator", "migrate", "--dsn", roles.dsns["ingest"])
    assert (unchanged.exit_code, unchanged.stdout) == (0, "the schema is up to date\n")
    table.run("DELETE FROM schema_step WHERE version = 140")
    refused = run("aggregator", "migrate", "--dsn", roles.dsns["ingest"])
    assert (refused.exit_code, "use the role that owns the tables" in refused.stderr) == (3, True)


def _ingests(dsn: str) -> None:
    """All statements of ingest: the probe runs each; then batches that stay."""
    store = ingest_store(dsn)
    spool = uuid.uuid4()
    batches = [
        made_batch(greet("8.8.8.8"), data("8.8.8.8"), spool=spool, seq=n + 1) for n in range(3)
    ]
    one = check(delivery_of(batches[0]))
    store.probe(fold([one], KnowsAllOrigins(), now_ms() // DAY_MS))
    assert len(apply(store, *batches).fresh) == 3
    store.close()
    refusals = RefusalStore(lambda: connect(settings_of(dsn), "test", autocommit=True))
    refusals.record([RefusedMessage("s1", RefusalCode.ROWS, 10, "what is wrong")])
    refusals.note_floods([Flood("s1", 100.0, 1.0, 1.0, "messages")])
    refusals.close()


def _retires(dsn: str, table: Table) -> None:
    """All statements of maintenance, and of the clock's watch but the operator's."""
    long_ago = datetime.now(UTC) - timedelta(days=90)
    table.run(
        "INSERT INTO observation (ip, feed, first_seen, last_seen, hits)"
        " VALUES ('192.0.2.7', 'smtpgreet', %s, %s, 1)",
        long_ago,
        long_ago,
    )
    with connect(settings_of(dsn), "test", autocommit=True) as connection:
        clock = ClockStore(connection)
        clock.record_doubt(uuid.uuid4(), ["sensors"], "a doubt", 1.0)
        clock.withdraw_doubt(uuid.uuid4(), others=True)
        clock.note(clock.read(time.monotonic), every_s=0)
        store = MaintenanceStore(connection, retention=RETENTION)
        assert store.try_lock()
        assert store.compact(batches=1, spools=10) == 3
        now = datetime.now(UTC)
        assert store.retention_due(now)
        gone = [name for name, rows in store.retire(now) if rows]
        assert gone == ["observation"]
        store.unlock()


def _publishes(roles: Roles, folder: Path) -> None:
    """A whole aggregator with both roles; it publishes, and so does the command."""
    (folder / "ipasn.dat").write_text("8.0.0.0/8\t64500\n")
    (folder / "names.json").write_text('{"64500": "University of Examples"}')
    settings = settings_of(
        roles.dsns["ingest"],
        f"spool:{folder_of(folder, 'spool')}",
        publish_dsn=roles.dsns["publish"],
        feeds_dir=str(folder / "www"),
        origin_table=str(folder / "ipasn.dat"),
        as_names=str(folder / "names.json"),
        publish_interval_s=1,
    )
    with running(settings) as service:
        until(lambda: service.metrics.published_s > 0, "it has published")
    file = folder / "aggregator.toml"
    names = ("dsn", "publish_dsn", "broker", "feeds_dir", "origin_table", "as_names")
    file.write_text("".join(f"{n} = {json.dumps(getattr(settings, n))}\n" for n in names))
    done = run("publish", "now", "--config", str(file))
    assert (done.exit_code, "smtpgreet 1" in done.stdout) == (0, True), done.output
    checked = run("aggregator", "check-config", "--config", str(file))
    assert (checked.exit_code, "publish_dsn: host" in checked.stdout) == (0, True), checked.output


def test_commands_of_an_operator_use_the_owners_role_and_the_aggregators_own_do_not(
    roles: Roles, table: Table, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without options: the database of owner.toml, every other setting of aggregator.toml."""
    (tmp_path / "ipasn.dat").write_text("8.0.0.0/8\t64500\n")
    values = {
        "dsn": roles.dsns["ingest"],
        "publish_dsn": roles.dsns["publish"],
        "feeds_dir": str(tmp_path / "www"),
        "origin_table": str(tmp_path / "ipasn.dat"),
        "retention_days": 100,
    }
    aggregator, owner = tmp_path / "aggregator.toml", tmp_path / "owner.toml"
    aggregator.write_text("".join(f"{n} = {json.dumps(v)}\n" for n, v in values.items()))
    monkeypatch.setenv("SMTPFEEDS_SETTINGS", str(tmp_path))
    operator = ("exclude", "list", "--json")

    refused = run(*operator)
    assert refused.exit_code == 3
    assert f"(dsn from {aggregator}; there is no {owner} that this user" in refused.stderr

    owner.write_text(f"dsn = {json.dumps(roles.owner)}\n")
    table.run("INSERT INTO sensor (name, heard_at) VALUES ('s1', now())")
    for words in (
        ("exclude", "add", "192.0.2.0/24", "--why", "ours"),
        ("forget", "198.51.100.7", "--yes"),
        ("sensors", "rotate", "s1"),
        ("sensors", "--all"),
        ("aggregator", "migrate"),
        ("aggregator", "roles", "list"),
        ("publish", "now"),
        ("publish", "status"),
        ("stats",),
        ("feed", "list"),
        operator,
    ):
        assert run(*words).exit_code == 0, (words, run(*words).output)
    assert run("query", "8.8.8.8").exit_code == 1
    kept = "SELECT until > now() + interval '100 days' FROM exclusion WHERE until IS NOT NULL"
    assert table.one(kept) is True

    # A file that the operator names counts alone.
    refused = run(*operator, "--config", str(aggregator))
    assert refused.exit_code == 3
    assert f"(dsn from {aggregator}; {owner} names the role that owns the tables)" in refused.stderr

    # What the aggregator does by itself stays with its own roles.
    name = roles.names["publish"]
    assert run("aggregator", "roles", "revoke", name).exit_code == 0
    refused = run("publish", "now")
    assert (refused.exit_code, str(owner) in refused.stderr) == (3, False)
    assert f"(dsn from {aggregator})" in refused.stderr


def test_migrate_renews_privileges_and_revoke_removes_them(roles: Roles, table: Table) -> None:
    listed = run("aggregator", "roles", "list", "--json", "--dsn", roles.owner)
    assert {row["part"]: row["role"] for row in json.loads(listed.stdout)} == roles.names
    # Partitioned, observation and sighting are other tables, on which nothing was granted yet.
    table.connection.execute(PARTITION.read_bytes())
    asked = "SELECT count(*) FROM observation"
    with psycopg.connect(roles.dsns["publish"], autocommit=True) as connection:
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            connection.execute(asked)
        assert run("aggregator", "migrate", "--dsn", roles.owner).exit_code == 0
        assert connection.execute(asked).fetchone() == (0,)
        with psycopg.connect(roles.dsns["ingest"], autocommit=True) as ingest:
            # Maintenance deletes in each partition by its own name.
            ingest.execute("DELETE FROM observation_3")
        name = roles.names["publish"]
        assert run("aggregator", "roles", "revoke", name, "--dsn", roles.owner).exit_code == 0
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            connection.execute(asked)
    listed = run("aggregator", "roles", "list", "--json", "--dsn", roles.owner)
    assert {row["part"] for row in json.loads(listed.stdout)} == {"ingest", "read"}


def test_each_table_has_its_privileges_for_each_part(table: Table) -> None:
    """A new table fails this test until `roles.sql` lists what each part may do there."""
    named = [name for (name,) in table(queries("roles.sql")["named_tables"])]
    there = table(
        "SELECT relname::text FROM pg_class WHERE relkind IN ('r', 'v', 'p')"
        " AND relnamespace = current_schema()::regnamespace ORDER BY relname"
    )
    assert named == [name for (name,) in there]
