"""`smtpfeeds aggregator roles`: database roles that may do what one part needs, and no more."""

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from smtpfeeds_common.answers import Form, format_options, write_records
from smtpfeeds_common.columns import Column
from smtpfeeds_common.errors import SettingsError

from .database import connected
from .options import EXIT_CODES, database_options

if TYPE_CHECKING:
    from ..settings import AggregatorSettings

#: Readable by the file's group: the users of the role are put into it.
_MODE: Final = 0o640
_COLUMNS: Final = (
    Column("part", least=7),
    Column("role", least=12),
    Column("granted_at", "time", "when it was granted"),
    Column("exists", "boolean", "whether PostgreSQL still has the role"),
)


@click.group("roles", short_help="Database roles for ingest, publication and reading.")
def roles() -> None:
    """Let database roles do what one part of smtpfeeds needs, and no more.

    Run these commands as the owner of the tables, who also runs `migrate`. The part `ingest` stores
    batches and deletes old rows; `publish` reads what is published and writes back origins and the
    last summary; `read` reads all tables.
    """


@roles.command("grant", short_help="Give a role what a part needs.")
@click.argument("part", type=click.Choice(["ingest", "publish", "read"]))
@click.argument("role")
@click.option(
    "--write-settings",
    "file",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Write a settings file with the role's DSN, such as /etc/smtpfeeds/query.toml for "
    "analysts.",
)
@click.option("--role-dsn", help="The DSN to write into it; without a password.")
@database_options
def grant(
    settings: "AggregatorSettings", part: str, role: str, file: Path | None, role_dsn: str | None
) -> None:
    """Give ROLE the privileges that PART needs; `migrate` renews them for later versions.

    PostgreSQL's administrator creates the role. Set `dsn` of the aggregator to the role of ingest
    and `publish_dsn` to the role of publication. Users who can read neither owner.toml nor
    aggregator.toml in /etc/smtpfeeds use query.toml.

    \b
    Examples:
      smtpfeeds aggregator roles grant ingest smtpfeeds_ingest
      smtpfeeds aggregator roles grant read analysts --write-settings /etc/smtpfeeds/query.toml \\
          --role-dsn "host=db.example.net dbname=smtpfeeds user=analysts"
    """
    from ..store.roles import RolePart, grant_part

    if (file is None) != (role_dsn is None):
        raise SettingsError("--write-settings and --role-dsn go together")
    with connected(settings, write=True) as connection:
        grant_part(connection, RolePart(part), role)
    click.echo(f"{role} may {part}")
    if file is not None and role_dsn is not None:
        _write(file, part, role_dsn)
        click.echo(f"wrote {file}: let the group of its users read it")


@roles.command("revoke", short_help="Revoke all privileges of a role.")
@click.argument("role")
@database_options
def revoke(settings: "AggregatorSettings", role: str) -> None:
    """Revoke all privileges of ROLE on the tables, of all its parts.

    \b
    Example:
      smtpfeeds aggregator roles revoke smtpfeeds_ingest
    """
    from ..store.roles import revoke_parts

    with connected(settings, write=True) as connection:
        revoke_parts(connection, role)
    click.echo(f"{role} has no privileges any more")


@roles.command("list", epilog=EXIT_CODES, short_help="List the roles and their parts.")
@format_options(_COLUMNS)
@database_options
def list_roles(settings: "AggregatorSettings", form: Form) -> None:
    """List the roles that were granted a part.

    \b
    Example:
      smtpfeeds aggregator roles list
    """
    from ..store.roles import granted_roles

    with connected(settings) as connection:
        records = [each._asdict() for each in granted_roles(connection)]
    write_records(records, form, "no role was granted a part")


def _write(file: Path, part: str, dsn: str) -> None:
    """Write a new settings file.

    Raises:
        SettingsError: the file exists, or cannot be written.
    """
    quoted = json.dumps(dsn, ensure_ascii=False)  # TOML escapes as JSON does
    try:
        descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, _MODE)
        with os.fdopen(descriptor, "w", encoding="utf-8") as stream:
            stream.write(f"# A database role with the privileges of `{part}`.\ndsn = {quoted}\n")
    except OSError as exc:
        raise SettingsError(f"cannot write {file}: {exc.strerror}") from exc
