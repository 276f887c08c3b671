"""How many new addresses of an IPv6 /64 get a row of their own in a day.

Whoever has a /48 has 65,536 /64s, and 2⁶⁴ addresses in each: bounded are the addresses of a prefix
and the prefixes. At either bound an address is not admitted, and its events are counted under its
/64. Nothing but a new day makes room: were the table emptied when it is full, one more prefix
would open all the others again.

The interface identifiers (the lower 64 bits) lie in one array, so many places for each prefix:
65,536 prefixes with 64 addresses each take some 40 MB.
"""

from array import array
from typing import Final

_ID_BYTES: Final = 8


class PrefixAdmission:
    """Admits a bounded number of addresses of each prefix, and of a bounded number of prefixes."""

    def __init__(self, per_prefix: int, prefixes: int) -> None:
        self._per_prefix, self._prefixes = per_prefix, prefixes
        #: Place of each prefix in ``_ids``, in the order they came.
        self._places: dict[bytes, int] = {}
        self._ids = bytearray()
        #: How many addresses were admitted, by place.
        self._admitted = array("L")

    def admits(self, ip: bytes) -> bool:
        """Whether a packed IPv6 address gets a row of its own today."""
        place = self._places.get(ip[:8])
        if place is None:
            return self._admit_first(ip)
        start = place * self._per_prefix * _ID_BYTES
        count = self._admitted[place]
        end = start + count * _ID_BYTES
        if self._holds(ip[8:], start, end):
            return True
        if count >= self._per_prefix:
            return False
        self._ids[end : end + _ID_BYTES] = ip[8:]
        self._admitted[place] = count + 1
        return True

    def _admit_first(self, ip: bytes) -> bool:
        place = len(self._places)
        if place >= self._prefixes or self._per_prefix < 1:
            return False
        self._places[ip[:8]] = place
        self._ids += ip[8:] + bytes((self._per_prefix - 1) * _ID_BYTES)
        self._admitted.append(1)
        return True

    def _holds(self, interface_id: bytes, start: int, end: int) -> bool:
        at = self._ids.find(interface_id, start, end)
        while at >= 0 and (at - start) % _ID_BYTES:
            # Octets of two neighbours.
            at = self._ids.find(interface_id, at + 1, end)
        return at >= 0

    def begin_day(self) -> None:
        """A new day: every prefix begins anew."""
        self._places, self._ids, self._admitted = {}, bytearray(), array("L")
