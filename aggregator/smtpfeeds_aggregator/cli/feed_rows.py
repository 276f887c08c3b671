"""Write the rows of an answer as rows of the feeds, for `query --per feed`."""

from collections.abc import Iterator
from typing import Any

from smtpfeeds_common.addresses import IPv4_BYTES
from smtpfeeds_common.answers import Form
from smtpfeeds_common.times import row_time

from ..names import short_name
from ..publish.entries import Entry
from ..query.rows import FeedRow
from .entry_columns import ENTRY
from .output import record_of, write_entries


def write_feed_rows(rows: Iterator[FeedRow], form: Form, nothing: str) -> None:
    """Write rows as `feed show` does; counts are exact."""
    write_entries(map(entry_of, rows), form.of(ENTRY), None, nothing)


def entry_of(row: FeedRow) -> Entry:
    """Convert a row to an entry of a feed."""
    return Entry(
        asn=row.asn,
        name=short_name(row.name or ""),
        address=row.ip,
        family=4 if len(row.packed) == IPv4_BYTES else 6,
        last_seen=row_time(row.last_s),
        category=row.feed,
        first_seen=row_time(row.first_s),
        hits=row.hits,
        sensors=row.sensors,
        flags=row.flags,
        targets=row.targets,
        judgement=row.judgement,
        days=row.days,
        new=row.new,
    )


def value_of(row: FeedRow, name: str) -> Any:
    """Return the value of one column, by its name."""
    return record_of(entry_of(row))[name]
