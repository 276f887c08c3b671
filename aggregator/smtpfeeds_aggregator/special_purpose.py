"""Addresses outside the public Internet: a dated copy of IANA's special-purpose registries.

Feeds leave out these addresses, origin tables and lists these prefixes; this is the
project's only copy. It was copied by hand from the IPv4 and IPv6 Special-Purpose Address
Registries (RFC 6890), the multicast registries and the IPv6 address space registry, as
of ``AS_OF``. Python's ``is_global`` is not a substitute: it depends on the interpreter's
version, accepts multicast and lacks the newer reservations.

"Globally reachable: N/A" (Teredo, 6to4 and its relay anycast) counts as not
routable: such an address names a tunnel, not the host behind it. ASNs follow the AS number
registries (RFC 7249).
"""

from ipaddress import ip_network
from typing import Final

from .address_ranges import AddressRanges

#: "Last updated" of the IPv6 registry that this copy follows; later additions are missing here.
AS_OF: Final = "2025-10-09"

#: Not globally reachable, with the registry's name and its document.
NOT_GLOBAL: Final = {
    "0.0.0.0/8": "this network, RFC 791",
    "10.0.0.0/8": "private use, RFC 1918",
    "100.64.0.0/10": "shared address space, RFC 6598",
    "127.0.0.0/8": "loopback, RFC 1122",
    "169.254.0.0/16": "link local, RFC 3927",
    "172.16.0.0/12": "private use, RFC 1918",
    "192.0.0.0/24": "IETF protocol assignments, RFC 6890",
    "192.0.2.0/24": "documentation (TEST-NET-1), RFC 5737",
    "192.88.99.0/24": "deprecated 6to4 relay anycast, RFC 7526",
    "192.168.0.0/16": "private use, RFC 1918",
    "198.18.0.0/15": "benchmarking, RFC 2544",
    "198.51.100.0/24": "documentation (TEST-NET-2), RFC 5737",
    "203.0.113.0/24": "documentation (TEST-NET-3), RFC 5737",
    "224.0.0.0/4": "multicast, RFC 5771",
    "240.0.0.0/4": "reserved, RFC 1112, and limited broadcast, RFC 8190",
    # Only 2000::/3 is global unicast. These three hold loopback, mapped, discard-only (100::/64),
    # dummy prefix (100:0:0:1::/64), local-use translation (64:ff9b:1::/48), segment routing
    # (5f00::/16), unique local, link local, multicast and addresses that the IETF reserves.
    "::/3": "reserved by the IETF, RFC 4291, and all special prefixes in it",
    "4000::/2": "reserved by the IETF, RFC 4291, with segment routing SIDs, RFC 9602",
    "8000::/1": "reserved by the IETF, unique and link local, multicast, RFC 4291, RFC 4193",
    "2001::/23": "IETF protocol assignments with Teredo and benchmarking, RFC 2928",
    "2001:db8::/32": "documentation, RFC 3849",
    "2002::/16": "6to4, RFC 3056",
    "3fff::/20": "documentation, RFC 9637",
}

#: Globally reachable parts of the prefixes above.
GLOBAL_WITHIN: Final = {
    "192.0.0.9/32": "Port Control Protocol anycast, RFC 7723",
    "192.0.0.10/32": "Traversal Using Relays around NAT anycast, RFC 8155",
    "64:ff9b::/96": "IPv4-IPv6 translation, RFC 6052",
    "2001:1::1/128": "Port Control Protocol anycast, RFC 7723",
    "2001:1::2/128": "Traversal Using Relays around NAT anycast, RFC 8155",
    "2001:1::3/128": "DNS-SD service registration anycast, RFC 9665",
    "2001:3::/32": "AMT, RFC 7450",
    "2001:4:112::/48": "AS112-v6, RFC 7535",
    "2001:20::/28": "ORCHIDv2, RFC 7343",
    "2001:30::/28": "drone remote identification, RFC 9374",
}


def not_global() -> AddressRanges:
    """Return the addresses that published feeds leave out."""
    return AddressRanges(map(ip_network, NOT_GLOBAL), map(ip_network, GLOBAL_WITHIN))


#: First and last ASN of each block that may not announce prefixes on the public Internet.
RESERVED_ASNS: Final = (
    (0, 0),  # RFC 7607
    (23456, 23456),  # AS_TRANS, RFC 6793
    (64496, 131071),  # documentation, private use, RFC 7300, documentation, IANA's reserve
    (4200000000, 4294967295),  # private use, RFC 7300
)


def is_public_asn(asn: int) -> bool:
    """Whether an ASN may announce prefixes on the public Internet."""
    return not any(first <= asn <= last for first, last in RESERVED_ASNS)
