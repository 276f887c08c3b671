"""`smtpfeeds feed`: the feeds, the rows of one, and the prefixes past their bound.

Modules that are slow to import, above all psycopg, are imported when a command runs.
"""

from datetime import datetime
from typing import TYPE_CHECKING, Final

import click

from smtpfeeds_common.answers import Form, Limited, format_options, write_records
from smtpfeeds_common.columns import Column
from smtpfeeds_common.feeds import FEED_NAMES, FEEDS

from .database import connected
from .entry_columns import ENTRY
from .feed_diff import feed_diff
from .options import EXIT_CODES, database_options, parsed_time, time_options
from .serve import serve
from .source import Source, last_seen_within, source_options
from .verify import verify

if TYPE_CHECKING:
    from ..settings import AggregatorSettings

_FEEDS: Final = (
    Column("feed"),
    Column("addresses", "integer", "stored, of the feed's window"),
    Column("newest", "time", "when the last of them was last seen"),
    Column("description", least=20, rank=1),
)
_CROWDED: Final = (
    Column("prefix", least=20, middle=True),
    Column("feed"),
    Column("last_seen", "time"),
    Column("first_seen", "time", rank=2),
    Column("events", "integer", "of addresses that are not stored"),
    Column("sensors", "integer", rank=1),
)


@click.group()
def feed() -> None:
    """List, show, compare, serve and verify the feeds."""


@feed.command("list", epilog=EXIT_CODES, short_help="List the feeds.")
@format_options(_FEEDS)
@database_options
def feed_list(settings: "AggregatorSettings", form: Form) -> None:
    """List the feeds: what each reports, and how many addresses are stored of its window.

    The counts include addresses that publications leave out. Times are UTC.

    \b
    Examples:
      smtpfeeds feed list
      smtpfeeds feed list --json
    """
    from ..publish.snapshot import window_end, window_start
    from ..store.publication import PublicationStore
    from ..store.status import StatusStore

    with connected(settings) as connection:
        since = window_start(window_end(PublicationStore(connection).now()))
        held = {state.feed: state for state in StatusStore(connection).feeds(since)}
    records = [
        {
            "feed": feed.name,
            "addresses": held[feed.name].addresses if feed.name in held else 0,
            "newest": held[feed.name].newest if feed.name in held else None,
            "description": feed.description,
        }
        for feed in FEEDS
    ]
    write_records(records, form, "there is no feed")


@feed.command("show", epilog=EXIT_CODES, short_help="Show the rows of a feed.")
@click.argument("name", type=click.Choice(FEED_NAMES))
@click.option("--limit", type=click.IntRange(min=1), help="At most this many rows.")
@time_options
@format_options(ENTRY, more=("text",))
@source_options
def feed_show(
    name: str,
    limit: int | None,
    since: datetime | None,
    until: datetime | None,
    form: Form,
    source: Source,
) -> None:
    """Show the rows of a feed as they would be published now: order, window, what is left out.

    With --from, as they were published there. The origins in the database are those that the last
    publication wrote. Times are UTC.

    \b
    Examples:
      smtpfeeds feed show smtpgreet --limit 20
      smtpfeeds feed show smtpdata --since 12h --format csv
      smtpfeeds feed show smtpgreet --from https://feeds.example.net/
    """
    from .output import write_entries

    if source.is_published:
        published = source.published()
        rows = last_seen_within(published.entries((name,)), since, until)
        write_entries(rows, form, limit, f"{published.name} has no such row of {name}")
        return
    from ..query.feed import FeedNow, FeedSelection, empty_feed
    from ..store.publication import PublicationStore

    wanted = FeedSelection(
        feed=name, since=since, until=until, rows=None if limit is None else limit + 1
    )
    with source.connected() as (settings, connection):
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
@format_options(_CROWDED)
@database_options
def feed_crowded(settings: "AggregatorSettings", limit: int, since: str | None, form: Form) -> None:
    """List the IPv6 /64s, /48s and /32s that had more new addresses in a day than are stored.

    Events of the others are counted under the prefix; no published file contains them. Times are
    UTC.

    \b
    Examples:
      smtpfeeds feed crowded
      smtpfeeds feed crowded --since 2d --limit 20
    """
    from ..store.status import StatusStore

    with connected(settings) as connection:
        prefixes = StatusStore(connection).crowded(parsed_time(since), limit + 1)
    cut = Limited(limit)
    records = cut.of(one._asdict() for one in prefixes)
    write_records(records, form, "no IPv6 prefix exceeded its addresses per day")
    cut.note()


feed.add_command(feed_diff)
feed.add_command(serve)
feed.add_command(verify)
