"""Which error of PostgreSQL is about the data, the connection or the server."""

from __future__ import annotations

import psycopg
import pytest
from psycopg import errors

from ingest_support import settings_of
from smtpfeeds_aggregator.store.connection import connection_parameters
from smtpfeeds_aggregator.store.errors import (
    DatabaseTimeout,
    MissingPrivilege,
    TransactionConflict,
    database_errors,
    one_line,
    translate,
)
from smtpfeeds_common.errors import BadRows, DatabaseUnavailable, SettingsError


def test_text_that_is_not_utf8_is_bad_data() -> None:
    """Python reads such octets of a command line as surrogates."""
    with pytest.raises(BadRows, match="not UTF-8"), database_errors():
        "\udcff".encode()


MEANINGS: list[tuple[str, type[Exception]]] = [
    ("21000", BadRows),  # cardinality violation
    ("22003", BadRows),  # a number out of range
    ("22P05", BadRows),  # NUL in a text
    ("23514", BadRows),  # a CHECK
    ("40001", TransactionConflict),
    ("40P01", TransactionConflict),
    ("25006", DatabaseUnavailable),  # read-only: a standby
    ("42P01", DatabaseUnavailable),  # a table is gone
    ("42501", MissingPrivilege),  # a right is gone
    ("53100", DatabaseUnavailable),  # disk full
    ("53300", DatabaseUnavailable),  # too many connections
    ("57P01", DatabaseUnavailable),  # ended by an administrator
    ("57014", DatabaseTimeout),  # a statement's timeout
    ("08006", DatabaseUnavailable),  # connection failure
    ("XX000", DatabaseUnavailable),  # an internal error: a damaged page
]


@pytest.mark.parametrize(("state", "meaning"), MEANINGS)
def test_only_data_errors_are_bad_rows(state: str, meaning: type[Exception]) -> None:
    error = translate(errors.lookup(state)("said"))
    assert type(error) is meaning
    assert "said" in str(error)


def test_driver_error_without_a_state_is_mapped_by_class() -> None:
    assert type(translate(psycopg.DataError("NUL"))) is BadRows
    assert type(translate(psycopg.OperationalError("server closed"))) is DatabaseUnavailable
    assert type(translate(psycopg.InterfaceError("closed"))) is DatabaseUnavailable


def test_dsn_overrides_our_defaults_and_keeps_its_hosts() -> None:
    dsn = "postgresql://u@one,two/db?target_session_attrs=read-write&connect_timeout=3"
    parameters = connection_parameters(settings_of(dsn), "test")
    assert (parameters["host"], parameters["target_session_attrs"]) == ("one,two", "read-write")
    assert (parameters["connect_timeout"], parameters["tcp_user_timeout"]) == ("3", "30000")
    assert parameters["application_name"] == "smtpfeeds test"


def test_missing_or_invalid_dsn_is_reported() -> None:
    for dsn, message in (("", "missing"), ("nonsense", "not a libpq connection string")):
        with pytest.raises(SettingsError, match=message):
            connection_parameters(settings_of(dsn), "test")


@pytest.mark.parametrize(
    ("message", "line"),
    [
        (
            "port 1 failed: Connection refused\n\tIs the server running on that host?\n",
            "port 1 failed: Connection refused; Is the server running on that host?",
        ),
        (
            "All failures were:\n- host: one\n- host: two",
            "All failures were: - host: one; - host: two",
        ),
        ("it failed.\n\nTry again, please", "it failed. Try again, please"),
        ("one line", "one line"),
        ("", ""),
    ],
)
def test_error_of_several_lines_becomes_one_line(message: str, line: str) -> None:
    assert one_line(psycopg.OperationalError(message)) == line
