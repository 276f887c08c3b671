"""Database roles with the privileges of one part of smtpfeeds, and no others.

The owner of the tables can do everything and runs `migrate`. The parts are:

    ingest     stores batches, retires old rows, watches the clock
    publish    reads what is published, writes back origins, lists and the last summary
    read       reads all tables

The roles are recorded, so that `migrate` also grants what a later version needs.
"""

from datetime import datetime
from enum import StrEnum
from typing import Final, NamedTuple

from smtpfeeds_common.errors import SettingsError

from .connection import Connection
from .errors import database_errors
from .sql import queries


class RolePart(StrEnum):
    """What a role is for."""

    INGEST = "ingest"
    PUBLISH = "publish"
    READ = "read"


#: Where the statements of a part are.
_FILES: Final = {
    RolePart.INGEST: "roles.sql",
    RolePart.PUBLISH: "roles.sql",
    RolePart.READ: "readers.sql",
}


class GrantedRole(NamedTuple):
    """A role that has a part."""

    part: str
    role: str
    granted_at: datetime
    #: False: PostgreSQL no longer has it.
    exists: bool


def grant_part(connection: Connection, part: RolePart, role: str) -> None:
    """Give a role the privileges of a part, and record that it has them.

    Raises:
        SettingsError: there is no such role, or it owns the tables.
    """
    with database_errors(), connection.transaction():
        _check(connection, role)
        _execute(connection, part, "grants", role)
        connection.execute(queries("roles.sql")["note_role"], {"role": role, "part": part})


def revoke_parts(connection: Connection, role: str) -> None:
    """Take all privileges of all parts from a role.

    Raises:
        SettingsError: there is no such role, or it owns the tables.
    """
    with database_errors(), connection.transaction():
        _check(connection, role)
        for part in (RolePart.READ, RolePart.INGEST):
            _execute(connection, part, "revokes", role)
        connection.execute(queries("roles.sql")["forget_role"], {"role": role})


def renew_grants(connection: Connection) -> list[GrantedRole]:
    """Grant again what each recorded role needs with this schema.

    Only the owner of the tables can, and only the owner changes them: another role does nothing.

    Returns:
        The roles that were granted it.
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
    """All recorded roles, by part and name."""
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
