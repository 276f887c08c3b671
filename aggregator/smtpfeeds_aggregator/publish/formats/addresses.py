"""The addresses of classes that need more than a greet, one on each line."""

from typing import IO, Final

from smtpfeeds_common.addresses import normalise_address
from smtpfeeds_common.errors import AddressError

from ...classification.classes import Class
from ..entries import NOTICE, Columns, Counts, Frame
from .ndjson import iso

SUFFIX: Final = "-addresses.txt"
SEPARATOR: Final = ""
#: No class that a misdirected mail server, a survey or a mail program could have.
CLASSES: Final = frozenset({Class.RELAY_TEST, Class.PASSWORD_GUESS, Class.DELIVERY})


def header(frame: Frame) -> str:
    """Return comments that explain what the file is, and what it is not."""
    names = ", ".join(sorted(CLASSES))
    return (
        f"# {frame.feed.name}: addresses of the classes {names}.\n"
        f"# {NOTICE}\n"
        "# It is not a verdict on who has an address now, it is not complete, and it is not made\n"
        "# for refusing mail or traffic: addresses are shared and change hands.\n"
        f"# Generated {iso(frame.generated)}, expires {iso(frame.expires)}.\n"
    )


def rows(frame: Frame, columns: Columns, before: Counts) -> list[str]:  # noqa: ARG001 - every document takes them
    """Return the rows of these classes."""
    return [
        f"{address}\n"
        for address, judgement in zip(columns.address, columns.judgement, strict=True)
        if judgement.cls in CLASSES
    ]


def footer(frame: Frame, counts: Counts) -> str:  # noqa: ARG001 - every format takes both
    """Return an empty text."""
    return ""


def read_back(stream: IO[bytes]) -> int:
    """Return the number of rows of a file; raise ValueError if it has another format."""
    count = 0
    for line in stream:
        text, end = line[:-1].decode("ascii"), line[-1:]
        if text.startswith("#"):
            continue
        count += 1
        try:
            is_right = end == b"\n" and normalise_address(text) == text
        except AddressError as exc:
            raise ValueError(exc.message) from exc
        if not is_right:
            raise ValueError(f"{text!r} is truncated, or not an address in its usual form")
    return count
