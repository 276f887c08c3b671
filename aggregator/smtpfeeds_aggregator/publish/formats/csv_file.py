"""The feed as CSV (RFC 4180 but for the line feed): the feed's five columns, then four more."""

from typing import Final

from ...names import NOT_KNOWN
from ..entries import Counts, Entry, Frame, tags

SUFFIX: Final = ".csv"
COLUMNS: Final = (
    "ASN", "ASname", "ipaddr", "lastseen", "category", "first_seen", "hits", "sensors", "tags",
)  # fmt: skip


def header(frame: Frame) -> str:  # noqa: ARG001 - every format takes it
    """The columns' names."""
    return ",".join(COLUMNS) + "\n"


def row(entry: Entry) -> str:
    """One row; a cleaned name holds no quote, so quoting it is putting quotes around it."""
    name = f'"{entry.name}"' if "," in entry.name else entry.name
    return (
        f"{entry.asn or NOT_KNOWN},{name},{entry.address},{entry.last_seen},{entry.category},"
        f"{entry.first_seen},{entry.hits},{entry.sensors},{' '.join(tags(entry.flags))}\n"
    )


def footer(frame: Frame, counts: Counts) -> str:  # noqa: ARG001 - every format takes both
    """Nothing: a reader of CSV takes every line for a row."""
    return ""
