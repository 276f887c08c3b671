"""Print all that is known of one address: the answer of `query ADDRESS`.

From the database it names sensors, lists and exclusions. Published files do not contain them, and
the card of a published address says so.
"""

import os
import sys
from collections.abc import Iterator
from datetime import UTC, date, datetime
from typing import TYPE_CHECKING, Final

import click

from smtpfeeds_common.addresses import pack_address
from smtpfeeds_common.answers import NOTHING_FOUND, look, note
from smtpfeeds_common.errors import OriginError
from smtpfeeds_common.feeds import FEED_NAMES
from smtpfeeds_common.history import marks
from smtpfeeds_common.table import paint
from smtpfeeds_common.times import iso_utc, row_time

from ..classification.explanations import CLASSES, REASONS
from ..classification.listings import is_fresh
from ..query.not_published import why_not_published
from ..query.rows import FeedRow
from ..query.term_query import TermQuery
from ..query.terms import Term
from .entry_columns import class_colour

if TYPE_CHECKING:
    from ..query.published.places import Published
    from ..store.query import QueryStore, SensorSighting
    from .access import Access

#: The column where values begin.
_INDENT: Final = 11
#: A space at which no line is wrapped; it is written as an ordinary one.
_NO_BREAK: Final = "\u00a0"
#: Sensors to name; the others are counted.
_SENSORS_MAX: Final = 12
_WIDTH_IN_A_PIPE: Final = 100

Line = tuple[str, str]


def show_card(store: "QueryStore", term_query: TermQuery, term: Term, access: "Access") -> None:
    """Write the card; end the command with exit code 1 if nothing of the address is stored."""
    rows = _rows(term_query, term)
    ip = rows[0].ip
    about = store.about(ip)
    reason = why_not_published(
        pack_address(ip), about.exclusions, publish_non_global=access.publish_non_global
    )
    _write(
        ip,
        [
            *_origin(rows[0], _prefix(access.origin_dir, rows[0]), about.origin),
            *_behaviours(rows),
            *_sensors(about.sensors),
            *_lists(rows[0], datetime.fromtimestamp(store.moment.now_s, UTC).date()),
            *_published(rows, store.moment.window_s, reason),
        ],
    )


def show_published_card(files: "Published", term_query: TermQuery, term: Term) -> None:
    """Write the card from published files; exit with code 1 if the address is not in them."""
    rows = _rows(term_query, term)
    edition = files.edition
    edition_time = f", made {iso_utc(edition.generated)}" if edition else ""
    feeds = " and ".join(sorted((row.feed for row in rows), reverse=True))
    _write(
        rows[0].ip,
        [
            *_origin(rows[0], None, None),
            *_behaviours(rows),
            ("sensors", "published files do not name them"),
            ("lists", "published files name an actor, not the lists"),
            ("published", f"yes, in {feeds}{edition_time}"),
        ],
    )


def _rows(term_query: TermQuery, term: Term) -> list[FeedRow]:
    rows = [row for _, row in term_query.rows([term])]
    if not rows:
        note(f"not seen: {term.text}")
        raise click.exceptions.Exit(NOTHING_FOUND)
    return rows


def _write(ip: str, lines: list[Line]) -> None:
    text = "\n".join([ip, *_wrapped(lines, look().width or _WIDTH_IN_A_PIPE)])
    sys.stdout.write(text + os.linesep)


def _behaviours(rows: list[FeedRow]) -> Iterator[Line]:
    yield from _class(rows[0], colour=look().colour)
    yield from _times(rows)
    yield from _feeds(rows)


def _prefix(origin_dir: str, row: FeedRow) -> str | None:
    """Return the announced prefix if this host's table has the same origin, else None."""
    if not origin_dir or row.asn is None:
        return None
    from ..origin.generation import INDEX, directory_of, open_index

    try:
        generation = directory_of(origin_dir).current()
        if generation is None:
            return None
        # The SHA-256 of a full index takes 70 ms. For one answer it is enough to check its header,
        # its size and the stored ASN.
        answer = open_index(generation.path / INDEX).find(row.packed)
    except OriginError as exc:
        note(f"note: the announced prefix is not shown: {exc.message}")
        return None
    if answer is None:
        return None
    asn, prefix = answer
    return prefix if asn == row.asn else None


def _origin(
    row: FeedRow, prefix: str | None, table: tuple[str, datetime | None] | None
) -> Iterator[Line]:
    if row.asn is None:
        yield "origin", "none is known"
        return
    name = f" {row.name}" if row.name else ""
    announced = f", announces {prefix}" if prefix else ""
    by = ""
    if table is not None:
        generation, time = table
        by = f", by table {generation}" + (f" of {iso_utc(time)}" if time else "")
    yield "origin", f"AS{row.asn}{name}{announced}{by}"


def _class(row: FeedRow, *, colour: bool) -> Iterator[Line]:
    judgement = row.judgement
    name = str(judgement.cls)
    painted = paint(name, class_colour(name) if colour else None)
    yield "class", f"{painted}: {CLASSES[judgement.cls]}"
    for number, code in enumerate(judgement.why):
        meaning = REASONS.get(code.partition(":")[0], "")
        yield "why" if number == 0 else "", f"{code}: {meaning}" if meaning else code
    if judgement.actor:
        yield "actor", judgement.actor


def _times(rows: list[FeedRow]) -> Iterator[Line]:
    first, last = min(row.first_s for row in rows), max(row.last_s for row in rows)
    new = ", new" if any(row.new for row in rows) else ""
    yield "first seen", f"{row_time(first)} UTC{new}"
    yield "last seen", f"{row_time(last)} UTC"
    days = 0
    for row in rows:
        days |= row.days
    yield "days", f"{marks(days)}  the last 7, oldest first; seen on {days.bit_count()}"


def _feeds(rows: list[FeedRow]) -> Iterator[Line]:
    by_feed = {row.feed: row for row in rows}
    for feed in FEED_NAMES:
        row = by_feed.get(feed)
        if row is None:
            yield feed, "-"
        else:
            counts = f"{_count(row.hits, 'event')}, {_count(row.sensors, 'sensor')}"
            yield feed, f"{counts}, last {row_time(row.last_s)} UTC"


def _sensors(sightings: "list[SensorSighting]") -> Iterator[Line]:
    by_sensor: dict[str, list[SensorSighting]] = {}
    for each in sightings:
        by_sensor.setdefault(each.sensor, []).append(each)
    newest = sorted(
        by_sensor.items(), key=lambda item: max(one.last_seen for one in item[1]), reverse=True
    )
    for number, (name, theirs) in enumerate(newest[:_SENSORS_MAX]):
        events = ", ".join(f"{one.hits} {one.feed.removeprefix('smtp')}" for one in theirs)
        targets, addresses = max(one.targets for one in theirs), theirs[0].addresses
        at = f"{targets} of its {addresses}" if addresses else str(targets)
        last = f"{row_time(max(one.last_seen for one in theirs).timestamp())} UTC"
        yield (
            "sensors" if number == 0 else "",
            f"{name}: {events}, at {at} addresses lately, last {_one_word(last)}",
        )
    if len(newest) > _SENSORS_MAX:
        yield "", f"and {len(newest) - _SENSORS_MAX} more"


def _lists(row: FeedRow, today: date) -> Iterator[Line]:
    if not row.entries:
        yield "lists", "none contains it"
    for number, (kind, actor, day, is_single, name, prefix) in enumerate(row.entries):
        fresh = is_fresh(date.fromisoformat(day), today, is_single=is_single)
        old = "" if fresh else ", too old to decide"
        who = "" if actor == name else f" ({actor})"
        yield "lists" if number == 0 else "", f"{name}{who}, {kind}: {prefix}, of {day}{old}"


def _published(rows: list[FeedRow], window_s: int, reason: str | None) -> Iterator[Line]:
    recent = [row.feed for row in rows if row.last_s >= window_s]
    if reason:
        yield "published", f"no: {reason}"
    elif not recent:
        yield "published", "no: too old, the feeds hold what was seen in the last 7 days"
    elif not any(row.hits for row in rows):
        yield "published", "no: only notes of its behaviour are stored, no event"
    else:
        yield "published", f"yes, in {' and '.join(sorted(recent, reverse=True))}"


def _wrapped(lines: list[Line], width: int) -> Iterator[str]:
    """Return lines with each name and value; a long value continues below its beginning."""
    from textwrap import wrap

    for name, value in lines:
        parts = wrap(value, max(20, width - _INDENT - 2), break_on_hyphens=False) or [""]
        yield f"{name:<{_INDENT}} {parts[0].replace(_NO_BREAK, ' ')}".rstrip()
        for part in parts[1:]:
            yield f"{'':<{_INDENT}} {part.replace(_NO_BREAK, ' ')}"


def _one_word(text: str) -> str:
    """Keep a text on one line."""
    return text.replace(" ", _NO_BREAK)


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
