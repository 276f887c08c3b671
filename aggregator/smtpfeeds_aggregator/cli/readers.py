"""`smtpfeeds aggregator reader`: an account for analysts, which reads and never writes."""

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from smtpfeeds_common.errors import SettingsError

from .database import connected
from .options import database_options

if TYPE_CHECKING:
    from ..settings import AggregatorSettings

#: Its owner and group: analysts are put in the group.
_MODE: Final = 0o640


@click.group("reader", short_help="Give a database role read access, for analysts.")
def reader() -> None:
    """Give a database role read access and no write access, for analysts."""


@reader.command("add", short_help="Give a role read access.")
@click.argument("role")
@click.option(
    "--write-settings",
    "file",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Write a settings file for readers, such as /etc/smtpfeeds/query.toml.",
)
@click.option("--reader-dsn", help="The DSN to write into it; without a password.")
@database_options
def add(
    settings: "AggregatorSettings", role: str, file: Path | None, reader_dsn: str | None
) -> None:
    """Give ROLE read access to all tables, also those of later versions.

    PostgreSQL's administrator creates the role. Without options or variables, `query`, `filter` and
    `feed` read /etc/smtpfeeds/aggregator.toml, else query.toml.

    \b
    Examples:
      smtpfeeds aggregator reader add analysts
      smtpfeeds aggregator reader add analysts --write-settings /etc/smtpfeeds/query.toml \\
          --reader-dsn "host=db.example.net dbname=smtpfeeds user=analysts"
    """
    from ..store.roles import RolePart, grant_part

    if (file is None) != (reader_dsn is None):
        raise SettingsError("--write-settings and --reader-dsn go together")
    with connected(settings, write=True) as connection:
        grant_part(connection, RolePart.READ, role)
    click.echo(f"{role} may read, and write nothing")
    if file is not None and reader_dsn is not None:
        _write(file, reader_dsn)
        click.echo(f"wrote {file}: let the analysts' group read it")


@reader.command("remove", short_help="Revoke a role's read access.")
@click.argument("role")
@database_options
def remove(settings: "AggregatorSettings", role: str) -> None:
    """Revoke the read access of ROLE.

    \b
    Example:
      smtpfeeds aggregator reader remove analysts
    """
    from ..store.roles import revoke_parts

    with connected(settings, write=True) as connection:
        revoke_parts(connection, role)
    click.echo(f"{role} may no longer read")


def _write(file: Path, dsn: str) -> None:
    """Write the file again; who may read it, the administrator decides.

    Raises:
        SettingsError: it is there already, or cannot be written.
    """
    quoted = json.dumps(dsn, ensure_ascii=False)  # TOML escapes as JSON does
    try:
        descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, _MODE)
        with os.fdopen(descriptor, "w", encoding="utf-8") as stream:
            stream.write(f"# For analysts: an account that only reads.\ndsn = {quoted}\n")
    except OSError as exc:
        raise SettingsError(f"cannot write {file}: {exc.strerror}") from exc
