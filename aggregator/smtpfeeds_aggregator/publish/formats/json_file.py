"""The feed as one JSON document: its time, and the rows of the NDJSON in a list."""

import json
from typing import IO, Final

import msgspec

from .. import entries
from ..entries import NOTICE, Columns, Counts, Frame
from . import ndjson

SUFFIX: Final = ".json"
SEPARATOR: Final = ",\n"
#: A reader holds the whole document in memory; NDJSON has no bound.
MAX_ENTRIES: Final = 100_000


class Document(msgspec.Struct, frozen=True):
    """The fields that are read back."""

    feed: str
    generated: str
    rows: list[ndjson.Row]


def header(frame: Frame) -> str:
    """Return everything before the first row."""
    about = {
        "feed": frame.feed.name,
        "generated": ndjson.iso(frame.generated),
        "expires": ndjson.iso(frame.expires),
        "publisher": frame.publisher,
        "contact": frame.contact,
        "licence": frame.licence,
        "notice": NOTICE,
    }
    return ascii_json(about)[:-1] + ',"rows":[\n'


def rows(frame: Frame, columns: Columns, before: Counts) -> list[str]:  # noqa: ARG001 - every document takes them
    """Return rows without separators."""
    return [row[:-1] for row in entries.rows(ndjson, columns)]


def footer(frame: Frame, counts: Counts) -> str:  # noqa: ARG001 - every format takes both
    """Return the end of the list and of the document."""
    return "\n]}\n"


def read_back(stream: IO[bytes]) -> int:
    """Return the number of rows of a file; raise ValueError if it has another format."""
    return len(msgspec.json.decode(stream.read(), type=Document).rows)


def ascii_json(value: object) -> str:
    """Return JSON with escaped characters outside ASCII, which a setting may contain."""
    return json.dumps(value, separators=(",", ":"))
