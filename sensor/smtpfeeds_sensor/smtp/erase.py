"""Overwriting what a client sent, where it was read and in every copy.

Memory that a program frees keeps its octets until something else is written there, and short
clients may never reach the end of a long one's line. So what a client sends stays in ``bytearray``
objects, which can be overwritten, and each is overwritten before it is freed. Regular expressions
read in place, without a copy. Stands alone because all modules that read octets use it.
"""

#: What arrives: a view of what is overwritten after the call, or TLS's own copy.
Octets = bytes | bytearray | memoryview


def erase(octets: bytearray) -> None:
    """Overwrite octets with zeros, in place."""
    octets[:] = bytearray(len(octets))
