"""What list entries mean for the class of an address: one listing for each actor. Pure.

It is separate because publishing applies it to the lists' files, and queries apply it to
the entries that the last publication stored.
"""

from collections.abc import Iterable
from datetime import date
from typing import Final

from .classes import Listing

#: Addresses change owners: a quarter of the single ones had left the same list after eight
#: months. A range stays with its owner for longer.
HOST_DAYS: Final = 60
RANGE_DAYS: Final = 365


def is_fresh(day: date, today: date, *, is_single: bool) -> bool:
    """Whether an entry of a list with this date is young enough to decide."""
    return (today - day).days <= (HOST_DAYS if is_single else RANGE_DAYS)


def listings_of(entries: Iterable[tuple[str, str, bool]]) -> tuple[Listing, ...]:
    """Return one listing for each actor, in the order of its best entry; fresh if any entry is.

    Args:
        entries: kind, actor, and whether it is fresh; best first.
    """
    fresh: dict[tuple[str, str], bool] = {}
    for kind, actor, is_young in entries:
        key = (kind, actor)
        fresh[key] = fresh.get(key, False) or is_young
    return tuple(
        Listing("mailer" if kind == "mailer" else "scanner", actor, is_young)
        for (kind, actor), is_young in fresh.items()
    )
