"""Limits how many new addresses of an IPv6 /64 get their own row in a day.

The owner of one /48 has 65,536 /64s with 2⁶⁴ addresses each. Two bounds therefore hold: addresses
per prefix, and prefixes. Past either bound an address is not admitted, and its events count for
its /64. Only a new day makes room. If the table were emptied when it is full, one more prefix
would let all others bring new addresses again.

One array holds the interface identifiers (the lower 64 bits), with a fixed number of places per
prefix. 65,536 prefixes with 64 addresses each take about 42 MB.
"""

from array import array
from typing import Final

_ID_BYTES: Final = 8


class PrefixAdmission:
    """Admits a bounded number of addresses per prefix, from a bounded number of prefixes."""

    def __init__(self, per_prefix: int, prefixes: int) -> None:
        self._places_bytes, self._prefixes = per_prefix * _ID_BYTES, prefixes
        self.begin_day()

    def begin_day(self) -> None:
        """Begin a new day with an empty table."""
        #: Offset in ``_ids`` of the places of each prefix; a multiple of eight.
        self._starts: dict[bytes, int] = {}
        self._ids = bytearray()
        #: Offset in ``_ids`` after the last admitted address of each prefix, in order of arrival.
        self._ends = array("Q")

    def admits(self, ip: bytes) -> bool:
        """Admit a packed IPv6 address if it fits; return whether it gets its own row today."""
        start = self._starts.get(ip[:8])
        if start is None:
            return self._admit_first(ip)
        if self._is_among(ip[8:], start):
            return True
        number = start // self._places_bytes
        end = self._ends[number]
        if end - start >= self._places_bytes:
            return False
        self._ids[end : end + _ID_BYTES] = ip[8:]
        self._ends[number] = end + _ID_BYTES
        return True

    def has(self, ip: bytes) -> bool:
        """Return whether a packed IPv6 address was admitted today; admits none."""
        start = self._starts.get(ip[:8])
        return start is not None and self._is_among(ip[8:], start)

    def _is_among(self, interface_id: bytes, start: int) -> bool:
        end = self._ends[start // self._places_bytes]
        at = self._ids.find(interface_id, start, end)
        while at >= 0:
            if not at % _ID_BYTES:
                return True
            # This match straddles two addresses.
            at = self._ids.find(interface_id, at + 1, end)
        return False

    def _admit_first(self, ip: bytes) -> bool:
        if len(self._starts) >= self._prefixes or not self._places_bytes:
            return False
        start = self._starts[ip[:8]] = len(self._ids)
        self._ids += ip[8:] + bytes(self._places_bytes - _ID_BYTES)
        self._ends.append(start + _ID_BYTES)
        return True
