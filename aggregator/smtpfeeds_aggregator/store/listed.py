"""The lists of scanners and mailers in the database, with which queries classify addresses."""

import json
from collections.abc import Iterable
from typing import Final, NamedTuple

from smtpfeeds_common.addresses import format_address

from .connection import Connection
from .errors import database_errors
from .sql import queries

#: Most ranges that are stored; the lists of a site have about ten thousand.
RANGES_MAX: Final = 1_000_000


class ListedEntry(NamedTuple):
    """An entry of a list."""

    kind: str
    actor: str
    #: The list's date, such as 2026-11-23.
    day: str
    #: Whether it is a single address, which expires sooner than a range.
    is_single: bool
    list: str
    prefix: str


class ListedRange(NamedTuple):
    """Addresses that the same entries contain; the best entry is first."""

    low: bytes
    high: bytes
    entries: tuple[ListedEntry, ...]


def store_lists(connection: Connection, generation: str, ranges: Iterable[ListedRange]) -> bool:
    """Store the lists that a publication used, unless they are stored already.

    Concurrent publishers wait for each other.

    Returns:
        Whether the lists differ from those stored before.
    """
    sql = {name: text.encode() for name, text in queries("listed.sql").items()}
    with database_errors(), connection.transaction():
        row = connection.execute(sql["take_over"], {"generation": generation}).fetchone()
        if row is None:
            return False
        kept = [each for _, each in zip(range(RANGES_MAX), ranges, strict=False)]
        connection.execute(sql["delete_ranges"])
        connection.execute(
            sql["insert_ranges"],
            {
                "lows": [format_address(each.low) for each in kept],
                "highs": [format_address(each.high) for each in kept],
                "entries": [json.dumps(each.entries) for each in kept],
            },
        )
    return True
