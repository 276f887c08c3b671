"""Hold only the addresses of the feeds, for `filter`: other columns take no time or memory."""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np

from smtpfeeds_common.addresses import IPv4_BYTES

from .plain_quads import Numbers, numbers_of


class AddressSet(NamedTuple):
    """A set of addresses of both families, in no order; duplicates are possible."""

    #: IPv4 addresses as numbers.
    quads: Numbers
    #: IPv6 addresses, packed.
    ipv6: Sequence[bytes]

    @classmethod
    def of(cls, addresses: Iterable[bytes]) -> "AddressSet":
        """Return the set of these packed addresses."""
        every = list(addresses)
        return cls(
            numbers_of(packed for packed in every if len(packed) == IPv4_BYTES),
            [packed for packed in every if len(packed) != IPv4_BYTES],
        )

    @classmethod
    def union(cls, parts: Iterable["AddressSet"]) -> "AddressSet":
        """Return the addresses of all parts."""
        every = list(parts)
        quads = [part.quads for part in every]
        return cls(
            np.concatenate(quads) if quads else numbers_of(()),
            [packed for part in every for packed in part.ipv6],
        )

    def __bool__(self) -> bool:
        """Return whether the set has an address."""
        return bool(len(self.quads) or self.ipv6)
