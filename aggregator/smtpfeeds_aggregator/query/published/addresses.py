"""The addresses of a published file alone, many rows at a time.

A row counts where it has the form that a publication writes, which one regular expression
checks whole: names, numbers, times. A file with any other row is read by ``rows`` from its
beginning: what that accepts or refuses is the rule, and this module is only the fast way.
"""

import re
import socket
from collections.abc import Collection, Iterable, Iterator
from typing import IO, Final

from smtpfeeds_common.addresses import pack_address
from smtpfeeds_common.errors import AddressError
from smtpfeeds_common.feeds import FEED_NAMES

from ...classification.classes import Class
from ...publish.formats import csv_file
from ...publish.gzip_file import DAMAGED
from ..address_set import AddressSet
from .rows import FILE_BYTES_MAX, open_rows, read_entries

#: Read at once, and then to the end of the line.
_BLOCK_BYTES: Final = 1 << 20
#: A longer line is not of the usual form.
_ROW_BYTES_MAX: Final = 1 << 12

#: What a row of another form, or a damaged file, raises here.
_ANOTHER_FORM: Final[tuple[type[Exception], ...]] = (*DAMAGED, AddressError, ValueError, OSError)

_NUMBER: Final = "(?:0|[1-9][0-9]{0,8})"
_EVENTS: Final = "(?:0|[1-9][0-9]{0,17})"
_ASN: Final = "(?:[1-9][0-9]{0,8}|[1-3][0-9]{9}|4[01][0-9]{8}|42(?:[0-8][0-9]|9[0-3])[0-9]{6})"
_DATE: Final = (
    "20[0-9]{2}-(?:(?:0[1-9]|1[0-2])-(?:0[1-9]|1[0-9]|2[0-8])|(?:0[13-9]|1[0-2])-(?:29|30)"
    "|(?:0[13578]|1[02])-31)"
)
_TIME: Final = _DATE + " (?:[01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9]"
_ADDRESS: Final = "([0-9a-f.:]{2,45})"
_CLASS: Final = f"(?:{'|'.join(Class)})"
_MARKS: Final = "[#.]{7}"
_FLAG: Final = "(?:true|false)"
_HEAD: Final = ",".join(csv_file.COLUMNS).encode() + b"\n"
#: Printable ASCII, and neither a comma nor a quote; or within quotes.
_CELL: Final = r'(?:[ !#-+\--~]*|"[ !#-~]*(?:""[ !#-~]*)*")'
#: A text of JSON without any escape but of a quote and a backslash.
_TEXT: Final = r'"[ !#-\[\]-~]*(?:\\["\\][ !#-\[\]-~]*)*"'
_TEXTS: Final = rf"\[(?:{_TEXT}(?:,{_TEXT})*)?\]"


def read_addresses(
    stream: IO[bytes], name: str, feeds: Collection[str] | None = None
) -> AddressSet:
    """The addresses in a published file.

    Args:
        stream: its content, plain or compressed.
        name: what messages call it.
        feeds: rows of others are left out; None: all rows count.

    Raises:
        NotVerified: it holds something else, as `read_entries` says.
    """
    usual = _of_usual_form(stream, name, feeds)
    if usual is not None:
        return usual
    stream.seek(0)
    entries = read_entries(stream, name)
    return AddressSet.of(
        pack_address(entry.address) for entry in entries if feeds is None or entry.category in feeds
    )


def _of_usual_form(
    stream: IO[bytes], name: str, feeds: Collection[str] | None
) -> AddressSet | None:
    """The addresses; None where a row has another form, or is of another feed."""
    parts: list[AddressSet] = []
    try:
        source = open_rows(stream, name)
        head = source.readline(_ROW_BYTES_MAX)
        is_csv = head == _HEAD
        row = re.compile((_csv_row if is_csv else _ndjson_row)(feeds or FEED_NAMES), re.MULTILINE)
        for block in _blocks(source, b"" if is_csv else head):
            texts = row.findall(block)
            if len(texts) != block.count("\n") or not block.endswith("\n"):
                return None
            parts.append(_packed(texts))
    except _ANOTHER_FORM:
        return None
    return AddressSet.union(parts)


def _csv_row(feeds: Collection[str]) -> str:
    return (
        f"^(?:NA|{_ASN}),{_CELL},{_ADDRESS},{_TIME},{_any(feeds)},{_TIME},{_EVENTS},{_NUMBER},"
        f"{_CELL},{_CLASS},{_CELL},{_CELL},[0-7],{_MARKS},{_NUMBER},{_FLAG}\n"
    )


def _ndjson_row(feeds: Collection[str]) -> str:
    return (
        f'^{{"ASN":(?:null|{_ASN}),"ASname":(?:null|{_TEXT}),"ipaddr":"{_ADDRESS}",'
        f'"lastseen":"{_TIME}","category":"{_any(feeds)}","first_seen":"{_TIME}",'
        f'"hits":{_EVENTS},"sensors":{_NUMBER},"tags":{_TEXTS},"class":"{_CLASS}",'
        f'"why":{_TEXTS},"actor":(?:null|{_TEXT}),"days_seen":[0-7],"days":"{_MARKS}",'
        f'"targets":{_NUMBER},"new":{_FLAG}}}\n'
    )


def _any(words: Iterable[str]) -> str:
    return "(?:" + "|".join(words) + ")"


def _blocks(source: IO[bytes], start: bytes) -> Iterator[str]:
    """Whole lines, as text.

    Raises:
        ValueError: it is too large, or not ASCII.
    """
    size = 0
    while octets := start + source.read(_BLOCK_BYTES):
        octets += source.readline(_ROW_BYTES_MAX)
        size += len(octets)
        if size > FILE_BYTES_MAX:
            raise ValueError(size)
        yield octets.decode("ascii")
        start = b""


def _packed(texts: list[str]) -> AddressSet:
    """Pack them; raises OSError or AddressError where one is not an address."""
    quads = [text for text in texts if ":" not in text]
    inet_pton, family = socket.inet_pton, socket.AF_INET
    return AddressSet.of(
        [
            *[inet_pton(family, text) for text in quads],
            *([] if len(quads) == len(texts) else [pack_address(t) for t in texts if ":" in t]),
        ]
    )
