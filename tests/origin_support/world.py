"""Invented prefixes, origins and names, and the ways in which a RIB of them can be broken."""

import bz2
import random
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from ipaddress import IPv4Network, IPv6Network
from pathlib import Path
from typing import Any

from smtpfeeds_aggregator.settings import AggregatorSettings

from . import mrt

#: The current time of the tests, a day after the RIBs.
NOW = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)
KNOWN = ("16.0.0.1=3333", "2400:100::1=15169")


def rows(count4: int = 400, count6: int = 120, *, seed: int = 1) -> list[tuple[str, int]]:
    """Return prefixes with origins, some of them nested; the same for the same arguments."""
    chance = random.Random(seed)
    prefixes = {"16.0.0.0/16": 3333, "2400:100::/32": 15169}
    while len(prefixes) < count4:
        length = chance.choice([12, 16, 19, 20, 22, 23, 24])
        number = (chance.randrange(16, 96) << 24) | chance.getrandbits(24)
        net = IPv4Network((number >> (32 - length) << (32 - length), length))
        if not net.supernet_of(IPv4Network("16.0.0.0/16")) and number >> 16 != 0x1000:
            prefixes[str(net)] = chance.randrange(2, 20_000)
    while len(prefixes) < count4 + count6:
        length = chance.choice([29, 32, 36, 40, 44, 48])
        number = (0x2A << 120) | (chance.getrandbits(24) << 96) | (chance.getrandbits(96))
        prefixes[str(IPv6Network((number >> (128 - length) << (128 - length), length)))] = (
            chance.randrange(2, 20_000)
        )
    return list(prefixes.items())


def table_text(table: list[tuple[str, int]]) -> str:
    """Write the rows as a pyasn table."""
    ipv6 = sum(":" in prefix for prefix, _ in table)
    head = f"; IP-ASN32-DAT file\n; Prefixes-v4   : {len(table) - ipv6}\n; Prefixes-v6   : {ipv6}\n"
    return head + "".join(f"{prefix}\t{asn}\n" for prefix, asn in table)


def names_text(count: int = 500) -> str:
    """Write AS names in the layout of asn.txt."""
    return "".join(f"{asn} NET{asn} - Network {asn}, Inc., US\n" for asn in range(2, count + 2))


def packed_rib(table: list[tuple[str, int]]) -> bytes:
    """Write a valid RIB, compressed as in an archive."""
    return bz2.compress(mrt.dump(table))


def settings(directory: Path, **changes: Any) -> AggregatorSettings:
    """Create settings whose bounds fit the invented prefixes."""
    base = AggregatorSettings(
        origin_dir=str(directory),
        origin_rib_urls=(),
        origin_names_urls=(),
        origin_min_prefixes_ipv4=300,
        origin_min_prefixes_ipv6=100,
        origin_min_origins=300,
        origin_min_names=100,
        origin_known_answers=KNOWN,
        origin_max_bad_records=0,
        origin_stall_timeout_s=60,
        origin_fetch_timeout_s=120,
    )
    return replace(base, **changes)


def _seq(*asns: int) -> bytes:
    return mrt.segment(mrt.SEQUENCE, asns)


def _cut_records(whole: bytes, count: int) -> bytes:
    at = 0
    for _ in range(count):
        at += 12 + int.from_bytes(whole[at + 8 : at + 12])
    return whole[:at]


def broken_ribs() -> dict[str, bytes]:
    """Return RIBs that must not be used, by their fault."""
    whole = mrt.dump(rows())
    good = bz2.compress(whole)
    odd: dict[str, Callable[[], bytes]] = {
        "empty-aspath": lambda: mrt.rib("90.0.0.0/24", [b""]),
        "no-aspath": lambda: mrt.rib("90.0.0.0/24", [None]),
        "aspath-starts-with-set": lambda: mrt.rib("90.0.0.0/24", [mrt.segment(mrt.SET, [15169])]),
        "all-private-path": lambda: mrt.rib("90.0.0.0/24", [_seq(64512, 64513)]),
        "addpath-subtype": lambda: mrt.rib("90.0.0.0/24", [_seq(3356, 15169)], subtype=8),
        "multicast-subtype": lambda: mrt.rib("90.0.0.0/24", [_seq(3356, 15169)], subtype=3),
        "generic-subtype": lambda: mrt.rib("90.0.0.0/24", [_seq(3356, 15169)], subtype=6),
    }
    return {
        "truncated": good[: len(good) * 2 // 3],
        "flipped": good[:2000] + bytes([good[2000] ^ 0xFF]) + good[2001:],
        "cut-record": bz2.compress(whole[:-7]),
        "short-but-valid": bz2.compress(_cut_records(whole, 50)),
        "peer-index-only": bz2.compress(mrt.peer_index()),
        "empty": bz2.compress(b""),
        "zero-bytes": b"",
        "html-error": b"<!DOCTYPE html><html><title>404 Not Found</title></html>\n",
        "not-a-rib-updates": bz2.compress(mrt.record(16, 4, bytes(20))),
        **{name: bz2.compress(whole + make()) for name, make in odd.items()},
    }
