"""The feed as NDJSON: one object a row, and nothing else.

A closing record would be a row of another shape: readers that load the whole file into
a table stumble over it. What there is to know about the file is in the manifest.
"""

from functools import lru_cache
from itertools import repeat
from typing import Annotated, Any, Final

import msgspec

from smtpfeeds_common.history import marks

from ...meaning.classes import Judgement
from ...names import NOT_KNOWN
from ..entries import Columns, Counts, Frame, judgement_texts, tags, texts_of

SUFFIX: Final = ".ndjson"
_NEW: Final = ("false}\n", "true}\n")
ORIGIN = Annotated[int, msgspec.Meta(ge=1, le=2**32 - 1)]
EVENTS = Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]
NUMBER = Annotated[int, msgspec.Meta(ge=0, le=2**31 - 1)]


class Row(msgspec.Struct, frozen=True, gc=False, rename={"cls": "class"}):
    """One line; null where nothing is known. What a reader may expect, and what is read back."""

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


def rows(columns: Columns) -> list[str]:
    """Rows, each joined from texts that are made once for all rows that share them."""
    return list(
        map(
            "".join,
            zip(
                texts_of(list(zip(columns.asn, columns.name, strict=True)), _origin),
                columns.address,
                repeat('","lastseen":"'),
                columns.last_seen,
                repeat(f'","category":"{columns.category}","first_seen":"'),
                columns.first_seen,
                texts_of(columns.hits, '","hits":{},"sensors":'.format),
                texts_of(columns.sensors, '{},"tags":'.format),
                texts_of(columns.flags, _tags),
                judgement_texts(columns.judgement, _judgement),
                texts_of(columns.days, _days),
                texts_of(columns.targets, '{},"new":'.format),
                map(_NEW.__getitem__, columns.new),
                strict=False,  # what repeats has no end
            ),
        )
    )


def footer(frame: Frame, counts: Counts) -> str:  # noqa: ARG001 - every format takes both
    """Nothing."""
    return ""


def _json(value: Any) -> str:
    return msgspec.json.encode(value).decode()


def _origin(origin: tuple[int, str]) -> str:
    asn, name = origin
    shown = _json(None if name == NOT_KNOWN else name)
    return f'{{"ASN":{asn or "null"},"ASname":{shown},"ipaddr":"'


def _tags(flags: int) -> str:
    """Names of behaviours hold nothing that JSON escapes."""
    names = '","'.join(tags(flags))
    return f'["{names}"],' if names else "[],"


@lru_cache(maxsize=1 << 12)
def _judgement(judgement: Judgement) -> str:
    """Three members of the object."""
    members = {"class": judgement.cls, "why": judgement.why, "actor": judgement.actor}
    return _json(members)[1:-1] + ","


def _days(days: int) -> str:
    return f'"days_seen":{days.bit_count()},"days":"{marks(days)}","targets":'


def iso(time: Any) -> str:
    """``2026-11-23T11:00:00Z``."""
    return f"{time:%Y-%m-%dT%H:%M:%SZ}"
