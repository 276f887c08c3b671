"""Sets of addresses given as prefixes, such as excluded or not publicly routable ones.

Packed addresses of one length sort like integers, so a set is a sorted list of
boundaries for each length, and a look-up is one bisection.
"""

from bisect import bisect_right
from collections.abc import Iterable
from ipaddress import IPv4Network
from typing import Final

from smtpfeeds_common.addresses import IPv4_BYTES, IPv6_BYTES, Network

_Span = tuple[int, int]


class AddressRanges:
    """The addresses in the prefixes `inside`, without those in `outside`."""

    def __init__(self, inside: Iterable[Network], outside: Iterable[Network] = ()) -> None:
        inside, outside = list(inside), list(outside)
        self._boundaries: Final = {
            length: _boundaries(
                _merged(_spans(inside, length)), _merged(_spans(outside, length)), length
            )
            for length in (IPv4_BYTES, IPv6_BYTES)
        }

    def boundaries(self, octets: int) -> list[bytes]:
        """Where membership changes for addresses of 4 or 16 octets, sorted.

        It begins at even indexes and ends at odd ones; the end of the whole space is left out.
        """
        return self._boundaries[octets]

    def __contains__(self, packed: bytes) -> bool:
        """Whether an address of 4 or 16 octets is in the set."""
        return bisect_right(self._boundaries[len(packed)], packed) % 2 == 1

    def __bool__(self) -> bool:
        """Return whether the set has any address."""
        return any(self._boundaries.values())


def _spans(networks: list[Network], length: int) -> list[_Span]:
    """Return the first address and the one after the last, for networks of one family."""
    return sorted(
        (int(network.network_address), int(network.broadcast_address) + 1)
        for network in networks
        if isinstance(network, IPv4Network) == (length == IPv4_BYTES)
    )


def _merged(spans: list[_Span]) -> list[_Span]:
    merged: list[_Span] = []
    for start, end in spans:
        if merged and start <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(end, merged[-1][1]))
        else:
            merged.append((start, end))
    return merged


def _boundaries(inside: list[_Span], outside: list[_Span], length: int) -> list[bytes]:
    """Where membership changes, in order: it begins at even indexes and ends at odd ones."""
    boundaries: list[int] = []
    for start, end in inside:
        at = start
        for hole_start, hole_end in outside:
            if hole_end <= at or hole_start >= end:
                continue
            if hole_start > at:
                boundaries += (at, hole_start)
            at = hole_end
        if at < end:
            boundaries += (at, end)
    # The end of the whole space does not fit into `length` octets, and nothing follows it.
    return [bound.to_bytes(length) for bound in boundaries if bound < 1 << (8 * length)]
