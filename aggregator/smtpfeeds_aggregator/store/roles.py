"""Database roles with only the privileges of one part of smtpfeeds.

The owner of the tables can do everything and runs `migrate`. The parts are:

    ingest     stores batches, deletes old rows, watches the clock
    publish    reads what it publishes, writes back origins, lists and the last summary
    read       reads all tables

The roles are recorded, so that `migrate` can grant what a later version needs.
"""

from datetime import datetime
from enum import StrEnum
from typing import Final, NamedTuple

from smtpfeeds_common.errors import SettingsError

from .connection import Connection
from .errors import database_errors
from .sql import queries


class RolePart(StrEnum):
    """The purpose of a role."""

    INGEST = "ingest"
    PUBLISH = "publish"
    READ = "read"


#: The file with the statements of each part.
_FILES: Final = {
    RolePart.INGEST: "roles.sql",
    RolePart.PUBLISH: "roles.sql",
    RolePart.READ: "readers.sql",
}


class GrantedRole(NamedTuple):
    """A role with the privileges of a part."""

    part: str
    role: str
    granted_at: datetime
    #: Whether PostgreSQL still has the role.
    exists: bool


def grant_part(connection: Connection, part: RolePart, role: str) -> None:
    """Grant a role the privileges of a part, and record it.

    Raises:
        SettingsError: there is no such role, or it owns the tables.
    """
    with database_errors(), connection.transaction():
        _check(connection, role)
        _execute(connection, part, "grants", role)
        connection.execute(queries("roles.sql")["note_role"], {"role": role, "part": part})


def revoke_parts(connection: Connection, role: str) -> None:
    """Revoke all privileges of all parts from a role.

    Raises:
        SettingsError: there is no such role, or it owns the tables.
    """
    with database_errors(), connection.transaction():
        _check(connection, role)
        for part in (RolePart.READ, RolePart.INGEST):
            _execute(connection, part, "revokes", role)
        connection.execute(queries("roles.sql")["forget_role"], {"role": role})


def renew_grants(connection: Connection) -> list[GrantedRole]:
    """Grant each recorded role what it needs with this schema.

    Only the owner of the tables can grant; for another role this does nothing.

    Returns:
        The roles with renewed grants.
    """
    with database_errors():
        row = connection.execute(queries("roles.sql")["owns_tables"]).fetchone()
    if row is None or not row[0]:
        return []
    roles = [each for each in granted_roles(connection) if each.exists]
    for each in roles:
        with database_errors(), connection.transaction():
            _execute(connection, RolePart(each.part), "grants", each.role)
    return roles


def granted_roles(connection: Connection) -> list[GrantedRole]:
    """Return all recorded roles, by part and name."""
    with database_errors():
        rows = connection.execute(queries("roles.sql")["roles"]).fetchall()
    return [GrantedRole(*row) for row in rows]


def _check(connection: Connection, role: str) -> None:
    row = connection.execute(queries("roles.sql")["role_exists"], {"role": role}).fetchone()
    assert row is not None
    exists, owner, database = row
    if role == owner:
        raise SettingsError(f"{role} owns the tables of {database}; name another role")
    if not exists:
        raise SettingsError(
            f"PostgreSQL has no role {role!r}: its administrator can create it with "
            f"`createuser {role}`"
        )


def _execute(connection: Connection, part: RolePart, query: str, role: str) -> None:
    sql = queries(_FILES[part])[query].encode()
    for (statement,) in connection.execute(sql, {"role": role, "part": part}).fetchall():
        connection.execute(statement.encode())
