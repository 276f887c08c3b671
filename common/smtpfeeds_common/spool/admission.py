"""How many new addresses of an IPv6 /64 get a row of their own in a day.

The owner of one /48 has 65,536 /64s, and 2⁶⁴ addresses in each. So both are bounded: the addresses
of a prefix, and the prefixes. At either bound an address is not admitted, and its events are
counted under its /64. Nothing but a new day makes room: were the table emptied when it is full, one
more prefix would open all the others again.

The interface identifiers (the lower 64 bits) lie in one array, so many places for each prefix:
65,536 prefixes with 64 addresses each take some 42 MB.
"""

from array import array
from typing import Final

_ID_BYTES: Final = 8


class PrefixAdmission:
    """Admits a bounded number of addresses of each prefix, and of a bounded number of prefixes."""

    def __init__(self, per_prefix: int, prefixes: int) -> None:
        self._places_bytes, self._prefixes = per_prefix * _ID_BYTES, prefixes
        self.begin_day()

    def begin_day(self) -> None:
        """A new day: every prefix begins again."""
        #: Where in ``_ids`` the places of each prefix begin; a multiple of eight.
        self._starts: dict[bytes, int] = {}
        self._ids = bytearray()
        #: Where in ``_ids`` the addresses that were admitted end, by prefix as they came.
        self._ends = array("Q")

    def admits(self, ip: bytes) -> bool:
        """Whether a packed IPv6 address gets a row of its own today."""
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
        """Whether a packed IPv6 address was admitted today; asks for no place."""
        start = self._starts.get(ip[:8])
        return start is not None and self._is_among(ip[8:], start)

    def _is_among(self, interface_id: bytes, start: int) -> bool:
        end = self._ends[start // self._places_bytes]
        at = self._ids.find(interface_id, start, end)
        while at >= 0:
            if not at % _ID_BYTES:
                return True
            at = self._ids.find(interface_id, at + 1, end)  # that was of two neighbours
        return False

    def _admit_first(self, ip: bytes) -> bool:
        if len(self._starts) >= self._prefixes or not self._places_bytes:
            return False
        start = self._starts[ip[:8]] = len(self._ids)
        self._ids += ip[8:] + bytes(self._places_bytes - _ID_BYTES)
        self._ends.append(start + _ID_BYTES)
        return True
