"""pyasn's tree: the reader of a table, and the referee of what is compiled from it.

The only import of pyasn's look-ups. The C code raises for the whole table when
one prefix is no prefix, reads ASNs with `atol` modulo 2**32, and a node that
outlives its tree crashes when asked for its prefix: nodes never leave this module.
Its `packed=` arguments raise since Python 3.10; addresses go in as text.

A tree of a full table takes 300 MB, so that a table is loaded a part at a time. The most
specific prefix of an address is the most specific one of the parts' answers.
"""

import re
import socket
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Final

from pyasn import pyasn

from smtpfeeds_common.errors import OriginError

from .index import OriginIndex
from .prefixes import PrefixTable

#: How many prefixes that only pyasn finds bad are taken out one by one.
MAX_REFUSED: Final = 100
_RECORD: Final = re.compile(r"record: (\d+)")
_MAPPED: Final = 0xFFFF

#: Origin ASN and prefix, as pyasn has them.
Answer = tuple[int, str]


class Trees:
    """The trees of a table's parts, one after the other; counts what pyasn refuses."""

    def __init__(self, where: str) -> None:
        self._where = where
        self.refused = 0

    def load(self, parts: Iterable[str]) -> Iterator[Any]:
        """A tree for each part.

        Raises:
            OriginError: pyasn cannot load it, or refuses too much of it.
        """
        for part in parts:
            tree = self._load(part)
            if tree is not None:
                yield tree

    def _load(self, text: str) -> Any:
        """A tree without what pyasn refuses; `None` where nothing is left."""
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
    """Take out the numbered record (comments and blank lines are not counted)."""
    lines = re.finditer(r"^[0-9A-Fa-f:][^\n]*\n", text, re.MULTILINE)
    for seen, line in enumerate(lines, 1):
        if seen == number:
            text = text[: line.start()] + text[line.end() :]
            return text if re.search(r"^[0-9A-Fa-f:]", text, re.MULTILINE) else ""
    return ""


def read_prefixes(trees: Iterable[Any], where: str) -> tuple[PrefixTable, PrefixTable]:
    """The IPv4 and IPv6 prefixes with their origins; of a prefix that comes twice the later.

    Raises:
        OriginError: there is none.
    """
    ipv4, ipv6 = PrefixTable(32), PrefixTable(128)
    pton, number = socket.inet_pton, int.from_bytes
    for tree in trees:
        for node in tree:
            address, _, length = node.prefix.partition("/")
            if ":" in address:
                start = number(pton(socket.AF_INET6, address))
                # An IPv4-mapped address is its IPv4 address: such a prefix would never answer.
                if start >> 32 != _MAPPED:
                    ipv6.put(start, int(length), node.asn)
            else:
                ipv4.put(number(pton(socket.AF_INET, address)), int(length), node.asn)
    if not len(ipv4) + len(ipv6):
        raise OriginError(f"no prefix of the origin table {where} is valid")
    return ipv4, ipv6


def answers(trees: Iterable[Any], addresses: Sequence[bytes]) -> list[Answer | None]:
    """pyasn's answers over all parts: of the most specific prefix, of equal ones the later."""
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
    """Where an index answers other than pyasn: ASN, or ASN and prefix."""
    looked_up = index.lookup_many(addresses)
    for packed, asn, expected in zip(addresses, looked_up, answers(trees, addresses), strict=True):
        if index.find(packed) != expected or asn != (expected[0] if expected else None):
            yield f"{packed.hex()}: {expected} expected, {asn} and {index.find(packed)} found"
