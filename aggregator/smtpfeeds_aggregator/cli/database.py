"""Open a connection for one command, check the schema, and allow writes only if needed."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from smtpfeeds_common.errors import SettingsError
from smtpfeeds_common.garbage import no_garbage

if TYPE_CHECKING:
    from ..settings import AggregatorSettings
    from ..store.connection import Connection
    from .access import Access


class NoDatabase(SettingsError):
    """Nothing names the database."""


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
        raise NoDatabase
    limit_s = settings.database_timeout_s * (10 if long else 1)
    connection = connect(settings, "query", autocommit=True, limit_s=limit_s, read_only=not write)
    try:
        check_schema(connection, write=write)
        yield connection
    finally:
        discard(connection)
