"""Checks whether a list may be used, by bounds taken from real lists. Pure.

A wide prefix in a list of scanners would classify a whole provider as a survey. A list that lost
all its entries, or has ten times as many, is a mistake of its maker or of a mirror. Real lists
replace nine tenths of their entries within weeks, so change alone is not a reason for a refusal.
"""

from collections.abc import Iterable
from typing import Final, NamedTuple

from smtpfeeds_common.errors import ListsError

from ...special_purpose import not_global
from .content import Content
from .model import ListKind, Prefix


class Bounds(NamedTuple):
    """The widest prefixes that a kind of list may have, and its total of addresses."""

    shortest_ipv4: int
    shortest_ipv6: int
    ipv4_addresses: int


BOUNDS: Final[dict[ListKind, Bounds]] = {
    "scanner": Bounds(20, 28, 1 << 16),
    # The ranges of the largest mail providers.
    "mailer": Bounds(14, 28, 1 << 22),
}
#: Share of entries that may be unreadable, and share that may be not globally routable.
MAX_BAD_SHARE: Final = 0.01
#: A list of more than `GROWTH_FROM` entries may not have grown by more than this factor.
MAX_GROWTH: Final = 10
GROWTH_FROM: Final = 1_000
#: A list that had more entries than this may not become empty.
EMPTY_FROM: Final = 20

_NOT_GLOBAL: Final = not_global()


def check(
    content: Content, kind: ListKind, where: str, *, before: int | None, force: bool
) -> tuple[tuple[Prefix, ...], int]:
    """Return the prefixes to use, and how many entries were left out.

    Args:
        before: entries of the list's previous state; `None` if there is none.
        force: accept any growth, and an empty list.

    Raises:
        ListsError: the list exceeds a bound.
    """
    _refuse_share(content.unreadable, content.entries, where, "are neither an address nor a prefix")
    kept = tuple(p for p in content.prefixes if p.start.to_bytes(p.bits // 8) not in _NOT_GLOBAL)
    special = len(content.prefixes) - len(kept)
    _refuse_share(special, content.entries, where, "are not globally routable")
    _refuse_wide(kept, BOUNDS[kind], where)
    if not force:
        _refuse_jumps(len(kept), before, where)
    return kept, content.unreadable + special


def _refuse_share(count: int, entries: int, where: str, fault: str) -> None:
    if count > entries * MAX_BAD_SHARE:
        raise ListsError(f"{where}: {count} of {entries} entries {fault}, more than 1 %")


def _refuse_wide(prefixes: Iterable[Prefix], bounds: Bounds, where: str) -> None:
    addresses = 0
    for prefix in prefixes:
        shortest = bounds.shortest_ipv4 if prefix.bits == 32 else bounds.shortest_ipv6
        if prefix.length < shortest:
            raise ListsError(f"{where}: {prefix} is wider than a /{shortest}")
        if prefix.bits == 32:
            addresses += 1 << (32 - prefix.length)
    if addresses > bounds.ipv4_addresses:
        raise ListsError(
            f"{where}: {addresses} IPv4 addresses, more than the {bounds.ipv4_addresses} "
            "that such a list may have"
        )


def _refuse_jumps(count: int, before: int | None, where: str) -> None:
    if not count and (before is None or before > EMPTY_FROM):
        had = f", it had {before} entries" if before else ""
        raise ListsError(f"{where} is empty{had}")
    if before and count > GROWTH_FROM and count > before * MAX_GROWTH:
        raise ListsError(
            f"{where}: {count} entries, {before} before: more than {MAX_GROWTH} times "
            "(if this is right, use --force)"
        )
