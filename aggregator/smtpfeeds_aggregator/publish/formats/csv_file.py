"""The feed as CSV (RFC 4180 but for the line feed): the feed's five columns, then all others."""

from functools import lru_cache
from itertools import repeat
from typing import Final

from smtpfeeds_common.columns import FORMULA
from smtpfeeds_common.history import marks

from ...meaning.classes import Judgement
from ...names import NOT_KNOWN
from ..entries import Columns, Counts, Frame, judgement_texts, tags, texts_of

SUFFIX: Final = ".csv"
COLUMNS: Final = (
    *("ASN", "ASname", "ipaddr", "lastseen", "category", "first_seen", "hits", "sensors", "tags"),
    *("class", "why", "actor", "days_seen", "days", "targets", "new"),
)
_NEW: Final = ("false\n", "true\n")


def header(frame: Frame) -> str:  # noqa: ARG001 - every format takes it
    """The columns' names."""
    return ",".join(COLUMNS) + "\n"


def rows(columns: Columns) -> list[str]:
    """Rows, each joined from texts that are made once for all rows that share them."""
    return list(
        map(
            "".join,
            zip(
                texts_of(list(zip(columns.asn, columns.name, strict=True)), _origin),
                columns.address,
                repeat(","),
                columns.last_seen,
                repeat(f",{columns.category},"),
                columns.first_seen,
                texts_of(columns.hits, ",{},".format),
                texts_of(columns.sensors, "{},".format),
                texts_of(columns.flags, _tags),
                judgement_texts(columns.judgement, _judgement),
                texts_of(columns.days, _days),
                texts_of(columns.targets, "{},".format),
                map(_NEW.__getitem__, columns.new),
                strict=False,  # what repeats has no end
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


def _origin(origin: tuple[int, str]) -> str:
    asn, name = origin
    return f"{asn or NOT_KNOWN},{field(name)},"


def _tags(flags: int) -> str:
    return " ".join(tags(flags)) + ","


@lru_cache(maxsize=1 << 12)
def _judgement(judgement: Judgement) -> str:
    actor = NOT_KNOWN if judgement.actor is None else field(judgement.actor)
    return f"{judgement.cls},{field(' '.join(judgement.why))},{actor},"


def _days(days: int) -> str:
    return f"{days.bit_count()},{marks(days)},"
