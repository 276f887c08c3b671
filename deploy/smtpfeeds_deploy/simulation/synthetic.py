"""Invented origins of documentation prefixes, and a plan of visits from them.

Addresses are from RFC 5737 and RFC 3849, AS numbers from RFC 5398; nobody uses them. The origin
table is in pyasn's text format and the names are in its JSON format, so the programs read them
like real ones. The same seed gives the same visits.
"""

import json
import random
from collections.abc import Iterator, Sequence
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from pathlib import Path
from typing import Final

from smtpfeeds_common.addresses import normalise_address

from .clients import KINDS
from .simulate import Target, Visit

#: Prefix to origin; the longest prefix wins. 203.0.113.128/25 and 2001:db8:f000::/36 have none.
ORIGINS: Final = {
    "192.0.2.0/24": 64496,
    "192.0.2.128/25": 64497,
    "198.51.100.0/24": 65536,
    "198.51.100.64/26": 65537,
    "203.0.113.0/25": 64500,
    "2001:db8::/36": 64496,
    "2001:db8:1000::/36": 65550,
    "2001:db8:2000::/36": 65551,
    "2001:db8:2000::/48": 64511,
}
#: 65551 has no name, as is the case for some real ones.
AS_NAMES: Final = {
    64496: "EXAMPLE-ONE",
    64497: "Example Two Broadband",
    64500: "University of Examples",
    64511: "Invalid Hosting Ltd",
    65536: "Sample Cloud",
    65537: "Sample Cloud Survey Project for Openly Reachable Hosts",
    65550: "Test Networks, Inc.",
}

#: Of 100 visits, those of each kind; the other kinds come at least once.
_WEIGHTS: Final = {
    "scanner": 22,
    "bare_ehlo": 8,
    "mailer": 9,
    "spammer": 14,
    "early_spammer": 5,
    "bare_lf_bot": 9,
    "http_request": 6,
    "tls_hello": 6,
    "helo_twice": 4,
    "data_out_of_order": 4,
    "banner_grabber": 3,
}
#: Of 100 visits, those from each prefix.
_SOURCES: Final = {
    "192.0.2.0/25": 14,
    "192.0.2.128/25": 12,
    "198.51.100.0/26": 12,
    "198.51.100.64/26": 10,
    "203.0.113.0/25": 10,
    "203.0.113.128/25": 8,
    "2001:db8:5::/48": 10,
    "2001:db8:1001::/48": 10,
    "2001:db8:2000::/48": 6,
    "2001:db8:2001::/48": 4,
    "2001:db8:f000::/48": 4,
}
#: Fewer than the addresses of an IPv6 /64 that get rows of their own in a day.
_HOSTS_PER_PREFIX64: Final = 12
_PREFIXES64: Final = 8
_MAPPED_SHARE: Final = 0.05


def write_origin_table(path: Path) -> None:
    """Write the origin table in pyasn's format."""
    lines = ["; A made-up origin table: documentation prefixes and AS numbers\n"]
    lines += [f"{prefix}\t{asn}\n" for prefix, asn in ORIGINS.items()]
    path.write_text("".join(lines), encoding="ascii")


def write_as_names(path: Path) -> None:
    """Write the AS names in pyasn's format."""
    names = {str(asn): name for asn, name in AS_NAMES.items()}
    path.write_text(json.dumps(names, indent=2) + "\n", encoding="utf-8")


def origin_of(address: str) -> int | None:
    """Return the origin of an address by ``ORIGINS``, independently of pyasn."""
    ip = ip_address(address)
    covering = [ip_network(prefix) for prefix in ORIGINS]
    covering = [net for net in covering if net.version == ip.version and ip in net]
    if not covering:
        return None
    return ORIGINS[str(max(covering, key=lambda net: net.prefixlen))]


def visits(
    count: int,
    targets: Sequence[Target],
    *,
    seed: int,
    sources: Sequence[str] = (),
) -> list[Visit]:
    """Plan visits, with every kind of client at least once and sources that repeat.

    Args:
        count: the number of visits, at least the number of kinds.
        targets: the sensors' addresses; each visit goes to one of them.
        seed: the same seed gives the same plan.
        sources: addresses to come from, instead of the invented ones.
    """
    chance = random.Random(seed)  # noqa: S311 - a plan to repeat, no secret
    pool = list(sources) or list(_pool(chance, max(count // 2, 1)))
    kinds = [*KINDS, *chance.choices([*_WEIGHTS], [*_WEIGHTS.values()], k=count)][:count]
    chance.shuffle(kinds)
    return [
        Visit(
            kind=kind,
            target=chance.choice(targets),
            source=_spelling(chance, chance.choice(pool)),
            proxy_version=chance.choice((1, 2)),
        )
        for kind in kinds
    ]


def _pool(chance: random.Random, count: int) -> Iterator[str]:
    """Yield source addresses, fewer than visits, so that some repeat."""
    prefixes = chance.choices([*_SOURCES], [*_SOURCES.values()], k=count)
    for prefix in prefixes:
        network = ip_network(prefix)
        if network.version == 4:
            yield str(IPv4Address(int(network[0]) + chance.randrange(1, network.num_addresses - 1)))
        else:
            subnet = chance.randrange(_PREFIXES64) << 64
            host = chance.randrange(1, _HOSTS_PER_PREFIX64 + 1)
            yield normalise_address(str(IPv6Address(int(network[0]) + subnet + host)))


def _spelling(chance: random.Random, address: str) -> str:
    """Write some IPv4 addresses as IPv4-mapped IPv6, as a dual-stack proxy does."""
    mapped = ":" not in address and chance.random() < _MAPPED_SHARE
    return f"::ffff:{address}" if mapped else address
