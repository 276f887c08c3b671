"""What no origin table should hold: prefixes and ASNs that are not of the public Internet.

Pure. Prefixes after IANA's special-purpose address registries (RFC 6890 and its
updates); ASNs after IANA's special-purpose AS number registry (RFC 7249); the
bounds of a prefix's length after common practice of route filters (RFC 7454).
"""

from bisect import bisect_right
from collections.abc import Iterable, Iterator
from ipaddress import IPv4Network, IPv6Network
from typing import Final

from ..table.compile import Prefix

#: Shortest and longest prefix that is kept, by the family's bits.
LENGTHS: Final = {32: (8, 24), 128: (16, 48)}

_IPV4: Final = (
    "0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12",
    "192.0.0.0/24", "192.0.2.0/24", "192.168.0.0/16", "198.18.0.0/15", "198.51.100.0/24",
    "203.0.113.0/24", "224.0.0.0/3",
)  # fmt: skip
_IPV6: Final = (
    "::/3", "2001::/32", "2001:2::/48", "2001:10::/28", "2001:20::/28", "2001:db8::/32",
    "2002::/16", "3fff::/20", "4000::/2", "8000::/1",
)  # fmt: skip
#: First and last ASN of each block that announces nothing on the public Internet.
RESERVED_ASNS: Final = (
    (0, 0),  # RFC 7607
    (23456, 23456),  # AS_TRANS, RFC 6793
    (64496, 131071),  # documentation, private use, RFC 7300, documentation, IANA's reserve
    (4200000000, 4294967295),  # private use, RFC 7300
)

#: Why a prefix was left out; the keys of the counts.
REASONS: Final = ("default", "too_short", "too_long", "bogon", "reserved_asn")


class PrefixFilter:
    """Leaves out what should not be in a table, and counts it by reason."""

    def __init__(self, *, allow_reserved: bool) -> None:
        """With `allow_reserved`, special-purpose prefixes and ASNs stay: a private table."""
        self._allow_reserved = allow_reserved
        self._blocks = {32: _blocks(_IPV4, IPv4Network), 128: _blocks(_IPV6, IPv6Network)}
        self.left_out: dict[str, int] = dict.fromkeys(REASONS, 0)

    def keep(self, prefixes: Iterable[Prefix], bits: int) -> Iterator[Prefix]:
        """Give those prefixes of one family that stay."""
        for prefix in prefixes:
            reason = self._reason(prefix, bits)
            if reason:
                self.left_out[reason] += 1
            else:
                yield prefix

    def _reason(self, prefix: Prefix, bits: int) -> str:
        start, length, asn = prefix
        if length == 0:
            return "default"
        if asn in {0, 23456, 65535, 4294967295} or not (self._allow_reserved or is_public_asn(asn)):
            return "reserved_asn"
        if self._allow_reserved:
            return ""
        shortest, longest = LENGTHS[bits]
        if length > longest:
            return "too_long"
        starts, ends = self._blocks[bits]
        block = bisect_right(starts, start) - 1
        if block >= 0 and start <= ends[block]:
            return "bogon"
        # A prefix over a special-purpose block is caught by its length: none is that short.
        return "too_short" if length < shortest else ""


def is_public_asn(asn: int) -> bool:
    """Whether an ASN may announce prefixes on the public Internet."""
    return not any(first <= asn <= last for first, last in RESERVED_ASNS)


def _blocks(
    texts: Iterable[str], kind: type[IPv4Network] | type[IPv6Network]
) -> tuple[list[int], list[int]]:
    """First and last addresses of the blocks, in order."""
    networks = sorted(kind(text) for text in texts)
    return (
        [int(network.network_address) for network in networks],
        [int(network.broadcast_address) for network in networks],
    )
