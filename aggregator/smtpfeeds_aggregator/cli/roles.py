"""`smtpfeeds aggregator roles`: database roles that may do what one part needs, and no more."""

from typing import TYPE_CHECKING

import click

from smtpfeeds_common.answers import Form, format_options, write_records
from smtpfeeds_common.columns import Column

from .database import connected
from .options import EXIT_CODES, database_options

if TYPE_CHECKING:
    from ..settings import AggregatorSettings

_COLUMNS = (
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
@database_options
def grant(settings: "AggregatorSettings", part: str, role: str) -> None:
    """Give ROLE the privileges that PART needs; `migrate` renews them for later versions.

    PostgreSQL's administrator creates the role. Set `dsn` of the aggregator to the role of ingest
    and `publish_dsn` to the role of publication.

    \b
    Example:
      smtpfeeds aggregator roles grant ingest smtpfeeds_ingest
    """
    from ..store.roles import RolePart, grant_part

    with connected(settings, write=True) as connection:
        grant_part(connection, RolePart(part), role)
    click.echo(f"{role} may {part}")


@roles.command("revoke", short_help="Take all of it from a role.")
@click.argument("role")
@database_options
def revoke(settings: "AggregatorSettings", role: str) -> None:
    """Revoke all privileges of ROLE on the tables.

    \b
    Example:
      smtpfeeds aggregator roles revoke smtpfeeds_ingest
    """
    from ..store.roles import revoke_parts

    with connected(settings, write=True) as connection:
        revoke_parts(connection, role)
    click.echo(f"{role} may do nothing any more")


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
