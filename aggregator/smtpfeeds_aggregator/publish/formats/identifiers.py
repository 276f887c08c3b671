"""Identifiers that stay: the same thing has the same UUID in each edition, at every publisher.

UUIDv5 (RFC 9562 section 5.5) of names in one fixed namespace. What is of a day holds feed,
address and UTC day, so that nothing that an identifier stands for changes its day.
"""

from functools import lru_cache
from typing import Final
from uuid import UUID, uuid5

#: Never changes: each identifier that was ever published follows from it.
NAMESPACE: Final = UUID("8974c143-6e1e-4ce0-95aa-d4b2b071fec8")


def identifier(*parts: str) -> UUID:
    """The identifier of something that has a name of some parts."""
    return uuid5(NAMESPACE, "|".join(parts))


@lru_cache(maxsize=1 << 10)
def iso_text(time: str) -> str:
    """``2026-11-23T11:00:59Z`` for ``2026-11-23 11:00:59``."""
    return f"{time[:10]}T{time[11:]}Z"
