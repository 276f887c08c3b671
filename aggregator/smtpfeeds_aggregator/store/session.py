"""Sets up a session of PostgreSQL, and refuses servers that cannot be used.

This is the one list of the settings that smtpfeeds relies on. An operator's server,
database, account, DSN or environment may have other values, for good reasons of other
programs, so a session sets all of them itself. What a session cannot set is refused,
with advice: a server that is too old, a search_path without a schema, and a pooler in
transaction mode, which gives each transaction another session.
"""

import logging
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Final, NamedTuple

import psycopg

from smtpfeeds_common.logs import fields

from .errors import DatabaseUnsuitable
from .limited import LimitedConnection
from .sql import queries

logger = logging.getLogger(__name__)

#: The first version with multiranges, in which applied batches are stored.
_OLDEST_SERVER: Final = 14_00_00
_SUPPORTED: Final = "15"

_SETTINGS: Final[Mapping[str, str]] = {
    # psycopg parses times, intervals, numbers and texts only in these formats.
    "DateStyle": "ISO, YMD",
    "IntervalStyle": "postgres",
    "TimeZone": "UTC",
    "client_encoding": "UTF8",
    "bytea_output": "hex",
    "extra_float_digits": "1",
    # For the project's SQL, and for arrays with NULL that psycopg sends.
    "standard_conforming_strings": "on",
    "array_nulls": "on",
    # A statement after a lock must see what was committed before it.
    "default_transaction_isolation": "read committed",
    "default_transaction_deferrable": "off",
    # No other limits: statement_timeout has its own value, and a session may be idle for hours.
    "lock_timeout": "0",
    "idle_session_timeout": "0",
    "transaction_timeout": "0",
    # The server ends a transaction whose client is lost.
    "idle_in_transaction_session_timeout": "60s",
    # The locks of a killed client are released even during a long statement.
    "client_connection_check_interval": "2s",
    "tcp_keepalives_idle": "10",
    "tcp_keepalives_interval": "5",
    "tcp_keepalives_count": "3",
    # Statements are short and run thousands of times, so JIT compilation costs more than it saves.
    "jit": "off",
    "plan_cache_mode": "auto",
}

#: Limit of the second session that is opened to recognise a pooler.
_SECOND_SESSION_S: Final = 5.0
#: Two rounds of both sessions suffice for a pooler that assigns its sessions in turn.
_ROUNDS: Final = 2


class _NewSession(NamedTuple):
    """The values of a new session, before anything is set."""

    pid: int
    schema: str | None
    search_path: str
    synchronous_commit: str
    encoding: str


def begin_session(
    connection: LimitedConnection,
    *,
    statement_timeout_s: float | None,
    read_only: bool,
    open_another: Callable[[], LimitedConnection],
) -> None:
    """Set up the session of a new connection in autocommit mode.

    Args:
        connection: nothing was set in it yet.
        statement_timeout_s: how long a statement may take in the server; None: no limit.
        read_only: the server must refuse writes.
        open_another: opens a second connection in the same way.

    Raises:
        DatabaseUnsuitable: it cannot be used; the message says what to do.
    """
    _refuse_old_server(connection)
    row = connection.execute(queries("session.sql")["look"], prepare=False).fetchone()
    assert row is not None
    seen = _NewSession(*row)
    # Check before anything is set: such a pooler would apply it to other programs' sessions.
    if connection.info.backend_pid != seen.pid:
        _refuse_shared_sessions(connection, seen.pid, open_another)
    if seen.schema is None:
        raise DatabaseUnsuitable(
            "the database has no schema for smtpfeeds' tables: none of this account's search_path "
            f"({seen.search_path or 'empty'}) exists; set it, for example with ALTER ROLE "
            f"smtpfeeds SET "
            "search_path = public"
        )
    wanted = {
        **_SETTINGS,
        "search_path": seen.schema,
        "statement_timeout": f"{(statement_timeout_s or 0) * 1000:.0f}",
        "default_transaction_read_only": "on" if read_only else "off",
    }
    if seen.synchronous_commit == "off":
        # A batch that is acknowledged to the broker must survive a crash of the server.
        logger.warning("synchronous_commit is off on this server; on for this connection")
        wanted["synchronous_commit"] = "on"
    connection.execute(
        queries("session.sql")["set_up"], {"names": [*wanted], "values": [*wanted.values()]}
    )
    logger.debug("session set up", extra=fields(schema=seen.schema, encoding=seen.encoding))


def _refuse_old_server(connection: LimitedConnection) -> None:
    version = connection.info.server_version
    if version < _OLDEST_SERVER:
        raise DatabaseUnsuitable(
            f"the database server is PostgreSQL {version // 10_000}; smtpfeeds needs "
            f"{_SUPPORTED} or newer: upgrade it, or give the DSN of a newer one"
        )


def _refuse_shared_sessions(
    connection: LimitedConnection, pid: int, open_another: Callable[[], LimitedConnection]
) -> None:
    """Refuse a pooler that gives each transaction another session.

    A pooler is recognised by the invented process id that it sends to clients. In session mode a
    client keeps its server process, and no other client has the same.

    Raises:
        DatabaseUnsuitable: two clients share a server process, or one client changes it.
    """
    with suppress(psycopg.OperationalError), open_another() as second:
        # In session mode a pool may have no second session free, and wait.
        second.limit_s = _SECOND_SESSION_S
        for _ in range(_ROUNDS):
            theirs = _session_pid(second)
            ours = {_session_pid(connection), _session_pid(connection)}
            if ours != {pid} or theirs == pid:
                raise DatabaseUnsuitable(
                    "the pooler in front of the database gives each transaction another session "
                    "(transaction mode), and smtpfeeds keeps locks and a temporary table in its "
                    "session: give the DSN of PostgreSQL itself, or set the pooler to session mode "
                    "for it (pgbouncer: pool_mode=session in its line of [databases])"
                )


def _session_pid(connection: LimitedConnection) -> int:
    row = connection.execute(queries("session.sql")["session_pid"], prepare=False).fetchone()
    assert row is not None
    return int(row[0])
