"""Read only the addresses of a published file, many rows at a time.

One regular expression checks that a whole row has the form that a publication writes: names,
numbers, times. If any row has another form, ``rows`` reads the file from its beginning: that module
decides which rows are valid, and this one is only the fast path.
"""

import re
from collections.abc import Collection, Iterable, Iterator
from typing import IO, Final

from smtpfeeds_common.addresses import pack_address
from smtpfeeds_common.errors import AddressError
from smtpfeeds_common.feeds import FEED_NAMES

from ...classification.classes import Class
from ...publish.formats import csv_file
from ...publish.gzip_file import DAMAGED
from ..address_set import AddressSet
from ..plain_quads import quads_in_lines
from .rows import FILE_BYTES_MAX, open_rows, read_entries

#: Octets of one read, which continues to the end of the line.
_BLOCK_BYTES: Final = 1 << 20
#: A longer line does not have the usual form.
_ROW_BYTES_MAX: Final = 1 << 12

#: What a row of another form, or a damaged file, raises.
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
#: Printable ASCII without comma and quote; or a quoted field.
_CELL: Final = r'(?:[ !#-+\--~]*|"[ !#-~]*(?:""[ !#-~]*)*")'
#: A JSON string whose only escapes are of a quote and a backslash.
_TEXT: Final = r'"[ !#-\[\]-~]*(?:\\["\\][ !#-\[\]-~]*)*"'
_TEXTS: Final = rf"\[(?:{_TEXT}(?:,{_TEXT})*)?\]"


def read_addresses(
    stream: IO[bytes], name: str, feeds: Collection[str] | None = None
) -> AddressSet:
    """Return the addresses in a published file.

    Args:
        stream: the file's content, plain or compressed.
        name: the file's name in messages.
        feeds: only rows of these feeds; None: all rows.

    Raises:
        NotVerified: it contains something else; see `read_entries`.
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
    """Return the addresses; None if a row has another form, or belongs to another feed."""
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
    """Yield blocks of whole lines, as text.

    Raises:
        ValueError: the file is too large, or not ASCII.
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
    """Pack the addresses; raise ValueError or AddressError if one is not an address."""
    lines = [f"{text}\n" for text in texts if ":" not in text]
    quads = quads_in_lines("".join(lines).encode())
    if quads is None:
        raise ValueError("not an IPv4 address")
    if len(lines) == len(texts):
        return AddressSet(quads, [])
    return AddressSet(quads, [pack_address(text) for text in texts if ":" in text])
