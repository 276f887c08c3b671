"""Filters prefixes and ASNs that are not of the public Internet out of an origin table.

Pure. Prefixes and ASNs follow the copy of IANA's registries in `special_purpose`; the
bounds of a prefix's length follow common practice of route filters (RFC 7454).
"""

from typing import Final

from ...special_purpose import is_public_asn, not_global
from ..table.prefixes import Prefix

#: Shortest and longest prefix length that is kept, by the family's bits.
LENGTHS: Final = {32: (8, 24), 128: (16, 48)}

#: Why a prefix is left out; the keys of the counts.
REASONS: Final = ("default", "too_short", "too_long", "bogon", "reserved_asn")


class PrefixFilter:
    """Decides which prefixes stay, and counts the others by reason."""

    def __init__(self, *, allow_reserved: bool) -> None:
        """With `allow_reserved`, keep special-purpose prefixes and ASNs, for a private network."""
        self._allow_reserved = allow_reserved
        self._not_global = not_global()
        self.left_out: dict[str, int] = dict.fromkeys(REASONS, 0)

    def wants(self, prefix: Prefix, bits: int) -> bool:
        """Return whether a prefix stays; count it if it does not."""
        reason = self._reason(prefix, bits)
        if reason:
            self.left_out[reason] += 1
        return not reason

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
        if start.to_bytes(bits // 8) in self._not_global:
            return "bogon"
        # A prefix that covers a special-purpose block from outside is too short anyway.
        return "too_short" if length < shortest else ""
