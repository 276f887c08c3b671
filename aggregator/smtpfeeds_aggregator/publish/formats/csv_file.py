"""The feed as CSV (RFC 4180 but for the line feed): the feed's five columns, then all others."""

from functools import lru_cache
from typing import Final

from smtpfeeds_common.columns import FORMULA
from smtpfeeds_common.history import marks

from ...meaning.classes import Judgement
from ...names import NOT_KNOWN
from ..entries import Columns, Counts, Frame, tags

SUFFIX: Final = ".csv"
COLUMNS: Final = (
    *("ASN", "ASname", "ipaddr", "lastseen", "category", "first_seen", "hits", "sensors", "tags"),
    *("class", "why", "actor", "days_seen", "days", "targets", "new"),
)
_NEW: Final = ("false", "true")
_ROW: Final = "%s,%s,%s,%s,{category},%s,%d,%d,%s,%s,%d,%s,%d,%s\n"


def header(frame: Frame) -> str:  # noqa: ARG001 - every format takes it
    """The columns' names."""
    return ",".join(COLUMNS) + "\n"


def rows(columns: Columns) -> list[str]:
    """Rows."""
    template = _ROW.format(category=columns.category)
    names = {name: field(name) for name in set(columns.name)}
    return list(
        map(
            template.__mod__,
            zip(
                [asn or NOT_KNOWN for asn in columns.asn],
                map(names.__getitem__, columns.name),
                columns.address,
                columns.last_seen,
                columns.first_seen,
                columns.hits,
                columns.sensors,
                map(_tags, columns.flags),
                map(_judgement, columns.judgement),
                map(int.bit_count, columns.days),
                map(marks, columns.days),
                columns.targets,
                map(_NEW.__getitem__, columns.new),
                strict=True,
            ),
        )
    )


def footer(frame: Frame, counts: Counts) -> str:  # noqa: ARG001 - every format takes both
    """Nothing: a reader of CSV takes every line for a row."""
    return ""


def field(text: str) -> str:
    """A text as a field: never a formula, and quoted where it must be."""
    if text.startswith(FORMULA):
        text = "'" + text
    if "," in text or '"' in text:
        return '"' + text.replace('"', '""') + '"'
    return text


@lru_cache(maxsize=1 << 12)
def _tags(flags: int) -> str:
    return " ".join(tags(flags))


@lru_cache(maxsize=1 << 12)
def _judgement(judgement: Judgement) -> str:
    actor = NOT_KNOWN if judgement.actor is None else field(judgement.actor)
    return f"{judgement.cls},{field(' '.join(judgement.why))},{actor}"
