"""Choose where a command's answers come from: the database, or published files (`--from`).

With `--from` no settings are read and nothing of the database is imported.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeVar

import click

from smtpfeeds_common.answers import note
from smtpfeeds_common.errors import SettingsError
from smtpfeeds_common.times import row_time

from .database import connected
from .options import CONFIG, DSN, FOLDER, database_settings, refuse_database

if TYPE_CHECKING:
    from ..publish.entries import Entry
    from ..query.address_set import AddressSet
    from ..query.published.places import Published
    from ..settings import AggregatorSettings
    from ..store.connection import Connection

F = TypeVar("F", bound=Callable[..., Any])


class Source(NamedTuple):
    """The source that the options name; it opens nothing by itself."""

    #: What `--from` names; None: the database.
    published_in: str | None
    key: str | None
    config: Path | None
    dsn: str | None
    folder: Path | None

    @property
    def is_published(self) -> bool:
        """Return whether published files are read, not the database."""
        return self.published_in is not None

    def published(self) -> "Published":
        """Open the published files; each file is verified when it is read."""
        assert self.published_in is not None
        return published(self.published_in, self.key)

    @contextmanager
    def entries(self, feeds: Sequence[str]) -> "Iterator[Iterator[Entry]]":
        """Yield the rows of feeds as they are published, or would be now."""
        if self.is_published:
            yield self.published().entries(feeds)
            return
        from ..query.feed import FeedNow, FeedSelection
        from ..store.publication import PublicationStore

        with self.connected() as (settings, connection):
            now = FeedNow(settings, PublicationStore(connection), FeedSelection(feed=feeds[0]))
            yield now.every_feed(feeds)

    def addresses(self, feeds: Sequence[str]) -> "AddressSet":
        """Return only the addresses of those rows."""
        if self.is_published:
            return self.published().addresses(feeds)
        from ..query.stored_addresses import stored_addresses
        from ..store.publication import PublicationStore

        with self.connected() as (settings, connection):
            return stored_addresses(settings, PublicationStore(connection), feeds)

    @contextmanager
    def connected(self) -> "Iterator[tuple[AggregatorSettings, Connection]]":
        """Open a connection; a statement may take as long as one of publishing."""
        with (
            database_settings(self.config, self.dsn, self.folder) as settings,
            connected(settings, long=True) as connection,
        ):
            yield settings, connection


def published(place: str, key: str | None) -> "Published":
    """Open published files and verify their manifest; write a note if the edition has expired."""
    from ..query.published.places import open_published, past_words

    now = datetime.now(UTC)
    public = None
    if key is not None:
        from ..publish.signing import PublicKey

        public = PublicKey.parse(key)
    files = open_published(place, public, now=now)
    if files.edition is None:
        note(f"note: {place} has no manifest beside it, so it is not verified")
    elif files.is_past(now):
        note(past_words(files))
    return files


def last_seen_within(
    entries: "Iterable[Entry]", since: datetime | None, until: datetime | None
) -> "Iterator[Entry]":
    """Yield the entries last seen from one time to before another."""
    begin, end = (None if time is None else row_time(time.timestamp()) for time in (since, until))
    for entry in entries:
        if (begin is None or entry.last_seen >= begin) and (end is None or entry.last_seen < end):
            yield entry


#: A shell completes it as a file name; opening it checks whether it can be read.
PLACE: Final = click.Path(readable=False, allow_dash=True)

FROM: Final = click.option(
    "--from",
    "published_in",
    type=PLACE,
    metavar="DIR|FILE|URL",
    help="Read published files, and not the database.",
)
KEY: Final = click.option(
    "--key",
    type=PLACE,
    metavar="KEY|FILE",
    help="The publisher's public key, for --from: RW…, or a file that holds it.",
)


def check_key(published_in: str | None, key: str | None) -> None:
    """Refuse a key that would verify nothing.

    Raises:
        SettingsError: `--key` without `--from`.
    """
    if published_in is None and key is not None:
        raise SettingsError("--key verifies published files: give --from too")


def source_options(command: F) -> F:
    """Add the options that select the source of answers, and pass the command the `source`."""

    @FROM
    @KEY
    @CONFIG
    @DSN
    @FOLDER
    @wraps(command)
    def with_source(
        *args: Any,
        published_in: str | None,
        key: str | None,
        config: Path | None,
        dsn: str | None,
        folder: Path | None,
        **kwargs: Any,
    ) -> Any:
        check_key(published_in, key)
        if published_in is not None:
            refuse_database(config, dsn, folder)
        source = Source(published_in, key, config, dsn, folder)
        return command(*args, source=source, **kwargs)

    return with_source  # type: ignore[return-value]  # click's options change the signature
