"""pyasn's tree: the reader of a table, and the referee of what is compiled from it.

The only import of pyasn's look-ups. The C code raises for the whole table when
one prefix is no prefix, reads ASNs with `atol` modulo 2**32, and a node that
outlives its tree crashes when asked for its prefix: nodes never leave this module.
Its `packed=` arguments raise since Python 3.10; addresses go in as text.
"""

import re
import socket
from collections.abc import Iterable, Iterator
from typing import Any, Final

from pyasn import pyasn

from smtpfeeds_common.errors import OriginError

from .compile import Prefix
from .index import OriginIndex

#: How many prefixes that only pyasn finds bad are taken out one by one.
MAX_REFUSED: Final = 100
_RECORD: Final = re.compile(r"record: (\d+)")


def load_tree(text: str, where: str) -> tuple[Any, int]:
    """Load checked text into a tree, leaving out what pyasn refuses; give how many that were.

    Raises:
        OriginError: nothing or too much is left out.
    """
    refused = 0
    while True:
        try:
            tree = pyasn(None, ipasn_string=text).radix
        except RuntimeError as exc:
            found = _RECORD.search(str(exc))
            refused += 1
            if found is None or refused > MAX_REFUSED:
                raise OriginError(f"pyasn cannot load the origin table {where}: {exc}") from exc
            text = _drop_record(text, int(found[1]))
            if not text:
                raise OriginError(f"no prefix of the origin table {where} is valid") from exc
        else:
            return tree, refused


def _drop_record(text: str, number: int) -> str:
    """Take out the numbered record (comments and blank lines are not counted)."""
    for seen, line in enumerate(re.finditer(r"^[0-9A-Fa-f:][^\n]*\n", text, re.MULTILINE), 1):
        if seen == number:
            return text[: line.start()] + text[line.end() :]
    return ""


def prefixes(tree: Any) -> tuple[list[Prefix], list[Prefix]]:
    """The tree's IPv4 and IPv6 prefixes with their origins, each sorted and once."""
    ipv4: list[Prefix] = []
    ipv6: list[Prefix] = []
    pton, number = socket.inet_pton, int.from_bytes
    mapped = 0xFFFF
    for node in tree:
        address, _, length = node.prefix.partition("/")
        if ":" in address:
            start = number(pton(socket.AF_INET6, address))
            # An IPv4-mapped address is its IPv4 address: such a prefix would never answer.
            if start >> 32 != mapped:
                ipv6.append((start, int(length), node.asn))
        else:
            ipv4.append((number(pton(socket.AF_INET, address)), int(length), node.asn))
    ipv4.sort()
    ipv6.sort()
    return ipv4, ipv6


def disagreements(tree: Any, index: OriginIndex, addresses: Iterable[bytes]) -> Iterator[str]:
    """Where an index answers other than pyasn: ASN, or ASN and prefix."""
    sample = list(addresses)
    answers = index.lookup_many(sample)
    for packed, answer in zip(sample, answers, strict=True):
        family = socket.AF_INET if len(packed) == 4 else socket.AF_INET6
        text = socket.inet_ntop(family, packed)
        node = tree.search_best(text)
        expected = (node.asn, node.prefix) if node else None
        if index.find(packed) != expected or answer != (expected[0] if expected else None):
            yield f"{text}: {expected} expected, {answer} and {index.find(packed)} found"
