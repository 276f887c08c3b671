"""`smtpfeeds stats`: show the week in numbers, from the summary that each publication stores."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

import click

from smtpfeeds_common.answers import (
    Form,
    Limited,
    format_options,
    look,
    nothing_found,
    write_records,
)
from smtpfeeds_common.columns import Column
from smtpfeeds_common.errors import PublishError, SettingsError
from smtpfeeds_common.feeds import FEED_NAMES
from smtpfeeds_common.garbage import no_garbage

from .options import EXIT_CODES
from .source import Source, source_options

if TYPE_CHECKING:
    from ..publish.statistics import Summary
    from ..query.overview import Alive
    from ..settings import AggregatorSettings
    from ..store.connection import Connection

_BY: Final = ("asn", "name", "class", "actor", "hour", "day", "sensor", "prefix")
#: Groups that published files do not have.
_NOT_PUBLISHED: Final = ("hour", "sensor")
_WATCH_S: Final = 10.0
#: Move to the top and clear to the end, which does not flicker.
_REDRAW: Final = "\x1b[H\x1b[J"
_STATISTICS: Final = (
    Column("by", help="what the row is about: feed, class, asn, name, …", rank=9),
    Column("key", help="the class, AS number, name, prefix, day, hour (UTC) or sensor", least=12),
    Column("name", help="the AS name of an asn", title="AS name", least=10, rank=3),
    Column("smtpgreet", "integer", "addresses in that feed"),
    Column("smtpdata", "integer", "addresses in that feed"),
    Column("new", "integer", "addresses first seen within 24 hours", rank=1),
    Column(
        "greet_events",
        "integer",
        "hits of these addresses; of an hour or a sensor its events",
        title="greet hits",
        rank=2,
    ),
    Column("data_events", "integer", "the same of smtpdata", title="data hits", rank=2),
)
_EPILOG: Final = f"""\b
Examples:
  smtpfeeds stats
  smtpfeeds stats --by asn --limit 20
  smtpfeeds stats --by class --from https://feeds.example.net/ --json

{EXIT_CODES}
"""


@click.command(epilog=_EPILOG, short_help="Show the week in numbers.")
@click.option("--by", type=click.Choice(_BY), help="Print one list instead of the overview.")
@click.option("--limit", type=click.IntRange(min=1), help="At most this many rows of the list.")
@click.option("--live", is_flag=True, help="Count now, which reads the whole window.")
@click.option("--watch", is_flag=True, help="Draw again every 10 seconds, until Ctrl-C.")
@format_options(_STATISTICS)
@source_options
def stats(
    by: str | None, limit: int | None, form: Form, source: Source, *, live: bool, watch: bool
) -> None:
    """Show the week in numbers: feeds, hours, classes, networks, actors and live sensors.

    The numbers are those of the last publication; --live counts again. With --from, published
    files are counted, whose hits are lower bounds. A list has at most 200 rows. Times are UTC.
    """
    _check(by, form, source, live=live, watch=watch)
    with _summaries(source, live=live) as read:
        while True:
            try:
                summary, alive = read()
                if watch:
                    sys.stdout.write(_REDRAW)
                _write(summary, alive, by, limit, form)
            except _NothingPublished:
                nothing_found("nothing was published yet: --live counts what is stored now")
            if not watch:
                return
            sys.stdout.flush()
            time.sleep(_WATCH_S)


class _NothingPublished(Exception):
    """There is no summary yet."""


def _check(by: str | None, form: Form, source: Source, *, live: bool, watch: bool) -> None:
    if watch and (live or source.is_published or not form.is_table or not _is_terminal()):
        raise SettingsError(
            "--watch draws the stored summary in a terminal: remove --live, --from and --format"
        )
    if live and source.is_published:
        raise SettingsError("--live counts in the database; remove --from")
    if source.is_published and by in _NOT_PUBLISHED:
        raise SettingsError(f"published files do not contain the {by} of an event")


def _is_terminal() -> bool:
    return sys.stdout.isatty()


def _write(
    summary: "Summary", alive: "Alive | None", by: str | None, limit: int | None, form: Form
) -> None:
    from ..query.overview import lines

    if by is None and form.is_table and not form.chosen:
        for line in lines(summary, alive, look(), datetime.now(UTC)):
            click.echo(line)
        return
    kept = [row for row in summary.rows if by is None or row.by == by]
    records: list[dict[str, Any]] = [
        {name: getattr(row, name) for name in row.__struct_fields__} for row in kept
    ]
    # A table of one list does not need the column `by`.
    is_whole = by is None or not form.is_table or form.fields is not None
    shown = form if is_whole else form.of(_STATISTICS[1:])
    cut = Limited(limit)
    write_records(cut.of(records), shown, f"the edition has no {by or 'row'}")
    cut.note()


@contextmanager
def _summaries(
    source: Source, *, live: bool
) -> "Iterator[Callable[[], tuple[Summary, Alive | None]]]":
    """Yield a function that reads the summary and the sensors each time."""
    if source.is_published:
        yield lambda: (_of_files(source), None)
        return
    with source.connected() as (settings, connection):
        yield lambda: (
            _counted_now(settings, connection) if live else _stored(connection),
            _alive(connection),
        )


def _of_files(source: Source) -> "Summary":
    from ..publish.statistics import summarise, window_of

    published = source.published()
    feeds = [name for name in FEED_NAMES if name in published.feeds()]
    with no_garbage():
        window, judgements, names = window_of(published.entries(feeds))
    edition = published.edition
    generated = datetime.now(UTC) if edition is None else edition.generated
    expires = None if edition is None else edition.expires
    return summarise(window, judgements, names, generated=generated, expires=expires)


def _stored(connection: "Connection") -> "Summary":
    from ..publish.statistics import decode
    from ..store.status import StatusStore

    content = StatusStore(connection).summary()
    if content is None:
        raise _NothingPublished
    try:
        return decode(content)
    except ValueError as exc:
        raise PublishError(
            "another version published last, and its numbers cannot be read: use that version's "
            "command, or --live"
        ) from exc


def _alive(connection: "Connection") -> "Alive":
    from ..query.overview import Alive
    from ..store.status import StatusStore

    sensors = StatusStore(connection).sensors()
    silent = tuple(one.name for one in sensors if one.state == "silent")
    return Alive(sum(one.state == "alive" for one in sensors), silent)


def _counted_now(settings: "AggregatorSettings", connection: "Connection") -> "Summary":
    from ..query.feed import FeedNow, FeedSelection
    from ..store.publication import PublicationStore

    wanted = FeedSelection(feed=FEED_NAMES[0])
    return FeedNow(settings, PublicationStore(connection), wanted).statistics()
