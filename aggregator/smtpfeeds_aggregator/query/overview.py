"""Format the overview of `smtpfeeds stats` as lines of text.

Pure. Every line fits the width.
"""

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import Final, NamedTuple

from smtpfeeds_common.columns import Column
from smtpfeeds_common.table import Look, Table, shorten
from smtpfeeds_common.times import iso_utc

from ..publish.statistics import Statistic, Summary

#: Heights of a bar, from nothing to the most.
_BARS: Final = " ▁▂▃▄▅▆▇█"
_BARS_ASCII: Final = " .:-=+*#@"
_WEEK_HOURS: Final = 168
_WIDTH_MAX: Final = 96
_TOP: Final = 8
_LABEL: Final = 12


class Alive(NamedTuple):
    """How many sensors are alive, and which are silent."""

    alive: int
    silent: tuple[str, ...]


def sparkline(values: Sequence[int], width: int, bars: str = _BARS) -> str:
    """Draw numbers as a row of bars; neighbours share a bar if there are too many.

    A number above zero is never an empty bar.
    """
    if not values:
        return ""
    share = -(-len(values) // max(1, width))
    sums = [sum(values[at : at + share]) for at in range(0, len(values), share)]
    most = max(sums)
    steps = len(bars) - 1
    return "".join(bars[-(-value * steps // most) if most else 0] for value in sums)


def lines(summary: Summary, alive: Alive | None, look: Look, now: datetime) -> Iterator[str]:
    """Return the lines of the overview.

    Args:
        summary: of the last publication, or of published files.
        alive: the sensors; None if unknown.
        look: width and characters of the output.
        now: the time for the age of the edition.
    """
    yield from _fitted(_edition(summary, alive, now), look)
    yield ""
    yield from _table("feed", summary.by("feed"), look, by_feed=True)
    yield from _fitted(_hours(summary, look), look)
    for kind, title in (
        ("class", "class"),
        ("asn", "AS"),
        ("actor", "actor"),
        ("prefix", "prefix"),
    ):
        rows = [row for row in summary.by(kind) if row.smtpgreet or row.smtpdata]
        if kind == "class":
            rows.sort(key=lambda row: -(row.smtpgreet or 0))
        else:
            rows = rows[:_TOP]
        if rows:
            yield ""
            yield from _table(title, rows, look)


def _fitted(lines: Iterator[str], look: Look) -> Iterator[str]:
    for line in lines:
        yield line if look.width is None else shorten(line, look.width, look.ellipsis)


def _edition(summary: Summary, alive: Alive | None, now: datetime) -> Iterator[str]:
    text = f"edition of {iso_utc(summary.generated)}"
    if summary.expires is not None and now > summary.expires:
        text += f", expired {iso_utc(summary.expires)}"
    yield text
    if alive is not None:
        text = f"sensors: {alive.alive} alive"
        if alive.silent:
            shown = ", ".join(alive.silent[:3])
            more = f" and {len(alive.silent) - 3} more" if len(alive.silent) > 3 else ""
            text += f", silent: {shown}{more}"
        yield text


def _table(
    title: str, rows: Sequence[Statistic], look: Look, *, by_feed: bool = False
) -> Iterator[str]:
    """Return the lines of one list, with only the columns that it needs."""
    columns = [Column("key", title=title, least=10, middle=title == "prefix")]
    if title == "AS":
        columns.append(Column("name", title="name", least=10, rank=2))
    if by_feed:
        columns.append(Column("addresses", "integer"))
        columns.append(Column("new", "integer", title="new in 24 h"))
        columns.append(Column("events", "integer", title="hits"))
    else:
        columns.append(Column("smtpgreet", "integer", title="greet"))
        columns.append(Column("smtpdata", "integer", title="data"))
        columns.append(Column("new", "integer", title="new in 24 h", rank=1))
    records = (
        {
            "key": row.key,
            "name": row.name,
            "smtpgreet": row.smtpgreet,
            "smtpdata": row.smtpdata,
            "new": row.new,
            "addresses": row.smtpgreet if row.smtpdata is None else row.smtpdata,
            "events": row.greet_events if row.data_events is None else row.data_events,
        }
        for row in rows
    )
    yield from Table(columns, look, shed=True).lines(records)


def _hours(summary: Summary, look: Look) -> Iterator[str]:
    """Return the events of the week by hour, one line for each feed."""
    rows = {row.key: row for row in summary.by("hour")}
    if not rows:
        return
    end = summary.generated.astimezone(UTC).replace(minute=0, second=0, microsecond=0)
    keys = [
        f"{end - timedelta(hours=back):%Y-%m-%dT%H:00Z}" for back in reversed(range(_WEEK_HOURS))
    ]
    width = max(1, min(_WIDTH_MAX, (look.width or _WIDTH_MAX) - _LABEL))
    bars = _BARS if look.ellipsis == "…" else _BARS_ASCII
    yield ""
    yield f"events of the week until {iso_utc(end)}, each mark {-(-_WEEK_HOURS // width)} h"
    for name, field in (("smtpgreet", "greet_events"), ("smtpdata", "data_events")):
        values = [int(getattr(rows[key], field) or 0) if key in rows else 0 for key in keys]
        yield f"{name:<{_LABEL}}{sparkline(values, width, bars)}".rstrip()
