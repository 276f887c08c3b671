"""Roles that may read what is stored and write nothing."""

from smtpfeeds_common.errors import SettingsError

from .connection import Connection
from .errors import database_errors
from .sql import queries


def let_read(connection: Connection, role: str) -> None:
    """Let a role read all tables, those of later versions too.

    Raises:
        SettingsError: there is no such role, or it is the tables' owner.
    """
    _run(connection, "grants", role)


def forbid_reading(connection: Connection, role: str) -> None:
    """Take it back.

    Raises:
        SettingsError: there is no such role, or it is the tables' owner.
    """
    _run(connection, "revokes", role)


def _run(connection: Connection, query: str, role: str) -> None:
    sql = {name: text.encode() for name, text in queries("readers.sql").items()}
    with database_errors(), connection.transaction():
        row = connection.execute(sql["role_exists"], {"role": role}).fetchone()
        assert row is not None
        exists, owner, database = row
        if role == owner:
            raise SettingsError(f"{role} owns the tables of {database}; name a role for readers")
        if not exists:
            raise SettingsError(
                f"PostgreSQL has no role {role!r}: its administrator can create it with "
                f"`createuser {role}`"
            )
        for (statement,) in connection.execute(sql[query], {"role": role}).fetchall():
            connection.execute(statement.encode())
