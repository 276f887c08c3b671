"""Writes the header of the PROXY protocol, which names the client of a connection.

Versions 1 and 2 follow HAProxy's doc/proxy-protocol.txt, sections 2.1 and 2.2. A simulated client
sends the header first, so that a sensor which trusts this host takes its address from there.
"""

import socket
from typing import Final

_SIGNATURE: Final = b"\r\n\r\n\0\r\nQUIT\n"
_V2_PROXY: Final = 0x21
_TCP4: Final = 0x11
_TCP6: Final = 0x21


def version_1(source: str, destination: str, source_port: int, destination_port: int) -> bytes:
    """Write the text header. Both addresses are of the same family."""
    family = "TCP6" if ":" in source else "TCP4"
    line = f"PROXY {family} {source} {destination} {source_port} {destination_port}\r\n"
    return line.encode("ascii")


def version_2(source: str, destination: str, source_port: int, destination_port: int) -> bytes:
    """Write the binary header. Both addresses are of the same family."""
    family, code = (socket.AF_INET6, _TCP6) if ":" in source else (socket.AF_INET, _TCP4)
    body = (
        socket.inet_pton(family, source)
        + socket.inet_pton(family, destination)
        + source_port.to_bytes(2)
        + destination_port.to_bytes(2)
    )
    return _SIGNATURE + bytes((_V2_PROXY, code)) + len(body).to_bytes(2) + body
