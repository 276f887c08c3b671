"""The feed for Zeek's intelligence framework: one line for each address, fields separated by tabs.

It raises no notice by itself (``meta.do_notice`` is F): these are observations.
https://docs.zeek.org/en/master/frameworks/intel.html
"""

from functools import lru_cache
from typing import IO, Final

from ...classification.classes import Judgement
from ..entries import NOTICE, Columns, Counts, Frame

SUFFIX: Final = ".intel"
SEPARATOR: Final = ""
FIELDS: Final = ("indicator", "indicator_type", "meta.source", "meta.desc", "meta.do_notice")


def header(frame: Frame) -> str:  # noqa: ARG001 - every format takes it
    """Return the names of the fields, and a comment."""
    return "#fields\t" + "\t".join(FIELDS) + f"\n# {NOTICE}\n"


def rows(frame: Frame, columns: Columns, before: Counts) -> list[str]:  # noqa: ARG001 - every document takes them
    """Rows."""
    feed = columns.category
    return [
        f"{address}\tIntel::ADDR\t{feed}\t{_description(judgement)}, last seen {last_seen} UTC\tF\n"
        for address, judgement, last_seen in zip(
            columns.address, columns.judgement, columns.last_seen, strict=True
        )
    ]


def footer(frame: Frame, counts: Counts) -> str:  # noqa: ARG001 - every format takes both
    """Return an empty text."""
    return ""


def read_back(stream: IO[bytes]) -> int:
    """Return the number of rows of a file; raise ValueError if it has another format."""
    first = stream.readline().decode("ascii")
    if first != "#fields\t" + "\t".join(FIELDS) + "\n":
        raise ValueError("its first line does not name the fields")
    rows = 0
    for line in stream:
        if not line.startswith(b"#"):
            fields = line.split(b"\t")
            if len(fields) != len(FIELDS) or fields[-1] != b"F\n" or not all(fields):
                raise ValueError("a line has other fields")
            rows += 1
    return rows


@lru_cache(maxsize=1 << 12)
def _description(judgement: Judgement) -> str:
    return f"{judgement.cls} ({' '.join(judgement.why)})"
