"""`smtpfeeds query`: show what is stored about addresses, prefixes, ASNs and actors.

Modules that are slow to import, above all psycopg, are imported when the command runs. It imports
nothing of publishing, of the message or of the other settings, so that a query of one address is
fast.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from smtpfeeds_common.answers import (
    Form,
    Limited,
    format_options,
    note,
    nothing_found,
    write_records,
)
from smtpfeeds_common.command_end import allow_fast_exit
from smtpfeeds_common.errors import SettingsError
from smtpfeeds_common.existing_path import ExistingPath
from smtpfeeds_common.feeds import FEED_NAMES

from ..classification.classes import Class
from .address_columns import ADDRESS, ANSWER, address_record, answer_record
from .database import connected
from .entry_columns import ENTRY
from .options import EXIT_CODES, access_options, parsed_time, time_options
from .sorting import Order
from .source import FROM, KEY, check_key
from .source import published as look_up
from .term_input import TERMS_AT_ONCE, read_terms

if TYPE_CHECKING:
    from ..query.published.places import Published
    from ..query.rows import FeedRow
    from ..query.summary import Summary
    from ..query.term_query import QueryFilter, TermQuery
    from ..query.terms import Term
    from ..store.query import QueryStore
    from .access import Access

#: Terms to name in a note; the others are counted.
_NAMED: Final = 20


@click.command(epilog=EXIT_CODES, short_help="Show what is stored about addresses and networks.")
@click.argument("terms", nargs=-1, metavar="[TERM]…")
@click.option(
    "--file",
    "file",
    type=ExistingPath(dir_okay=False),
    help="Read terms from this file, one on each line, and answer each; `-` as TERM reads the "
    "standard input.",
)
@click.option(
    "--all", "everything", is_flag=True, help="Everything that is stored, instead of terms."
)
@click.option(
    "--feed", "feeds", type=click.Choice(FEED_NAMES), multiple=True, help="Only this feed."
)
@click.option(
    "--class",
    "classes",
    type=click.Choice([str(name) for name in Class]),
    multiple=True,
    help="Only this class.",
)
@click.option("--sensor", metavar="NAME", help="Only what this sensor saw.")
@click.option("--actor", metavar="NAME", help="Only addresses that lists give to this actor.")
@time_options
@click.option("--first-since", metavar="TIME", help="First seen at this time or later.")
@click.option("--new", is_flag=True, help="Only what was first seen within 24 hours.")
@click.option(
    "--min-hits", type=click.IntRange(min=0), default=0, help="At least this many events."
)
@click.option(
    "--min-sensors",
    type=click.IntRange(min=0),
    default=0,
    help="Seen by at least this many sensors.",
)
@click.option("--family", type=click.Choice(["4", "6"]), help="Only IPv4, or only IPv6.")
@click.option(
    "--per",
    type=click.Choice(["address", "feed"]),
    help="One row for each address, both feeds side by side (the default of a table), or one for "
    "each address in a feed.",
)
@click.option("--sort", metavar="FIELD", help="Sort by this field; -FIELD: the largest first.")
@click.option("--limit", type=click.IntRange(min=1), help="At most this many rows.")
@click.option("--count", is_flag=True, help="Print only how many there are.")
@format_options(
    {"an address (`--per address`)": ADDRESS, "a feed (`--per feed`)": ENTRY, "a term": ANSWER},
    more=("text",),
)
@FROM
@KEY
@access_options
def query(
    access: "Access | None",
    form: Form,
    terms: tuple[str, ...],
    file: Path | None,
    per: str | None,
    sort: str | None,
    limit: int | None,
    *,
    everything: bool,
    count: bool,
    published_in: str | None,
    key: str | None,
    **filters: Any,
) -> None:
    """Show what is stored about addresses, prefixes, ranges, ASNs, AS names and actors.

    TERM is 192.0.2.1, 192.0.2.0/24, 192.0.2.1-192.0.2.9, AS64496, a part of an AS name, an actor of
    the lists, or one of them as reports write it: 192.0.2[.]1, hxxp://192.0.2.1/. A single address
    gives all that is known of it. The answer covers everything that is stored, also what is older
    than the window of the feeds; with --from, what is published there. Times are UTC.

    \b
    Examples:
      smtpfeeds query 192.0.2.1
      smtpfeeds query AS64496 --class password-guess --since 2d --sort -hits
      smtpfeeds query --file addresses.txt --format csv
      smtpfeeds query --from https://feeds.example.net/ 192.0.2.0/24
    """
    from_stream = file is not None or terms == ("-",)
    _check_use(terms, file, per, sort, everything=everything)
    wanted = _wanted(**filters)
    with _term_query(access, wanted, published_in, key) as (store, files, term_query):
        if from_stream:
            _answer_stream(term_query, file, form, limit, count=count)
            return
        parsed = [] if everything else list(read_terms(terms))
        _note_hints(parsed)
        if store is not None:
            _note_crowded(store, parsed, wanted, everything=everything)
        is_plain = form.is_table and form.fields is None and not count
        if is_plain and len(parsed) == 1 and (per, sort, limit) == (None, None, None):
            only = parsed[0].range
            if only is not None and only.is_single:
                from .card import show_card, show_published_card

                if files is not None:
                    show_published_card(files, term_query, parsed[0])
                elif store is not None and access is not None:
                    show_card(store, term_query, parsed[0], access)
                return
        _answer(term_query, parsed, form, per, sort, limit, count=count)


@contextmanager
def _term_query(
    access: "Access | None", wanted: "QueryFilter", published_in: str | None, key: str | None
) -> "Iterator[tuple[QueryStore | None, Published | None, TermQuery]]":
    """Yield the query of terms, and the database's store unless published files answer."""
    if published_in is not None:
        if wanted.stored.sensor is not None:
            raise SettingsError("published files do not name sensors: remove --sensor")
        from ..query.published.term_query import PublishedTermQuery

        published = look_up(published_in, key)
        feeds = [name for name in wanted.stored.feeds if name in published.feeds()]
        yield None, published, PublishedTermQuery(published.entries(feeds), wanted)
        return
    check_key(published_in, key)
    assert access is not None
    with connected(access) as connection:
        from ..query.term_query import TermQuery
        from ..store.query import QueryStore

        store = QueryStore(connection)
        yield store, None, TermQuery(store, wanted)
    allow_fast_exit()


def _check_use(
    terms: tuple[str, ...],
    file: Path | None,
    per: str | None,
    sort: str | None,
    *,
    everything: bool,
) -> None:
    given = (bool(terms), file is not None, everything)
    if not any(given):
        raise SettingsError(
            "query needs a term, such as an address; --all selects everything, and - reads terms "
            "from the standard input"
        )
    if sum(given) > 1:
        raise SettingsError("give only one of: terms, --file, --all")
    if "-" in terms and len(terms) > 1:
        raise SettingsError("- reads the terms from the standard input: give it once, alone")
    if (file is not None or terms == ("-",)) and (per or sort):
        raise SettingsError(
            "terms from a file or the standard input are answered one by one: remove --per and "
            "--sort"
        )


def _wanted(
    *,
    feeds: tuple[str, ...],
    classes: tuple[str, ...],
    sensor: str | None,
    actor: str | None,
    since: datetime | None,
    until: datetime | None,
    first_since: str | None,
    new: bool,
    min_hits: int,
    min_sensors: int,
    family: str | None,
) -> "QueryFilter":
    from ..query.term_query import QueryFilter
    from ..store.query_rows import RowFilter

    stored = RowFilter(
        feeds=feeds or FEED_NAMES,
        since=since,
        until=until,
        first_since=parsed_time(first_since),
        min_hits=min_hits,
        family=None if family is None else int(family),
        sensor=sensor,
    )
    return QueryFilter(
        stored=stored,
        classes=frozenset(classes),
        actor=actor,
        new=new,
        min_sensors=min_sensors,
    )


def _answer(
    term_query: "TermQuery",
    terms: list["Term"],
    form: Form,
    per: str | None,
    sort: str | None,
    limit: int | None,
    *,
    count: bool,
) -> None:
    """Write the rows of all terms, and name the terms without rows."""
    seen: set[int] = set()
    rows = _marked(term_query.rows(terms), seen) if terms else term_query.everything()
    nothing = f"nothing found for {_named(terms)}" if terms else "nothing found"
    per = per or ("address" if form.is_table else "feed")
    if form.format == "text" and per == "address":
        raise SettingsError("--format text prints rows of the feeds: remove --per address")
    written = Limited(limit)
    if count:
        # Depending on --per, a row is an address, or an address in a feed.
        number = sum(1 for _ in (_by_address(rows) if per == "address" else rows))
        click.echo(str(number))
        if not number:
            nothing_found(nothing)
    elif per == "feed":
        from .feed_rows import write_feed_rows

        write_feed_rows(written.of(Order.of(sort, ENTRY).rows(rows, limit)), form, nothing)
    else:
        shown = form.of(ADDRESS)
        records = Order.of(sort, ADDRESS).records(map(address_record, _by_address(rows)), limit)
        write_records(written.of(records), shown, nothing)
    written.note()
    if not written.is_more and terms and (missing := term_query.not_seen(terms, seen)):
        note(f"not seen: {_named(missing)}")


def _marked(rows: "Iterator[tuple[int, FeedRow]]", seen: set[int]) -> "Iterator[FeedRow]":
    """Yield only the rows; record the numbers of their terms."""
    for place, row in rows:
        seen.add(place)
        yield row


def _by_address(rows: "Iterator[FeedRow]") -> "Iterator[Summary]":
    """Join the rows of each address, which are adjacent."""
    from ..query.summary import Summary

    summary = Summary()
    for row in rows:
        if summary.addresses and row.ip != summary.ip:
            yield summary
            summary = Summary()
        summary.add(row)
    if summary.addresses:
        yield summary


def _answer_stream(
    term_query: "TermQuery", file: Path | None, form: Form, limit: int | None, *, count: bool
) -> None:
    """Write one answer for each term, in the order of the input, block by block."""
    seen = total = 0

    def records() -> Iterator[dict[str, Any]]:
        nonlocal seen, total
        terms = read_terms(("-",), file)
        while block := list(islice(terms, TERMS_AT_ONCE)):
            for term, summary in term_query.answers(block):
                total += 1
                seen += summary.addresses > 0
                yield answer_record(term.text, summary)

    cut = Limited(limit)
    answers = cut.of(records())
    if count:
        for _ in answers:
            pass
        click.echo(str(seen))
    else:
        write_records(answers, form.of(ANSWER), "no term was read")
    cut.note()
    if not cut.is_more and (form.is_table or count or not seen):
        note(f"{seen} of {total} terms seen")
    if not seen:
        raise click.exceptions.Exit(1)


def _note_hints(terms: Sequence["Term"]) -> None:
    """Note how a term was read, if that may be a mistake."""
    for term in terms:
        if term.hint:
            note(f"note: {term.hint}")


def _note_crowded(
    store: "QueryStore", terms: Sequence["Term"], wanted: "QueryFilter", *, everything: bool
) -> None:
    """Note the prefixes for which not every address is stored."""
    from ..query.term_query import ipv6_bounds
    from ..query.terms import EVERYTHING_IPV6

    bounds = [EVERYTHING_IPV6.bounds] if everything else ipv6_bounds(terms)
    crowded = store.crowded(bounds, wanted.stored)
    for one in crowded[:_NAMED]:
        note(
            f"note: {one.prefix} had more addresses in a day than are stored: {one.events} events "
            "of others are counted under the prefix; see `smtpfeeds feed crowded`"
        )


def _named(terms: Sequence["Term"]) -> str:
    names = ", ".join(term.text for term in terms[:_NAMED])
    more = len(terms) - _NAMED
    return f"{names} and {more} more" if more > 0 else names
