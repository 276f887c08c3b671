"""Connections to PostgreSQL, and what its errors mean to the rest of the program.

It stands alone so that nothing outside of ``store`` knows psycopg: callers see
``DatabaseUnavailable`` (hold, try again), ``DatabaseTimeout`` (so too, and with less
at a time), ``BadRows`` (this data will never be taken) and ``TransactionConflict``
(the same transaction again).

A network that is cut between two packets says nothing, so every connection has
keepalives and a bound on unacknowledged data; a server that loses its client
the same way ends our transaction and with it the locks. A peer that answers
keepalives and nothing else is given up after ``database_timeout_s``.
"""

import contextlib
import logging
import re
from collections.abc import Iterator, Mapping
from typing import Any, Final

import psycopg
from psycopg import conninfo, errors

from smtpfeeds_common.errors import BadRows, DatabaseError, DatabaseUnavailable, SettingsError
from smtpfeeds_common.logs import fields
from smtpfeeds_common.settings import read_secret

from ..settings import AggregatorSettings
from .limited import LimitedConnection, ServerSilent

logger = logging.getLogger(__name__)

Connection = LimitedConnection

#: What a DSN may override. Seconds, or milliseconds where libpq says so.
_DEFAULTS: Final[Mapping[str, str]] = {
    "connect_timeout": "10",
    "keepalives_idle": "10",
    "keepalives_interval": "5",
    "keepalives_count": "3",
    "tcp_user_timeout": "30000",
}
#: What the server does where its client fell silent in the middle of a transaction.
_SESSION: Final[Mapping[str, str]] = {
    "idle_in_transaction_session_timeout": "60s",
    "tcp_keepalives_idle": "10",
    "tcp_keepalives_interval": "5",
    "tcp_keepalives_count": "3",
}

#: For the first questions of a connection that has no limit of its own.
_SET_UP_S: Final = 60.0
#: The server's limit of a statement is a little less than ours: it is the better witness, and
#: gives the locks back at once. It does not count in a commit, which may wait for a standby.
_SERVER_PART: Final = 0.8

#: SQLSTATE classes: cardinality violation, data exception, integrity constraint violation.
_BAD_DATA: Final = ("21", "22", "23")
#: serialization_failure, deadlock_detected.
_CONFLICTS: Final = ("40001", "40P01")
#: A line that already ended in punctuation needs no more of it.
_PUNCTUATED: Final = re.compile("([.,:;?!]);(?= )")
#: query_canceled: by ``statement_timeout``, or by an administrator who found it too slow.
_CANCELED: Final = "57014"
#: libpq hands out no SQLSTATE for a connection that is refused, only the server's words.
_REFUSED: Final = re.compile(
    r"(password|Peer|certificate|SASL) authentication failed|no password supplied"
    r"|no pg_hba\.conf entry"
    r'|(database|role) "[^"]*" does not exist|permission denied for database'
    r"|certificate verify failed|does not support SSL|not permitted to log in"
)


class TransactionConflict(DatabaseUnavailable):
    """PostgreSQL chose this transaction to give way to another; run it again."""


class DatabaseTimeout(DatabaseUnavailable):
    """The database did not do in time what it was asked."""


class DatabaseRefused(DatabaseUnavailable):
    """The server is there, and does not take this account or has no such database."""


def connect(
    settings: AggregatorSettings,
    purpose: str,
    *,
    autocommit: bool = False,
    limit_s: float | None = None,
) -> Connection:
    """Open a connection.

    Args:
        settings: tells the DSN and the password's file.
        purpose: what the server shows in ``pg_stat_activity`` after ``smtpfeeds``.
        autocommit: each statement a transaction of its own.
        limit_s: how long a statement may take, here and in the server; None: as long as it does.

    Raises:
        SettingsError: no DSN, or it cannot be read.
        DatabaseRefused: a server refuses the DSN; where its messages are not in English this
            cannot be told, and is the next.
        DatabaseUnavailable: no server takes the connection.
    """
    parameters = connection_parameters(settings, purpose)
    with database_errors():
        connection = _open(parameters)
        try:
            _set_up(connection, limit_s)
        except BaseException:
            connection.close()
            raise
        connection.autocommit = autocommit
    return connection


def _open(parameters: dict[str, Any]) -> Connection:
    try:
        return Connection.connect(**parameters, autocommit=True)
    except psycopg.OperationalError as exc:
        said = one_line(exc)
        if _REFUSED.search(said):
            raise DatabaseRefused(
                f"the database refuses the connection: {said}; check dsn and dsn_password_file"
            ) from exc
        raise


def connection_parameters(settings: AggregatorSettings, purpose: str) -> dict[str, Any]:
    """What a connection is opened with: the DSN, over our defaults.

    Raises:
        SettingsError: no DSN, or it cannot be read.
    """
    if not settings.dsn:
        raise SettingsError(
            "the setting 'dsn' is missing (which PostgreSQL to use): give it in a settings file "
            "(--config FILE) or as SMTPFEEDS_AGGREGATOR_DSN"
        )
    try:
        given = conninfo.conninfo_to_dict(settings.dsn)
    except psycopg.ProgrammingError as exc:
        said = one_line(exc)
        raise SettingsError(f"dsn: this is not a libpq connection string or URL: {said}") from exc
    password = read_secret("", settings.dsn_password_file, name="dsn_password_file")
    parameters: dict[str, Any] = {
        **_DEFAULTS,
        "application_name": f"smtpfeeds {purpose}",
        **given,
    }
    if password and "password" not in given:
        parameters["password"] = password
    return parameters


def _set_up(connection: Connection, limit_s: float | None) -> None:
    connection.limit_s = _SET_UP_S if limit_s is None else limit_s
    connection.execute("SET TIME ZONE 'UTC'")
    wanted = dict(_SESSION)
    if limit_s is not None:
        wanted["statement_timeout"] = f"{limit_s * _SERVER_PART * 1000:.0f}ms"
    connection.execute(
        "SELECT set_config(name, value, false)"
        " FROM unnest(%s::text[], %s::text[]) AS wanted (name, value)",
        (list(wanted), list(wanted.values())),
    )
    row = connection.execute("SHOW synchronous_commit").fetchone()
    if row == ("off",):
        # What is acknowledged to the broker must outlive the server's next crash.
        logger.warning("synchronous_commit is off on this server; switched on for this connection")
        connection.execute("SET synchronous_commit TO on")
    connection.limit_s = limit_s


@contextlib.contextmanager
def database_errors() -> Iterator[None]:
    """Translate psycopg's errors to ours.

    Raises:
        BadRows: the data itself is refused.
        TransactionConflict: the same transaction may pass when run again.
        DatabaseTimeout: it took too long.
        DatabaseUnavailable: anything else; the data is not to blame.
    """
    try:
        yield
    except psycopg.Error as exc:
        raise translate(exc) from exc


def translate(exc: psycopg.Error) -> DatabaseError:
    """What an error of psycopg means to us."""
    state = exc.sqlstate or ""
    said = one_line(exc)
    if state[:2] in _BAD_DATA or (not state and isinstance(exc, errors.DataError)):
        return BadRows(f"the database refuses the data: {said} (SQLSTATE {state or 'none'})")
    if state in _CONFLICTS:
        return TransactionConflict(f"another transaction was in the way: {said}")
    silent = _silence(exc)
    if silent is not None or state == _CANCELED:
        return DatabaseTimeout(f"the database takes too long: {silent or said}")
    return DatabaseUnavailable(f"the database cannot be used now: {said or type(exc).__name__}")


def _silence(exc: BaseException | None) -> ServerSilent | None:
    """The silence that led to an error: what cleans up after it may meet another."""
    while exc is not None and not isinstance(exc, ServerSilent):
        exc = exc.__cause__ or exc.__context__
    return exc


def one_line(exc: BaseException) -> str:
    """What an error says, in one line: libpq gives each of its sentences a line of its own."""
    lines = [" ".join(line.split()) for line in str(exc).splitlines()]
    said = "; ".join(line for line in lines if line)
    return _PUNCTUATED.sub(r"\1", said)


def discard(connection: Connection | None) -> None:
    """Close a connection that may be broken; never raises."""
    if connection is not None:
        with contextlib.suppress(psycopg.Error, OSError):
            connection.close()
            logger.debug("connection closed", extra=fields())
