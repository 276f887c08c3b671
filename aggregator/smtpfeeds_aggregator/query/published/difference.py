"""Compare two editions: addresses that were added, are gone, or have another class.

The names of the changes are those of the files `NAME-changes.ndjson`. Only the rows of the first
edition are held in memory.
"""

from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Any, Final

from smtpfeeds_common.addresses import pack_address, sort_key

from ...names import NOT_KNOWN
from ...publish.entries import Entry

ADDED: Final = "added"
GONE: Final = "gone"
CLASS: Final = "class"


def differences(before: Iterable[Entry], after: Iterable[Entry]) -> list[dict[str, Any]]:
    """Return the changes, sorted by feed, kind and address."""
    old = {(entry.category, pack_address(entry.address)): entry for entry in before}
    changes = list(_changes(old, after))
    order = {ADDED: 0, CLASS: 1, GONE: 2}
    changes.sort(
        key=lambda row: (
            row["category"],
            order[row["change"]],
            sort_key(pack_address(row["ipaddr"])),
        )
    )
    return changes


def _changes(
    old: dict[tuple[str, bytes], Entry], after: Iterable[Entry]
) -> Iterator[dict[str, Any]]:
    for entry in after:
        was = old.pop((entry.category, pack_address(entry.address)), None)
        if was is None:
            yield _row(ADDED, entry, None, entry)
        elif was.judgement.cls != entry.judgement.cls:
            yield _row(CLASS, entry, was, entry)
    for entry in old.values():
        yield _row(GONE, entry, entry, None)


def _row(change: str, entry: Entry, before: Entry | None, after: Entry | None) -> dict[str, Any]:
    return {
        "change": change,
        "ipaddr": entry.address,
        "category": entry.category,
        "class": None if after is None else str(after.judgement.cls),
        "class_before": None if before is None else str(before.judgement.cls),
        "lastseen": entry.last_seen,
        "ASN": entry.asn,
        "ASname": None if entry.name == NOT_KNOWN else entry.name,
    }


def counted(changes: Iterable[dict[str, Any]]) -> str:
    """Return the number of changes of each kind, as text."""
    counts = Counter(row["change"] for row in changes)
    return f"{counts[ADDED]} added, {counts[GONE]} gone, {counts[CLASS]} changed their class"
