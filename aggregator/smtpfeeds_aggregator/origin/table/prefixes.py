"""The prefixes of one family with their origins, in little memory. Pure.

A full table has 1.3 million prefixes, which take half a gigabyte as tuples in a dictionary. Here
a prefix is one number, and all prefixes of an origin share its object.
"""

import random
from collections.abc import Callable, Iterator
from typing import Final

#: First address as a number, prefix length, origin ASN.
Prefix = tuple[int, int, int]
_LENGTH_BITS: Final = 8
_LENGTH_MASK: Final = (1 << _LENGTH_BITS) - 1


class PrefixTable:
    """Prefixes of 32 or 128 bits; iteration is by first address, then length."""

    __slots__ = ("_asns", "_ordered", "_origins", "bits")

    def __init__(self, bits: int) -> None:
        self.bits = bits
        self._origins: dict[int, int] = {}
        self._asns: dict[int, int] = {}
        self._ordered: list[int] | None = None

    def put(self, start: int, length: int, asn: int) -> None:
        """Set the origin of a prefix."""
        self._origins[start << _LENGTH_BITS | length] = self._asns.setdefault(asn, asn)
        self._ordered = None

    def has(self, start: int, length: int) -> bool:
        """Whether the table has the prefix."""
        return start << _LENGTH_BITS | length in self._origins

    def retain(self, wanted: Callable[[Prefix], bool]) -> None:
        """Keep the prefixes for which `wanted` returns true; it is called in order."""
        for prefix in self:
            if not wanted(prefix):
                del self._origins[prefix[0] << _LENGTH_BITS | prefix[1]]
        self._ordered = None

    def sample(self, chance: random.Random, count: int) -> list[Prefix]:
        """Return `count` random prefixes, or all if there are fewer."""
        keys = self._keys()
        return [self._prefix(key) for key in chance.sample(keys, min(len(keys), count))]

    def origins(self) -> set[int]:
        """Return the ASNs that announce the prefixes."""
        return set(self._origins.values())

    def __len__(self) -> int:
        return len(self._origins)

    def __iter__(self) -> Iterator[Prefix]:
        return map(self._prefix, self._keys())

    def _keys(self) -> list[int]:
        if self._ordered is None:
            self._ordered = sorted(self._origins)
        return self._ordered

    def _prefix(self, key: int) -> Prefix:
        return key >> _LENGTH_BITS, key & _LENGTH_MASK, self._origins[key]
