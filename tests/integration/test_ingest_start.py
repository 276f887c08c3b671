"""An aggregator starts while database or broker are unavailable, or with a wrong address of one."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from ingest_support import settings_of, until
from ingest_support.fixtures import dsn  # noqa: F401 - a fixture
from servers.postgres import PostgresServer
from servers.proxy import CuttingProxy, Target
from smtpfeeds_aggregator.start import wait_for_database
from smtpfeeds_aggregator.store.connection import connect
from smtpfeeds_aggregator.store.errors import DatabaseRefused, DatabaseTimeout, database_errors
from smtpfeeds_common.errors import SchemaMismatch
from smtpfeeds_common.signals import Signals

# ruff: noqa: F811 - fixtures are imported by name and used by name


class Waiting:
    """Runs `wait_for_database` in a thread."""

    def __init__(self, dsn: str) -> None:
        self.signals = Signals()
        self.results: list[bool] = []
        self.thread = threading.Thread(target=self._run, args=(dsn,), daemon=True)
        self.thread.start()

    def _run(self, dsn: str) -> None:
        self.results.append(wait_for_database(settings_of(dsn, database_timeout_s=1), self.signals))

    def end(self) -> bool:
        self.thread.join(60)
        assert not self.thread.is_alive()
        return self.results[0]


def test_start_waits_for_an_unavailable_database_and_logs_it_once(
    postgres: PostgresServer,
    dsn: str,
    cutting_proxy: Callable[[Target], CuttingProxy],
    caplog: pytest.LogCaptureFixture,
) -> None:
    proxy = cutting_proxy(postgres.private.socket_path.with_name("nothing listens here"))
    caplog.set_level(logging.INFO)
    waiting = Waiting(postgres.dsn_through(proxy.host, proxy.port, dsn))
    until(lambda: proxy.accepted >= 4, "it tries again and again")
    assert waiting.thread.is_alive()
    waits = [record for record in caplog.records if record.message == "waiting for the database"]
    reasons = [str(vars(record)["fields"]) for record in waits]
    assert len(reasons) == len(set(reasons)), "each reason once"
    proxy.aim(postgres.private.socket_path)
    assert waiting.end()
    assert caplog.messages[-1] == "database available"


def test_start_waits_for_a_database_that_accepts_connections_and_does_not_answer(
    postgres: PostgresServer, dsn: str, cutting_proxy: Callable[[Target], CuttingProxy]
) -> None:
    proxy = cutting_proxy(postgres.private.socket_path)
    proxy.blackhole()
    waiting = Waiting(postgres.dsn_through(proxy.host, proxy.port, dsn) + " connect_timeout=2")
    until(lambda: proxy.accepted > 1, "it gives one up and tries another")
    proxy.cut()
    proxy.forward()
    assert waiting.end()


def test_stop_ends_the_wait(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    waiting = Waiting(f"host={tmp_path} dbname=nothing")
    until(lambda: "waiting for the database" in caplog.messages, "it waits")
    waiting.signals.ask_to_stop()
    assert not waiting.end()


def test_wrong_dsn_ends_the_start_with_the_reason(dsn: str) -> None:
    """A missing database or account is a mistake; waiting would not help."""
    for wrong, message in (
        (dsn + " dbname=nowhere", r'database "nowhere" does not exist; check dsn'),
        (dsn + " user=nobody-here", r"nobody-here.*check dsn"),
    ):
        with pytest.raises(DatabaseRefused, match=message):
            wait_for_database(settings_of(wrong), Signals())


def test_missing_schema_ends_the_start_with_the_remedy(database: str) -> None:
    with pytest.raises(SchemaMismatch, match="aggregator migrate"):
        wait_for_database(settings_of(database), Signals())


def test_statement_has_a_time_limit_in_client_and_server(dsn: str) -> None:
    settings = settings_of(dsn)
    with connect(settings, "test", autocommit=True, limit_s=1) as connection:
        with pytest.raises(DatabaseTimeout, match="statement timeout"), database_errors():
            connection.execute("SELECT pg_sleep(5)")
        connection.execute("SET statement_timeout = 0")
        with pytest.raises(DatabaseTimeout, match="no answer within 1 s"), database_errors():
            connection.execute("SELECT pg_sleep(5)")
        assert connection.closed
