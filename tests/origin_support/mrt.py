"""Writes MRT table dumps (RFC 6396, TABLE_DUMP_V2), valid and invalid."""

import struct
from collections.abc import Sequence
from ipaddress import ip_network

#: 2026-11-22 06:00 UTC.
AT = 1795327200
PEER_AS = 3356
SET, SEQUENCE = 1, 2


def record(kind: int, subtype: int, body: bytes, at: int = AT) -> bytes:
    """Write the common header and a body (section 2)."""
    return struct.pack(">IHHI", at, kind, subtype, len(body)) + body


def peer_index(peers: int = 1, at: int = AT) -> bytes:
    """Write the peer table at the start of a dump (section 4.3.1): IPv4 peers, four-octet ASNs."""
    body = b"\xc0\x00\x02\x01" + struct.pack(">HH", 0, peers)
    for peer in range(peers):
        body += struct.pack(">B4s4sI", 2, bytes(4), bytes([192, 0, 2, peer + 1]), PEER_AS + peer)
    return record(13, 1, body, at)


def segment(kind: int, asns: Sequence[int]) -> bytes:
    """Write a segment of an AS_PATH."""
    return struct.pack(f">BB{len(asns)}I", kind, len(asns), *asns)


def attribute(kind: int, content: bytes) -> bytes:
    """Write a path attribute, with the extended length if it is needed."""
    if len(content) > 255:
        return struct.pack(">BBH", 0x50, kind, len(content)) + content
    return struct.pack(">BBB", 0x40, kind, len(content)) + content


def entry(path: bytes | None, peer: int = 0, at: int = AT) -> bytes:
    """Write a RIB entry (section 4.3.4): ORIGIN, and AS_PATH unless it is `None`."""
    attributes = attribute(1, b"\0") + (b"" if path is None else attribute(2, path))
    return struct.pack(">HIH", peer, at, len(attributes)) + attributes


def rib(
    prefix: str, paths: Sequence[bytes | None], *, subtype: int | None = None, at: int = AT
) -> bytes:
    """Write a prefix with an entry for each path (section 4.3.2)."""
    network = ip_network(prefix)
    octets = network.network_address.packed[: (network.prefixlen + 7) // 8]
    body = struct.pack(">IB", 0, network.prefixlen) + octets + struct.pack(">H", len(paths))
    body += b"".join(entry(path, peer, at) for peer, path in enumerate(paths))
    kind = subtype if subtype is not None else 2 if network.version == 4 else 4
    return record(13, kind, body, at)


def simple(prefix: str, asn: int, at: int = AT) -> bytes:
    """Write a prefix that one peer has from the origin `asn`."""
    return rib(prefix, [segment(SEQUENCE, [PEER_AS, 1299, asn])], at=at)


def dump(rows: Sequence[tuple[str, int]], at: int = AT) -> bytes:
    """Write an uncompressed dump of prefixes and their origins."""
    return peer_index(at=at) + b"".join(simple(prefix, asn, at) for prefix, asn in rows)
