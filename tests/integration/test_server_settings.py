"""For many settings of server, database and environment, everything works or says why not.

Each case runs every command and program that connects to the database.
"""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory

import psycopg
import pytest
from click.testing import CliRunner, Result

from ingest_support import Table, now_ms, running, settings_of, until
from servers.pgbouncer import Pooler
from servers.postgres import PostgresServer
from smtpfeeds_aggregator.service import Service
from smtpfeeds_aggregator.settings import AggregatorSettings
from smtpfeeds_aggregator.store import session
from smtpfeeds_aggregator.store.connection import connect
from smtpfeeds_aggregator.store.errors import DatabaseUnsuitable
from smtpfeeds_aggregator.store.maintenance import MaintenanceStore
from smtpfeeds_common.addresses import pack_address
from smtpfeeds_common.cli import main
from smtpfeeds_common.spool import Event, Spool

#: Settings that an operator has for other programs, as in `ALTER DATABASE … SET name =`.
SETTINGS = {
    "DateStyle SQL": {"DateStyle": "'SQL, DMY'"},
    "DateStyle German": {"DateStyle": "German", "IntervalStyle": "iso_8601"},
    "DateStyle Postgres": {"DateStyle": "'Postgres, MDY'", "IntervalStyle": "sql_standard"},
    "time zone": {"TimeZone": "'Asia/Kathmandu'"},
    "client of Latin letters": {"client_encoding": "LATIN1"},
    "client of octets": {"client_encoding": "SQL_ASCII"},
    "backslashes in texts": {"standard_conforming_strings": "off", "escape_string_warning": "off"},
    "read-only": {"default_transaction_read_only": "on"},
    "serializable": {"default_transaction_isolation": "serializable"},
    "repeatable read": {
        "default_transaction_isolation": "'repeatable read'",
        "default_transaction_deferrable": "on",
    },
    "quiet sessions end": {"idle_session_timeout": "'2s'"},
    "short limits": {
        "idle_in_transaction_session_timeout": "'1ms'",
        "statement_timeout": "'5s'",
        "lock_timeout": "'1ms'",
    },
    "schema that is not there": {"search_path": "nowhere, public"},
    "schemas of the system last": {"search_path": "'$user', public, pg_catalog"},
    "forms and plans": {
        "synchronous_commit": "off",
        "bytea_output": "escape",
        "extra_float_digits": "-15",
        "array_nulls": "off",
        "jit_above_cost": "0",
        "plan_cache_mode": "force_generic_plan",
    },
}
#: Variables that libpq reads; a DSN with host, database and account overrides them.
ENVIRONMENT = {
    "PGDATESTYLE": "German",
    "PGTZ": "Asia/Kathmandu",
    "PGCLIENTENCODING": "LATIN1",
    "PGOPTIONS": "-c default_transaction_read_only=on -c search_path=public,pg_catalog",
    "PGAPPNAME": "another",
}
#: Log events of an aggregator that cannot use a session.
TROUBLE = (
    "database unavailable",
    "database slow",
    "maintenance waits",
    "transaction conflict",
    "publishing failed",
    "origins not stored",
)


@dataclass
class Site:
    """A database with an operator's settings, and the folder of an aggregator."""

    dsn: str
    folder: Path

    @property
    def settings(self) -> AggregatorSettings:
        return settings_of(self.dsn, f"spool:{self.spools}", feeds_dir=str(self.folder / "out"))

    @property
    def spools(self) -> Path:
        return self.folder / "spools"

    def command(self, *arguments: str) -> Result:
        return CliRunner().invoke(main, arguments, env={"SMTPFEEDS_AGGREGATOR_DSN": self.dsn})

    def hear(self, address: str) -> None:
        """Let a sensor hear HELO and DATA."""
        spool = Spool(self.spools / "s1.spool", sensor="s1")
        for feed in (0, 1):
            spool.fold(Event(feed, pack_address(address), now_ms() - 1000))
        spool.commit()
        spool.close()


@pytest.fixture
def site(database: str, tmp_path: Path) -> Site:
    return site_in(tmp_path, database)


def site_in(folder: Path, dsn: str) -> Site:
    site = Site(dsn, folder)
    site.spools.mkdir()
    (folder / "out").mkdir()
    return site


@pytest.fixture
def pooler_folder() -> Iterator[Path]:
    """A folder with a path short enough for a Unix socket."""
    with TemporaryDirectory(prefix="smtpfeeds-", dir="/tmp") as folder:
        yield Path(folder)


def ok(result: Result) -> str:
    assert result.exit_code == 0, (result.output, result.exception)
    return result.stdout


def goes_through_everything(
    site: Site, caplog: pytest.LogCaptureFixture, direct: str, *, quiet_s: float = 0.1
) -> None:
    """Check that each program and command works without an error or warning."""
    assert "applied 0001" in ok(site.command("aggregator", "migrate"))
    # The command has configured logging itself.
    logging.getLogger().addHandler(caplog.handler)
    caplog.set_level(logging.INFO)
    table = Table(direct)
    table.run("SET DateStyle = ISO; SET search_path = public; SET idle_session_timeout = 0")
    with running(site.settings):
        site.hear("9.9.9.9")
        until(lambda: table.one("SELECT count(*) FROM observation") == 2, "the first is stored")
        feeds = site.folder / "out" / "feeds"
        until((feeds / "manifest.json").exists, "the feeds are published")
        # Longer than the database's limits, as between two batches at night.
        until(lambda: quiet_for(table, quiet_s), "the sessions are quiet")
        site.hear("9.9.9.8")
        until(lambda: table.one("SELECT count(*) FROM observation") == 4, "the second is stored")
    ask_everything(site)
    with connect(site.settings, "test", autocommit=True) as connection:
        keeper = MaintenanceStore(connection, retention=timedelta(days=30))
        assert keeper.compact(batches=1, spools=10) == 2
        assert not any(rows for _, rows in keeper.retire(datetime.now(UTC)))
    assert "2 addresses rebuilt" in ok(
        site.command("sensors", "purge", "s1", "--since", "1h", "--yes")
    )
    assert table.one("SELECT count(*) FROM observation") == 0
    table.connection.close()
    assert "feeds published" in caplog.messages
    assert [line for line in caplog.messages if line.startswith(TROUBLE)] == []


def quiet_for(table: Table, seconds: float) -> bool:
    """Return whether no other session has been active for this time."""
    return bool(
        table.one(
            "SELECT coalesce(max(state_change) < clock_timestamp() - make_interval(secs => %s),"
            " true) FROM pg_stat_activity WHERE datname = current_database()"
            " AND pid <> pg_backend_pid() AND application_name LIKE '%%ingest'",
            seconds,
        )
    )


def ask_everything(site: Site) -> None:
    rows = json.loads(ok(site.command("query", "9.9.9.9", "--json")))
    assert [row["category"] for row in rows] == ["smtpdata", "smtpgreet"]
    for row in rows:
        age = datetime.now(UTC) - datetime.fromisoformat(row["lastseen"]).replace(tzinfo=UTC)
        assert timedelta(0) < age < timedelta(minutes=10)
    assert len(json.loads(ok(site.command("feed", "show", "smtpgreet", "--json")))) == 2
    listed = json.loads(ok(site.command("feed", "list", "--json")))
    assert [feed["addresses"] for feed in listed] == [2, 2]
    (sensor,) = json.loads(ok(site.command("sensors", "--json")))
    assert (sensor["sensor"], sensor["alive"], sensor["events"] > 0) == ("s1", True, True)
    assert abs(sensor["skew_s"]) < 60
    assert site.command("feed", "crowded").exit_code == 1
    assert site.command("query", "AS64496").exit_code == 1


def says_why_not(site: Site, words: str) -> None:
    """Check that each program and command prints the reason and fails, with neither 0 nor 1."""
    every_command_ends_with(site, 3, words)
    with pytest.raises(DatabaseUnsuitable, match=words):
        Service(site.settings)


def every_command_ends_with(site: Site, code: int, words: str) -> None:
    for arguments in (
        ("aggregator", "migrate"),
        ("query", "192.0.2.1"),
        ("feed", "list"),
        ("feed", "show", "smtpgreet"),
        ("feed", "crowded"),
        ("sensors",),
        ("sensors", "refusals"),
        ("exclude", "list"),
        ("exclude", "add", "192.0.2.0/24", "--why", "ours"),
        ("exclude", "remove", "192.0.2.0/24"),
        ("forget", "192.0.2.1", "--yes"),
        ("aggregator", "clock"),
        ("aggregator", "accept-clock", "--yes"),
        ("sensors", "list"),
        ("sensors", "purge", "s1", "--since", "1h", "--yes"),
    ):
        result = site.command(*arguments)
        assert result.exit_code == code, (arguments, result.output)
        assert re.search(words, result.stderr), (arguments, result.stderr)


@pytest.mark.parametrize("defaults", SETTINGS.values(), ids=SETTINGS.keys())
def test_setting_of_the_database_changes_nothing(
    site: Site,
    postgres: PostgresServer,
    defaults: dict[str, str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    for name, value in defaults.items():
        postgres.set_default(site.dsn, name, value)
    quiet_s = 2.5 if "idle_session_timeout" in defaults else 0.1
    goes_through_everything(site, caplog, site.dsn, quiet_s=quiet_s)


@pytest.mark.parametrize("encoding", ["SQL_ASCII", "LATIN1", "EUC_JP"])
def test_encoding_of_the_database_changes_nothing(
    postgres: PostgresServer, tmp_path: Path, encoding: str, caplog: pytest.LogCaptureFixture
) -> None:
    site = site_in(tmp_path, postgres.create_database(encoding=encoding))
    goes_through_everything(site, caplog, site.dsn)
    postgres.drop_database(site.dsn)


def test_environment_of_libpq_changes_nothing(
    site: Site, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    for name, value in ENVIRONMENT.items():
        monkeypatch.setenv(name, value)
    goes_through_everything(site, caplog, site.dsn + " options=''")


def test_environment_of_libpq_does_not_reach_a_private_database(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """--dir names the database of `smtpfeeds up`; the variables name another one."""
    ok(site.command("aggregator", "migrate"))
    (site.folder / "aggregator.toml").write_text(f'dsn = "{site.dsn}"\n')
    elsewhere = {"PGHOSTADDR": "192.0.2.1", "PGSERVICE": "nowhere", "PGPORT": "1", **ENVIRONMENT}
    for name, value in elsewhere.items():
        monkeypatch.setenv(name, value)
    listed = CliRunner().invoke(main, ["feed", "list", "--json", "--dir", str(site.folder)])
    assert [feed["addresses"] for feed in json.loads(ok(listed))] == [0, 0]


def test_schema_of_the_tables_stays_theirs_when_the_search_path_changes(
    site: Site, postgres: PostgresServer, caplog: pytest.LogCaptureFixture
) -> None:
    """A new first schema in the search_path does not get a second set of tables."""
    ok(site.command("aggregator", "migrate"))
    table = Table(site.dsn)
    table.run("DELETE FROM schema_step; DROP TABLE schema_step; CREATE SCHEMA another")
    postgres.set_default(site.dsn, "search_path", "another, public")
    site.command("aggregator", "migrate")
    assert table("SELECT relname FROM pg_class WHERE relnamespace = 'another'::regnamespace") == []
    assert table.one("SELECT to_regclass('public.schema_step') IS NOT NULL")
    table.connection.close()


@pytest.mark.parametrize("value", ["''", "nowhere"])
def test_search_path_without_a_schema_is_named(
    site: Site, postgres: PostgresServer, value: str
) -> None:
    postgres.set_default(site.dsn, "search_path", value)
    says_why_not(site, "search_path")


def test_pooler_in_session_mode_changes_nothing(
    site: Site, postgres: PostgresServer, pooler_folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with Pooler(pooler_folder, postgres, "session") as pooler:
        direct = site.dsn
        site.dsn = pooler.dsn(direct)
        goes_through_everything(site, caplog, direct)


@pytest.mark.parametrize(
    ("mode", "in_turn"), [("transaction", 0), ("transaction", 1), ("statement", 0)]
)
def test_pooler_that_shares_sessions_is_named(
    site: Site, postgres: PostgresServer, pooler_folder: Path, mode: str, in_turn: int
) -> None:
    """A session that other programs use next must not be changed."""
    with (
        Pooler(pooler_folder, postgres, mode, server_round_robin=in_turn) as pooler,
        psycopg.connect(pooler.dsn(site.dsn), autocommit=True) as other,
        psycopg.connect(pooler.dsn(site.dsn), autocommit=True) as another,
    ):
        # Two of its sessions are open and used in turn.
        with other.transaction() if mode == "transaction" else nullcontext():
            other.execute("SELECT 1")
            another.execute("SELECT 1")
        site.dsn = pooler.dsn(site.dsn)
        says_why_not(site, "pool_mode=session")
        for client in (other, another):
            row = client.execute("SHOW default_transaction_read_only").fetchone()
            assert row == ("off",)


def test_pool_in_session_mode_needs_no_second_session(
    site: Site, postgres: PostgresServer, pooler_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(session, "_SECOND_SESSION_S", 0.2)
    with Pooler(pooler_folder, postgres, "session", default_pool_size=1) as pooler:
        site.dsn = pooler.dsn(site.dsn)
        ok(site.command("aggregator", "migrate"))


@pytest.mark.parametrize(
    ("more", "code", "words"),
    [
        (" password=wrong", 3, "password authentication failed.*check dsn"),
        ("", 3, "no password supplied.*check dsn"),
        (" user=nobody-here password=x", 3, "authentication failed.*check dsn"),
        (" host=/nowhere", 3, "cannot be used now"),
        (" connect_timeout=soon", 2, "dsn"),
        (" passwort=secret", 2, "dsn"),
        (" sslmode=perhaps", 3, "sslmode.*check dsn"),
        (" port=many", 2, "dsn"),
    ],
)
def test_wrong_dsn_is_an_error_and_not_an_empty_answer(
    guarded: PostgresServer, tmp_path: Path, more: str, code: int, words: str
) -> None:
    site = site_in(tmp_path, guarded.private.dsn + more)
    every_command_ends_with(site, code, words)


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PostgresServer]:
    """A server that requires a password of the aggregator's account."""
    folder = tmp_path_factory.mktemp("guarded")
    rules = folder / "pg_hba.conf"
    rules.write_text("local all postgres trust\nlocal all all scram-sha-256\n")
    folder.chmod(0o755)
    server = PostgresServer(folder, settings={"hba_file": str(rules)})
    with server.private:
        yield server
