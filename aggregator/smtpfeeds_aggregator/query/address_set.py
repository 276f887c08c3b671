"""The addresses of the feeds alone, for `filter`: nothing else of a row takes time or memory."""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np

from smtpfeeds_common.addresses import IPv4_BYTES

from .plain_quads import Numbers, numbers_of


class AddressSet(NamedTuple):
    """Addresses of both families, in no order; one can come twice."""

    #: IPv4 addresses as numbers.
    quads: Numbers
    #: IPv6 addresses, packed.
    ipv6: Sequence[bytes]

    @classmethod
    def of(cls, addresses: Iterable[bytes]) -> "AddressSet":
        """Of packed addresses."""
        every = list(addresses)
        return cls(
            numbers_of(packed for packed in every if len(packed) == IPv4_BYTES),
            [packed for packed in every if len(packed) != IPv4_BYTES],
        )

    @classmethod
    def union(cls, parts: Iterable["AddressSet"]) -> "AddressSet":
        """The addresses of all parts."""
        every = list(parts)
        quads = [part.quads for part in every]
        return cls(
            np.concatenate(quads) if quads else numbers_of(()),
            [packed for part in every for packed in part.ipv6],
        )

    def __bool__(self) -> bool:
        """Whether there is any address."""
        return bool(len(self.quads) or self.ipv6)
