"""Stable identifiers: the same object has the same UUID in each edition, at every publisher.

They are UUIDv5 (RFC 9562 section 5.5) of names in one fixed namespace. The name of a day's object
has feed, address and UTC day, so an identified object never changes its day.
"""

from functools import lru_cache
from hashlib import sha1
from typing import Final
from uuid import UUID

#: This never changes, because each published identifier follows from it.
NAMESPACE: Final = UUID("8974c143-6e1e-4ce0-95aa-d4b2b071fec8")


#: The bits of a UUID that say its version and its variant, and what they are.
_FIXED: Final = 0xF000_C000 << 48
_VERSION_5: Final = 0x5000_8000 << 48


def identifier(*parts: str) -> str:
    """Return the identifier of an object whose name has these parts.

    It is the text of `uuid.uuid5`, in half the time, because a publication needs so many.
    """
    name = NAMESPACE.bytes + "|".join(parts).encode()
    number = int.from_bytes(sha1(name, usedforsecurity=False).digest()[:16])
    text = f"{number & ~_FIXED | _VERSION_5:032x}"
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"


@lru_cache(maxsize=1 << 10)
def iso_text(time: str) -> str:
    """``2026-11-23T11:00:59Z`` for ``2026-11-23 11:00:59``."""
    return f"{time[:10]}T{time[11:]}Z"
