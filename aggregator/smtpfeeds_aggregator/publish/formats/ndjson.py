"""The feed as NDJSON: one object a row, and nothing else.

A closing record would be a row of another shape: readers that load the whole file into
a table stumble over it. What there is to know about the file is in the manifest.
"""

from functools import lru_cache
from typing import Annotated, Any, Final

import msgspec

from smtpfeeds_common.history import marks

from ...meaning.classes import Judgement
from ...names import NOT_KNOWN
from ..entries import Columns, Counts, Frame, tags

SUFFIX: Final = ".ndjson"
_NEW: Final = ("false", "true")
_ROW: Final = (
    '{{"ASN":%s,"ASname":%s,"ipaddr":"%s","lastseen":"%s","category":"{category}",'
    '"first_seen":"%s","hits":%d,"sensors":%d,"tags":%s,%s,"days_seen":%d,"days":"%s",'
    '"targets":%d,"new":%s}}\n'
)


_ASN = Annotated[int, msgspec.Meta(ge=1, le=2**32 - 1)]
_EVENTS = Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]
_NUMBER = Annotated[int, msgspec.Meta(ge=0, le=2**31 - 1)]


class Row(msgspec.Struct, frozen=True, gc=False, rename={"cls": "class"}):
    """One line; null where nothing is known. What a reader may expect, and what is read back."""

    ASN: _ASN | None
    ASname: str | None
    ipaddr: str
    lastseen: str
    category: str
    first_seen: str
    hits: _EVENTS
    sensors: _NUMBER
    tags: tuple[str, ...]
    cls: str
    why: tuple[str, ...]
    actor: str | None
    days_seen: int
    days: str
    targets: _NUMBER
    new: bool


def header(frame: Frame) -> str:  # noqa: ARG001 - every format takes it
    """Nothing."""
    return ""


def rows(columns: Columns) -> list[str]:
    """Rows."""
    template = _ROW.format(category=columns.category)
    names = {name: _json(None if name == NOT_KNOWN else name) for name in set(columns.name)}
    return list(
        map(
            template.__mod__,
            zip(
                [asn or "null" for asn in columns.asn],
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
    """Nothing."""
    return ""


def _json(value: Any) -> str:
    return msgspec.json.encode(value).decode()


@lru_cache(maxsize=1 << 12)
def _tags(flags: int) -> str:
    return _json(tags(flags))


@lru_cache(maxsize=1 << 12)
def _judgement(judgement: Judgement) -> str:
    """Three members of the object."""
    members = {"class": judgement.cls, "why": judgement.why, "actor": judgement.actor}
    return _json(members)[1:-1]


def iso(time: Any) -> str:
    """``2026-11-23T11:00:00Z``."""
    return f"{time:%Y-%m-%dT%H:%M:%SZ}"
