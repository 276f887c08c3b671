"""The feed as NDJSON: one object a row, and one that closes the file and tells about it.

A reader that finds no closing object has a cut file.
"""

from typing import Any, Final

import msgspec

from ...names import NOT_KNOWN
from ..entries import NOTICE, Counts, Entry, Frame, tags

SUFFIX: Final = ".ndjson"
_encode: Final = msgspec.json.Encoder().encode


class Row(msgspec.Struct, frozen=True, gc=False):
    """The feed's five columns, then four more; null where nothing is known."""

    asn: int | None = msgspec.field(name="ASN")
    name: str | None = msgspec.field(name="ASname")
    ipaddr: str
    lastseen: str
    category: str
    first_seen: str
    hits: int
    sensors: int
    tags: tuple[str, ...]


def header(frame: Frame) -> str:  # noqa: ARG001 - every format takes it
    """Nothing: what is told about the file closes it."""
    return ""


def row(entry: Entry) -> str:
    """One row."""
    return (
        _encode(
            Row(
                entry.asn,
                None if entry.name == NOT_KNOWN else entry.name,
                entry.address,
                entry.last_seen,
                entry.category,
                entry.first_seen,
                entry.hits,
                entry.sensors,
                tags(entry.flags),
            )
        ).decode()
        + "\n"
    )


def footer(frame: Frame, counts: Counts) -> str:
    """The closing object, the only one with a key ``metadata``."""
    return _encode({"metadata": metadata(frame, counts)}).decode() + "\n"


def metadata(frame: Frame, counts: Counts) -> dict[str, Any]:
    """What there is to know about a feed besides its rows; times are UTC."""
    return {
        "feed": frame.feed.name,
        "description": frame.feed.description,
        "generated": iso(frame.generated),
        "expires": iso(frame.expires),
        "window": {"start": iso(frame.window_start), "end": iso(frame.window_end)},
        "count": counts.addresses,
        "asns": counts.asns,
        "publisher": frame.publisher,
        "contact": frame.contact,
        "licence": frame.licence,
        "notice": NOTICE,
    }


def iso(time: Any) -> str:
    """``2026-11-23T11:00:00Z``."""
    return f"{time:%Y-%m-%dT%H:%M:%SZ}"
