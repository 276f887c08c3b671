"""The feed as NDJSON: one object for each row, and nothing else.

A closing record would be a row with other fields, which breaks readers that load the whole file
into a table. The manifest describes the file.
"""

from functools import lru_cache
from typing import Annotated, Any, Final

import msgspec

from smtpfeeds_common.history import marks

from ...classification.classes import Judgement
from ...names import NOT_KNOWN
from ..entries import Columns, Counts, Frame, Piece, tags

SUFFIX: Final = ".ndjson"
ORIGIN = Annotated[int, msgspec.Meta(ge=1, le=2**32 - 1)]
EVENTS = Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]
NUMBER = Annotated[int, msgspec.Meta(ge=0, le=2**31 - 1)]


class Row(msgspec.Struct, frozen=True, gc=False, rename={"cls": "class"}):
    """One line; null if unknown. This is what readers may expect, and what is read back."""

    ASN: ORIGIN | None
    ASname: str | None
    ipaddr: str
    lastseen: str
    category: str
    first_seen: str
    hits: EVENTS
    sensors: NUMBER
    tags: tuple[str, ...]
    cls: str
    why: tuple[str, ...]
    actor: str | None
    days_seen: int
    days: str
    targets: NUMBER
    new: bool


def header(frame: Frame) -> str:  # noqa: ARG001 - every format takes it
    """Nothing."""
    return ""


def pieces(columns: Columns) -> list[Piece]:
    """Rows, of texts that are made once for all rows that share them."""
    return [
        columns.texts("origin", _origin),
        columns.address,
        columns.seen(
            f'","lastseen":"{{last}}","category":"{columns.category}","first_seen":"{{first}}'
        ),
        columns.texts("counts", _counts),
        columns.texts("flags", _tags),
        columns.texts("judgement", _judgement),
        columns.texts("week", _week),
    ]


def footer(frame: Frame, counts: Counts) -> str:  # noqa: ARG001 - every format takes both
    """Nothing."""
    return ""


def _json(value: Any) -> str:
    return msgspec.json.encode(value).decode()


def _origin(origin: tuple[int, str]) -> str:
    asn, name = origin
    shown = _json(None if name == NOT_KNOWN else name)
    return f'{{"ASN":{asn or "null"},"ASname":{shown},"ipaddr":"'


@lru_cache(maxsize=1 << 13)
def _tags(flags: int) -> str:
    """Names of behaviours have no characters that JSON escapes."""
    names = '","'.join(tags(flags))
    return f'["{names}"],' if names else "[],"


@lru_cache(maxsize=1 << 12)
def _judgement(judgement: Judgement) -> str:
    """Three members of the object."""
    members = {"class": judgement.cls, "why": judgement.why, "actor": judgement.actor}
    return _json(members)[1:-1] + ","


def _counts(counts: tuple[int, int]) -> str:
    hits, sensors = counts
    return f'","hits":{hits},"sensors":{sensors},"tags":'


@lru_cache(maxsize=1 << 13)
def _week(week: tuple[int, int, bool]) -> str:
    days, targets, new = week
    members = f'"days_seen":{days.bit_count()},"days":"{marks(days)}","targets":{targets}'
    return f'{members},"new":{"true" if new else "false"}}}\n'


def iso(time: Any) -> str:
    """``2026-11-23T11:00:00Z``."""
    return f"{time:%Y-%m-%dT%H:%M:%SZ}"
