"""The feed for Zeek's intelligence framework: a line an address, fields between tabs.

It raises no notice by itself (``meta.do_notice`` is F): these are observations.
https://docs.zeek.org/en/master/frameworks/intel.html
"""

from functools import lru_cache
from typing import Final

from ...meaning.classes import Judgement
from ..entries import NOTICE, Columns, Counts, Frame

SUFFIX: Final = ".intel"
SEPARATOR: Final = ""
FIELDS: Final = ("indicator", "indicator_type", "meta.source", "meta.desc", "meta.do_notice")


def header(frame: Frame) -> str:  # noqa: ARG001 - every format takes it
    """The names of the fields, and a comment."""
    return "#fields\t" + "\t".join(FIELDS) + f"\n# {NOTICE}\n"


def rows(frame: Frame, columns: Columns) -> list[str]:  # noqa: ARG001 - every document takes it
    """Rows."""
    feed = columns.category
    return [
        f"{address}\tIntel::ADDR\t{feed}\t{_description(judgement)}, last seen {last_seen} UTC\tF\n"
        for address, judgement, last_seen in zip(
            columns.address, columns.judgement, columns.last_seen, strict=True
        )
    ]


def footer(frame: Frame, counts: Counts) -> str:  # noqa: ARG001 - every format takes both
    """Nothing."""
    return ""


def read_back(octets: bytes) -> int:
    """How many rows a file holds; raises ValueError where it is not of this format."""
    lines = octets.decode("ascii").split("\n")
    if lines.pop() or lines[0].split("\t") != ["#fields", *FIELDS]:
        raise ValueError("its frame is not right")
    found = [line.split("\t") for line in lines if not line.startswith("#")]
    if any(len(row) != len(FIELDS) or row[-1] != "F" or not all(row) for row in found):
        raise ValueError("a line has other fields")
    return len(found)


@lru_cache(maxsize=1 << 12)
def _description(judgement: Judgement) -> str:
    return f"{judgement.cls} ({' '.join(judgement.why)})"
