"""The commands that ask the database for addresses: `feed` and `query`.

Exit codes: 0 found; 1 nothing found, with a message on stderr; 2 wrong use; 3 could not be
asked, such as a database that is away.
What costs time to import, psycopg above all, is imported when a command runs.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

import click

from smtpfeeds_common.errors import DatabaseUnavailable, SettingsError
from smtpfeeds_common.feeds import FEED_NAMES, FEEDS

from .options import CONFIG, FOLDER, single_host_settings
from .serve import serve
from .verify import verify

if TYPE_CHECKING:
    from ..settings import AggregatorSettings
    from ..store.connection import Connection

#: After the help of each command here.
EXIT_CODES: Final = (
    "Exit codes: 0 found, 1 nothing found, 2 wrong use, 3 could not be asked, such as a database "
    "that is away."
)
_FEED_FORMATS: Final = ("table", "json", "ndjson", "csv", "text")
LIST_FORMATS: Final = ("table", "json", "ndjson", "csv")

F = TypeVar("F", bound=Callable[..., Any])


def database_options(command: F) -> F:
    """Add the options that say which database, and give the command the `settings` they make."""

    @CONFIG
    @click.option("--dsn", help="The database: a libpq connection string or URL.")
    @FOLDER
    @wraps(command)
    def with_settings(
        *args: Any, config: Path | None, dsn: str | None, folder: Path | None, **kwargs: Any
    ) -> Any:
        try:
            return command(*args, settings=_settings(config, dsn, folder), **kwargs)
        except DatabaseUnavailable as exc:
            if folder is None:
                raise
            raise DatabaseUnavailable(
                f"is `smtpfeeds up --dir {folder}` running? {exc.message}"
            ) from exc

    return with_settings  # type: ignore[return-value]  # click's options change the signature


def format_options(formats: tuple[str, ...]) -> Callable[[F], F]:
    """Add `--format` and `--json`, and give the command the `form` they say."""

    def decorate(command: F) -> F:
        @click.option(
            "--format",
            "form",
            type=click.Choice(formats),
            default="table",
            show_default=True,
            help="A table to read; else rows for programs"
            + ("; text: a published file's rows." if "text" in formats else "."),
        )
        @click.option("--json", "as_json", is_flag=True, help="The same as --format json.")
        @wraps(command)
        def with_form(*args: Any, form: str, as_json: bool, **kwargs: Any) -> Any:
            return command(*args, form="json" if as_json else form, **kwargs)

        return with_form  # type: ignore[return-value]  # click's options change the signature

    return decorate


def time_options(command: F) -> F:
    """Add `--since` and `--until`, read as times."""

    @click.option("--since", help="Last seen at this time or later: 2026-11-23T11:00Z, or 7d, 12h.")
    @click.option("--until", help="Last seen before this time.")
    @wraps(command)
    def with_times(*args: Any, since: str | None, until: str | None, **kwargs: Any) -> Any:
        begin, end = parsed_time(since), parsed_time(until)
        if begin is not None and end is not None and begin >= end:
            raise SettingsError(f"nothing is between --since {since} and --until {until}")
        return command(*args, since=begin, until=end, **kwargs)

    return with_times  # type: ignore[return-value]  # click's options change the signature


@click.group()
def feed() -> None:
    """List, show, serve and verify the feeds."""


@feed.command("list", epilog=EXIT_CODES, short_help="List the feeds.")
@format_options(LIST_FORMATS)
@database_options
def feed_list(settings: "AggregatorSettings", form: str) -> None:
    """List the feeds: what each reports, and how many addresses are stored of its window.

    What is left out when the feeds are published is counted here. Times are UTC.
    """
    from ..publish.snapshot import window_end, window_start
    from ..store.publication import PublicationStore
    from ..store.reading import ReadingStore
    from .output import FEED_COLUMNS, write_records

    with connected(settings) as connection:
        since = window_start(window_end(PublicationStore(connection).now()))
        held = {state.feed: state for state in ReadingStore(connection).feeds(since)}
    records = [
        {
            "feed": feed.name,
            "addresses": held[feed.name].addresses if feed.name in held else 0,
            "newest": held[feed.name].newest if feed.name in held else None,
            "description": feed.description,
        }
        for feed in FEEDS
    ]
    write_records(records, FEED_COLUMNS, form, "there is no feed")


@feed.command("show", epilog=EXIT_CODES, short_help="Show the rows of a feed.")
@click.argument("name", type=click.Choice(FEED_NAMES))
@click.option("--limit", type=click.IntRange(min=1), help="At most this many rows.")
@time_options
@format_options(_FEED_FORMATS)
@database_options
def feed_show(
    settings: "AggregatorSettings",
    name: str,
    limit: int | None,
    since: datetime | None,
    until: datetime | None,
    form: str,
) -> None:
    """Show the rows of a feed as they would be published now: order, window, what is left out.

    The origins are the stored ones, which the last publication wrote. Times are UTC.
    """
    from ..query.feed import FeedNow, Wanted, empty_feed
    from ..store.publication import PublicationStore
    from .output import write_entries

    wanted = Wanted(feed=name, since=since, until=until, rows=_one_more(limit))
    with connected(settings, long=True) as connection:
        rows, left_out = FeedNow(settings, PublicationStore(connection), wanted).rows()
    write_entries(rows, form, limit, empty_feed(name, left_out))


@feed.command("crowded", epilog=EXIT_CODES, short_help="List the IPv6 prefixes past their bound.")
@click.option(
    "--limit",
    type=click.IntRange(1, 100_000),
    default=1_000,
    show_default=True,
    help="At most this many, those seen last first.",
)
@click.option("--since", help="Last seen at this time or later: 2026-11-23T11:00Z, or 7d, 12h.")
@format_options(LIST_FORMATS)
@database_options
def feed_crowded(settings: "AggregatorSettings", limit: int, since: str | None, form: str) -> None:
    """List the IPv6 /64s, /48s and /32s that had more new addresses in a day than are stored.

    What the others did is counted under the prefix, and is in no published file. Times are UTC.
    """
    from ..store.reading import ReadingStore
    from .output import CROWDED_COLUMNS, write_records

    with connected(settings) as connection:
        prefixes = ReadingStore(connection).crowded(parsed_time(since), limit + 1)
    records = [{name: getattr(one, name) for name in CROWDED_COLUMNS} for one in prefixes[:limit]]
    write_records(records, CROWDED_COLUMNS, form, "no IPv6 prefix was past its addresses of a day")
    if len(prefixes) > limit:
        click.echo(f"there is more: --limit {limit} cuts it here", err=True)


@click.command(epilog=EXIT_CODES)
@click.argument("terms", nargs=-1, metavar="[ADDRESS|PREFIX|ASN]...")
@click.option(
    "--feed", "feeds", type=click.Choice(FEED_NAMES), multiple=True, help="Only this feed."
)
@click.option("--limit", type=click.IntRange(min=1), help="At most this many rows.")
@time_options
@format_options(_FEED_FORMATS)
@database_options
def query(
    settings: "AggregatorSettings",
    terms: tuple[str, ...],
    feeds: tuple[str, ...],
    limit: int | None,
    since: datetime | None,
    until: datetime | None,
    form: str,
) -> None:
    """Ask what is known of addresses, prefixes and ASNs; without any, of all.

    Everything that is kept is asked, older than the feeds' window too. Times are UTC.
    """
    from ..query.questions import find, meets_a_crowded_prefix, parse_term
    from ..store.reading import Filter, ReadingStore
    from .output import write_entries

    asked = [parse_term(term) for term in terms]
    wanted = Filter(feeds=feeds or FEED_NAMES, since=since, until=until, rows=_one_more(limit))
    with connected(settings) as connection:
        store = ReadingStore(connection)
        if meets_a_crowded_prefix(store, asked, wanted):
            click.echo(
                "note: a prefix in this had more addresses in a day than are stored; what the "
                "others did is in `smtpfeeds feed crowded`",
                err=True,
            )
        rows = find(store, asked, wanted)
        write_entries(rows, form, limit, f"nothing found for {' '.join(terms) or 'these options'}")


def _settings(config: Path | None, dsn: str | None, folder: Path | None) -> "AggregatorSettings":
    """Which database: the options of this command, or those given to its group."""
    from ..settings import load

    parent = click.get_current_context().parent
    if parent is not None and (config, dsn, folder) == (None, None, None):
        config, dsn, folder = map(parent.params.get, ("config", "dsn", "folder"))
    if folder is not None:
        if config is not None or dsn is not None:
            raise SettingsError("--dir says which database already; leave --config and --dsn out")
        config = single_host_settings(folder)
    return load(config, dsn=dsn)


@contextmanager
def connected(
    settings: "AggregatorSettings", *, write: bool = False, long: bool = False
) -> "Iterator[Connection]":
    """A connection to the database of the settings, whose schema is this program's.

    Args:
        settings: the database, and how long a statement may take.
        write: the command writes; otherwise the server refuses what would.
        long: a statement may take as long as one of publishing.
    """
    from ..store.connection import connect, discard
    from ..store.migrations import check_schema

    if not settings.dsn:
        raise SettingsError(
            "which database? Give --dir DIR of `smtpfeeds up`, --config FILE, --dsn DSN, or set "
            "SMTPFEEDS_AGGREGATOR_DSN"
        )
    limit_s = settings.database_timeout_s * (10 if long else 1)
    connection = connect(settings, "query", autocommit=True, limit_s=limit_s, read_only=not write)
    try:
        check_schema(connection, write=write)
        yield connection
    finally:
        discard(connection)


def _one_more(limit: int | None) -> int | None:
    """With one more it is known whether there is more."""
    return None if limit is None else limit + 1


def parsed_time(text: str | None) -> datetime | None:
    from ..query.questions import parse_time

    return None if text is None else parse_time(text, datetime.now(UTC))


feed.add_command(serve)
feed.add_command(verify)
