"""Overwrite a client's octets, where they were read and in every copy.

Freed memory keeps its octets until something else is written there. So a client's octets stay in
``bytearray`` objects, and each is overwritten before it is freed. Regular expressions read in
place, without a copy. The module is separate because all modules that read octets use it.
"""

#: Octets that arrive: a view that is overwritten after the call, or TLS's own copy.
Octets = bytes | bytearray | memoryview


def erase(octets: bytearray) -> None:
    """Overwrite octets with zeros, in place."""
    octets[:] = bytearray(len(octets))
