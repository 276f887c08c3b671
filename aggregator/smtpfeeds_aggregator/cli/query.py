"""`smtpfeeds query`: what is known of addresses, prefixes and ASNs.

What costs time to import, psycopg above all, is imported when the command runs.
"""

from datetime import datetime
from typing import TYPE_CHECKING

import click

from smtpfeeds_common.answers import Form, format_options, note
from smtpfeeds_common.feeds import FEED_NAMES

from .database import connected
from .entry_columns import ENTRY
from .options import EXIT_CODES, database_options, time_options

if TYPE_CHECKING:
    from ..settings import AggregatorSettings


@click.command(epilog=EXIT_CODES)
@click.argument("terms", nargs=-1, metavar="[ADDRESS|PREFIX|ASN]...")
@click.option(
    "--feed", "feeds", type=click.Choice(FEED_NAMES), multiple=True, help="Only this feed."
)
@click.option("--limit", type=click.IntRange(min=1), help="At most this many rows.")
@time_options
@format_options(ENTRY, more=("text",))
@database_options
def query(
    settings: "AggregatorSettings",
    terms: tuple[str, ...],
    feeds: tuple[str, ...],
    limit: int | None,
    since: datetime | None,
    until: datetime | None,
    form: Form,
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
            note(
                "note: a prefix in this had more addresses in a day than are stored; what the "
                "others did is in `smtpfeeds feed crowded`"
            )
        rows = find(store, asked, wanted)
        write_entries(rows, form, limit, f"nothing found for {' '.join(terms) or 'these options'}")


def _one_more(limit: int | None) -> int | None:
    """With one more it is known whether there is more."""
    return None if limit is None else limit + 1
