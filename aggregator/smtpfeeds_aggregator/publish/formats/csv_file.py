"""The feed as CSV (RFC 4180 except for the line feed): the feed's five columns, then the others."""

from functools import lru_cache
from typing import Final

from smtpfeeds_common.columns import FORMULA
from smtpfeeds_common.history import marks

from ...classification.classes import Judgement
from ...names import NOT_KNOWN
from ..entries import Columns, Counts, Frame, Piece, tags

SUFFIX: Final = ".csv"
COLUMNS: Final = (
    *("ASN", "ASname", "ipaddr", "lastseen", "category", "first_seen", "hits", "sensors", "tags"),
    *("class", "why", "actor", "days_seen", "days", "targets", "new"),
)


def header(frame: Frame) -> str:  # noqa: ARG001 - every format takes it
    """Return the names of the columns."""
    return ",".join(COLUMNS) + "\n"


def pieces(columns: Columns) -> list[Piece]:
    """Rows, of texts that are made once for all rows that share them."""
    return [
        columns.texts("origin", _origin),
        columns.address,
        columns.seen(f",{{last}},{columns.category},{{first}}"),
        columns.texts("counts", _counts),
        columns.texts("flags", _tags),
        columns.texts("judgement", _judgement),
        columns.texts("week", _week),
    ]


def footer(frame: Frame, counts: Counts) -> str:  # noqa: ARG001 - every format takes both
    """Return an empty text: a reader of CSV reads every line as a row."""
    return ""


def field(text: str) -> str:
    """Return a text as a field: never a formula, and quoted if necessary."""
    if text.startswith(FORMULA):
        text = "'" + text
    if "," in text or '"' in text:
        return '"' + text.replace('"', '""') + '"'
    return text


def _origin(origin: tuple[int, str]) -> str:
    asn, name = origin
    return f"{asn or NOT_KNOWN},{field(name)},"


@lru_cache(maxsize=1 << 13)
def _tags(flags: int) -> str:
    return " ".join(tags(flags)) + ","


@lru_cache(maxsize=1 << 12)
def _judgement(judgement: Judgement) -> str:
    actor = NOT_KNOWN if judgement.actor is None else field(judgement.actor)
    return f"{judgement.cls},{field(' '.join(judgement.why))},{actor},"


def _counts(counts: tuple[int, int]) -> str:
    hits, sensors = counts
    return f",{hits},{sensors},"


@lru_cache(maxsize=1 << 13)
def _week(week: tuple[int, int, bool]) -> str:
    days, targets, new = week
    return f"{days.bit_count()},{marks(days)},{targets},{'true' if new else 'false'}\n"
