"""Reads a table with pyasn's tree, and checks a compiled index against it.

The only import of pyasn's look-ups. pyasn's C code rejects the whole table for one bad
prefix, reads ASNs with `atol` modulo 2**32, and crashes when a node that outlives its
tree is read; so nodes never leave this module. Its `packed=` arguments raise since
Python 3.10, so addresses are passed as text.

A tree of a full table takes 300 MB, so a table is loaded in parts. The most specific
prefix of an address is the most specific answer of all parts.
"""

import re
import socket
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Final

from pyasn import pyasn

from smtpfeeds_common.errors import OriginError

from .index import OriginIndex
from .prefixes import PrefixTable

#: How many prefixes that only pyasn rejects are removed, one by one.
MAX_REFUSED: Final = 100
_RECORD: Final = re.compile(r"record: (\d+)")
_MAPPED: Final = 0xFFFF

#: Origin ASN and prefix, as pyasn returns them.
Answer = tuple[int, str]


class Trees:
    """Loads a tree for each part of a table; counts the prefixes that pyasn refuses."""

    def __init__(self, where: str) -> None:
        self._where = where
        self.refused = 0

    def load(self, parts: Iterable[str]) -> Iterator[Any]:
        """Yield a tree for each part.

        Raises:
            OriginError: pyasn cannot load a part, or refuses too many prefixes.
        """
        for part in parts:
            tree = self._load(part)
            if tree is not None:
                yield tree

    def _load(self, text: str) -> Any:
        """Load a tree without the prefixes that pyasn refuses; `None` if none is left."""
        while text:
            try:
                return pyasn(None, ipasn_string=text).radix
            except RuntimeError as exc:
                record = _RECORD.search(str(exc))
                self.refused += 1
                if record is None or self.refused > MAX_REFUSED:
                    raise OriginError(
                        f"pyasn cannot load the origin table {self._where}: {exc}"
                    ) from exc
                text = _drop_record(text, int(record[1]))
        return None


def _drop_record(text: str, number: int) -> str:
    """Remove the numbered record; comments and blank lines do not count."""
    lines = re.finditer(r"^[0-9A-Fa-f:][^\n]*\n", text, re.MULTILINE)
    for seen, line in enumerate(lines, 1):
        if seen == number:
            text = text[: line.start()] + text[line.end() :]
            return text if re.search(r"^[0-9A-Fa-f:]", text, re.MULTILINE) else ""
    return ""


def read_prefixes(trees: Iterable[Any], where: str) -> tuple[PrefixTable, PrefixTable]:
    """Return the IPv4 and IPv6 prefixes with their origins; a later duplicate wins.

    Raises:
        OriginError: there is no prefix.
    """
    ipv4, ipv6 = PrefixTable(32), PrefixTable(128)
    pton, number = socket.inet_pton, int.from_bytes
    for tree in trees:
        for node in tree:
            address, _, length = node.prefix.partition("/")
            if ":" in address:
                start = number(pton(socket.AF_INET6, address))
                # A look-up treats an IPv4-mapped address as IPv4, so it never uses this prefix.
                if start >> 32 != _MAPPED:
                    ipv6.put(start, int(length), node.asn)
            else:
                ipv4.put(number(pton(socket.AF_INET, address)), int(length), node.asn)
    if not len(ipv4) + len(ipv6):
        raise OriginError(f"no prefix of the origin table {where} is valid")
    return ipv4, ipv6


def answers(trees: Iterable[Any], addresses: Sequence[bytes]) -> list[Answer | None]:
    """Return pyasn's answers over all parts: the most specific prefix, the later of equal ones."""
    families = (socket.AF_INET if len(packed) == 4 else socket.AF_INET6 for packed in addresses)
    texts = list(map(socket.inet_ntop, families, addresses))
    best: list[tuple[int, Answer] | None] = [None] * len(texts)
    for tree in trees:
        for at, text in enumerate(texts):
            node = tree.search_best(text)
            if node is None:
                continue
            length, known = int(node.prefix.rpartition("/")[2]), best[at]
            if known is None or length >= known[0]:
                best[at] = length, (node.asn, node.prefix)
    return [None if known is None else known[1] for known in best]


def disagreements(
    trees: Iterable[Any], index: OriginIndex, addresses: Sequence[bytes]
) -> Iterator[str]:
    """Yield each address for which index and pyasn differ in ASN or prefix."""
    looked_up = index.lookup_many(addresses)
    for packed, asn, expected in zip(addresses, looked_up, answers(trees, addresses), strict=True):
        if index.find(packed) != expected or asn != (expected[0] if expected else None):
            yield f"{packed.hex()}: {expected} expected, {asn} and {index.find(packed)} found"
