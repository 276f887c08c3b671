"""The feed as one JSON document: when it was made, and the rows of the NDJSON in a list."""

import json
from typing import IO, Final

import msgspec

from .. import entries
from ..entries import NOTICE, Columns, Counts, Frame
from . import ndjson

SUFFIX: Final = ".json"
SEPARATOR: Final = ",\n"
#: A reader holds a document whole; NDJSON has no bound.
MAX_ENTRIES: Final = 100_000


class Document(msgspec.Struct, frozen=True):
    """What is read back."""

    feed: str
    generated: str
    rows: list[ndjson.Row]


def header(frame: Frame) -> str:
    """Everything before the first row."""
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
    """Rows, without what is between them."""
    return [row[:-1] for row in entries.rows(ndjson, columns)]


def footer(frame: Frame, counts: Counts) -> str:  # noqa: ARG001 - every format takes both
    """The end of the list and of the document."""
    return "\n]}\n"


def read_back(stream: IO[bytes]) -> int:
    """How many rows a file holds; raises ValueError where it is not of this format."""
    return len(msgspec.json.decode(stream.read(), type=Document).rows)


def ascii_json(value: object) -> str:
    """JSON whose letters outside of ASCII are escaped: a setting may hold any."""
    return json.dumps(value, separators=(",", ":"))
