"""The lists of scanners and mailers as the database keeps them, for questions to judge by."""

import json
from collections.abc import Iterable
from typing import Final, NamedTuple

from smtpfeeds_common.addresses import format_address

from .connection import Connection
from .errors import database_errors
from .sql import queries

#: More ranges than this are not stored: the lists of a site hold some ten thousand.
RANGES_MAX: Final = 1_000_000


class ListedEntry(NamedTuple):
    """One entry of a list."""

    kind: str
    actor: str
    #: The list's own date, as 2026-11-23.
    day: str
    #: One address, which ages sooner than a range.
    is_single: bool
    list: str
    prefix: str


class ListedRange(NamedTuple):
    """Addresses that the same entries hold, the best entry first."""

    low: bytes
    high: bytes
    entries: tuple[ListedEntry, ...]


def store_lists(connection: Connection, generation: str, ranges: Iterable[ListedRange]) -> bool:
    """Store the lists that a publication used, where they are not stored already.

    Two publishers at once wait for each other.

    Returns:
        Whether they were other lists than before.
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
