"""Opens connections to PostgreSQL, with defaults for the DSN and a limit for every wait.

A cut network sends no error, so every connection has keepalives and a bound on
unacknowledged data. A server that loses its client in this way ends the transaction and
releases its locks. A peer that answers only keepalives is disconnected after
``database_timeout_s``. `session` has the settings of a session, `errors` the meaning of
errors.
"""

import contextlib
import logging
import re
from collections.abc import Mapping
from typing import Any, Final, Protocol

import psycopg

from smtpfeeds_common.errors import DsnError
from smtpfeeds_common.logs import fields

from .dsn import parse_dsn
from .errors import DatabaseRefused, one_line, session_errors
from .limited import LimitedConnection
from .session import begin_session

logger = logging.getLogger(__name__)

Connection = LimitedConnection


class ConnectionSettings(Protocol):
    """What a connection needs of the settings."""

    @property
    def dsn(self) -> str:
        """A libpq connection string or URL."""
        ...

    @property
    def dsn_password_file(self) -> str:
        """A file whose first line is the password, if the DSN has none."""
        ...


#: Defaults that a DSN may override. Seconds; `tcp_user_timeout` is in milliseconds.
_DEFAULTS: Final[Mapping[str, str]] = {
    "connect_timeout": "10",
    "keepalives_idle": "10",
    "keepalives_interval": "5",
    "keepalives_count": "3",
    "tcp_user_timeout": "30000",
}
#: Limit of the set-up statements on a connection without a limit.
_SET_UP_S: Final = 60.0
#: The server's statement_timeout is shorter than the client's limit, so that the server reports
#: the timeout and releases the locks at once. It does not apply to COMMIT, which may wait for a
#: standby.
_SERVER_PART: Final = 0.8

#: libpq gives no SQLSTATE for a refused connection, only the server's message.
_REFUSED: Final = re.compile(
    r"(password|Peer|certificate|SASL) authentication failed|no password supplied"
    r"|no pg_hba\.conf entry"
    r'|(database|role) "[^"]*" does not exist|permission denied for database'
    r"|certificate verify failed|does not support SSL|not permitted to log in"
    # Errors of libpq itself, about a value in the DSN or a file that it names.
    r"|invalid (\w+ )?value|invalid port number|root certificate file .* does not exist"
)


def connect(
    settings: ConnectionSettings,
    purpose: str,
    *,
    autocommit: bool = False,
    limit_s: float | None = None,
    read_only: bool = False,
) -> Connection:
    """Open a connection.

    Args:
        settings: has the DSN and the password's file.
        purpose: follows ``smtpfeeds`` in the application_name of ``pg_stat_activity``.
        autocommit: run each statement in its own transaction.
        limit_s: how long a statement may take, here and in the server; None: no limit.
        read_only: the server refuses writes.

    Raises:
        SettingsError: there is no DSN, or it cannot be parsed or used.
        DatabaseRefused: a server refuses the DSN. This is recognised by messages in English;
            with other languages DatabaseUnavailable is raised.
        DatabaseUnsuitable: the server, or a pooler in front of it, cannot be used.
        DatabaseUnavailable: no server accepts the connection.
    """
    parameters = connection_parameters(settings, purpose)
    with session_errors():
        connection = _open(parameters)
        try:
            connection.limit_s = _SET_UP_S if limit_s is None else limit_s
            begin_session(
                connection,
                statement_timeout_s=None if limit_s is None else limit_s * _SERVER_PART,
                read_only=read_only,
                open_another=lambda: _open(parameters),
            )
        except BaseException:
            connection.close()
            raise
        connection.limit_s = limit_s
        connection.autocommit = autocommit
    return connection


def _open(parameters: dict[str, Any]) -> Connection:
    try:
        return Connection.connect(**parameters, autocommit=True)
    except psycopg.ProgrammingError as exc:
        raise DsnError(f"dsn: {one_line(exc)}") from exc
    except psycopg.OperationalError as exc:
        text = one_line(exc)
        if _REFUSED.search(text):
            raise DatabaseRefused(
                f"the database refuses the connection: {text}; check dsn and dsn_password_file"
            ) from exc
        raise


def connection_parameters(settings: ConnectionSettings, purpose: str) -> dict[str, Any]:
    """Return the parameters of a connection: the DSN, and defaults that it may override.

    Raises:
        SettingsError: there is no DSN, or it cannot be parsed.
    """
    if not settings.dsn:
        from smtpfeeds_common.settings import missing

        raise missing("dsn", "which PostgreSQL to use", program="aggregator")
    given = parse_dsn(settings.dsn)
    password = ""
    if settings.dsn_password_file:
        from smtpfeeds_common.settings import read_secret

        password = read_secret("", settings.dsn_password_file, name="dsn_password_file")
    parameters: dict[str, Any] = {
        **_DEFAULTS,
        "application_name": f"smtpfeeds {purpose}",
        **given,
        # Set here, because account, password and database are sent before a session is set up.
        "client_encoding": "UTF8",
    }
    if password and "password" not in given:
        parameters["password"] = password
    return parameters


def discard(connection: Connection | None) -> None:
    """Close a connection that may be broken; never raises."""
    if connection is not None:
        with contextlib.suppress(psycopg.Error, OSError):
            connection.close()
            logger.debug("connection closed", extra=fields())
