"""Open a connection for one command, check the schema, and allow writes only if needed."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from smtpfeeds_common.config_option import usual_folder
from smtpfeeds_common.errors import SettingsError
from smtpfeeds_common.garbage import no_garbage

if TYPE_CHECKING:
    from ..settings import AggregatorSettings
    from ..store.connection import Connection
    from .access import Access


def no_database() -> SettingsError:
    """Return the error of a command for which nothing names the database."""
    return SettingsError(
        "which database? Give --dir DIR of `smtpfeeds up`, --config FILE or --dsn DSN, or set "
        "SMTPFEEDS_DIR or SMTPFEEDS_AGGREGATOR_DSN. Without them a command reads owner.toml, "
        f"aggregator.toml and query.toml in {usual_folder()}: this user can read none of them, or "
        "they name no database"
    )


@contextmanager
def connected(
    settings: "AggregatorSettings | Access", *, write: bool = False, long: bool = False
) -> "Iterator[Connection]":
    """Open a connection to the database of the settings, and check its schema.

    Args:
        settings: the database, and how long a statement may take.
        write: whether the command writes; otherwise the server refuses writes.
        long: whether a statement may take as long as one of publishing.
    """
    with no_garbage():
        from ..store.connection import connect, discard
        from ..store.migrations import check_schema

    if not settings.dsn:
        raise no_database()
    limit_s = settings.database_timeout_s * (10 if long else 1)
    connection = connect(settings, "query", autocommit=True, limit_s=limit_s, read_only=not write)
    try:
        check_schema(connection, write=write)
        yield connection
    finally:
        discard(connection)
