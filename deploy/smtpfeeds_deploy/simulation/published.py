"""Reads the published files as a consumer does, and compares them with what the clients did.

It follows the description of the formats and not the code that writes them.
"""

import csv
import gzip
import json
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, NamedTuple

from smtpfeeds_common.addresses import normalise_address
from smtpfeeds_common.errors import SingleHostError
from smtpfeeds_common.feeds import FEED_NAMES

from .ledger import Bracket, Expected, Key, Recorded, disagreements

_HEADER_LINES: Final = 68
_FOOTER_LINES: Final = 4
_NOT_KNOWN: Final = "NA"
_NAME_CHARS: Final = 30


class PublishedRow(NamedTuple):
    """One row of one file."""

    asn: int | None
    name: str
    recorded: Recorded
    tags: tuple[str, ...] | None
    #: Empty if the format has no class.
    cls: str = ""


Rows = dict[Key, PublishedRow]


class NotThatFormat(SingleHostError):
    """A published file is not in the format that its name says."""


def read_feed(folder: Path, feed: str) -> dict[str, Rows]:
    """Read every file of one feed; return rows by file name.

    Raises:
        NotThatFormat: a file is missing, cut, or not of its format.
    """
    readers = {
        f"{feed}.txt": read_text,
        f"{feed}-ipv4.txt": read_text,
        f"{feed}-ipv6.txt": read_text,
        f"{feed}.csv": read_csv,
        f"{feed}.ndjson": read_ndjson,
    }
    try:
        rows = {name: read(folder / name) for name, read in readers.items()}
        for name in readers:
            _check_compressed(folder / name)
    except (OSError, EOFError, ValueError, LookupError, TypeError) as exc:
        raise NotThatFormat(f"cannot read the feed {feed} in {folder}: {exc!r}") from exc
    return rows


def _check_compressed(path: Path) -> None:
    with gzip.open(f"{path}.gz") as stream:
        if stream.read() != path.read_bytes():
            raise NotThatFormat(f"{path}.gz differs from {path.name}")


def read_text(path: Path) -> Rows:
    """Read the text format: 68 header lines, rows of five fields, 4 footer lines."""
    lines = path.read_text(encoding="ascii").splitlines()
    head, body, foot = (
        lines[:_HEADER_LINES],
        lines[_HEADER_LINES:-_FOOTER_LINES],
        lines[-_FOOTER_LINES:],
    )
    if not all(line.startswith("#") for line in head + foot):
        raise NotThatFormat(
            f"{path}: it has not {_HEADER_LINES} header and {_FOOTER_LINES} footer lines"
        )
    rows: Rows = {}
    for line in body:
        asn, name, address, last, feed = (part.strip() for part in line.split("  |  "))
        _add(rows, path, feed, address, asn, name, Recorded(None, second(last), None, None), None)
    if foot[-1] != f"#   Addresses: {len(rows)}":
        raise NotThatFormat(f"{path}: {len(rows)} rows, and the footer says {foot[-1]!r}")
    return rows


def read_csv(path: Path) -> Rows:
    """Read the CSV format, with columns by name."""
    rows: Rows = {}
    with path.open(encoding="utf-8", newline="") as stream:
        for row in csv.DictReader(stream, strict=True):
            tags = tuple(row["tags"].split())
            _add(rows, path, row["category"], row["ipaddr"], row["ASN"], row["ASname"],
                 _recorded(row), tags, row["class"])  # fmt: skip
    return rows


def read_ndjson(path: Path) -> Rows:
    """Read the NDJSON format, one object per row."""
    text = path.read_text(encoding="utf-8")
    if text and not text.endswith("\n"):
        raise NotThatFormat(f"{path}: the last line is truncated")
    objects = [json.loads(line) for line in text.splitlines()]
    rows: Rows = {}
    for row in objects:
        asn = _NOT_KNOWN if row["ASN"] is None else str(row["ASN"])
        name = _NOT_KNOWN if row["ASname"] is None else row["ASname"]
        _add(rows, path, row["category"], row["ipaddr"], asn, name,
             _recorded(row), tuple(row["tags"]), row["class"])  # fmt: skip
    return rows


def _recorded(row: Mapping[str, Any]) -> Recorded:
    return Recorded(
        second(row["first_seen"]), second(row["lastseen"]), int(row["hits"]), int(row["sensors"])
    )


def _add(
    rows: Rows,
    path: Path,
    feed: str,
    address: str,
    asn: str,
    name: str,
    recorded: Recorded,
    tags: tuple[str, ...] | None,
    cls: str = "",
) -> None:
    if feed not in FEED_NAMES or normalise_address(address) != address or (feed, address) in rows:
        raise NotThatFormat(f"{path}: the row of {address!r} in {feed!r} is invalid or repeated")
    number = None if asn == _NOT_KNOWN else int(asn)
    rows[feed, address] = PublishedRow(number, name, recorded, tags, cls)


def second(text: str) -> Bracket:
    """Return the bracket of a UTC time that is cut to the second."""
    at = datetime.strptime(text, "%Y-%m-%d %H:%M:%S").replace(tzinfo=UTC)
    begin_ms = int(at.timestamp()) * 1000
    return Bracket(begin_ms, begin_ms + 999)


def feed_disagreements(
    files: Mapping[str, Rows],
    expected: Mapping[Key, Expected],
    origins: Mapping[str, int | None],
    names: Mapping[int, str],
) -> list[str]:
    """Describe each difference between a feed's files and what the clients did.

    Args:
        files: rows by file name, from ``read_feed``.
        expected: the ledger's rows of this feed.
        origins: the origin of each address.
        names: AS names, in the published form.
    """
    differences: list[str] = []
    for name, rows in files.items():
        want = {key: row for key, row in expected.items() if _belongs(name, key[1])}
        of_file = disagreements(want, {key: row.recorded for key, row in rows.items()})
        of_file += _origin_disagreements(rows, origins, names, text=name.endswith(".txt"))
        of_file += _tag_disagreements(rows, want)
        differences += [f"{name}: {difference}" for difference in of_file]
    return differences


def _belongs(file: str, address: str) -> bool:
    if "-ipv4" in file:
        return ":" not in address
    return "-ipv6" not in file or ":" in address


def _origin_disagreements(
    rows: Rows, origins: Mapping[str, int | None], names: Mapping[int, str], *, text: bool
) -> Iterable[str]:
    """Describe wrong origins; the text format cuts a name to 30 characters, the others need not."""
    for (feed, address), row in rows.items():
        asn = origins.get(address)
        whole = names.get(asn, _NOT_KNOWN) if asn is not None else _NOT_KNOWN
        cut = whole[:_NAME_CHARS].strip()
        if row.asn != asn or row.name not in ({cut} if text else {whole, cut}):
            yield f"{feed} {address}: origin {row.asn} {row.name!r}, not {asn} {whole!r}"


def _tag_disagreements(rows: Rows, expected: Mapping[Key, Expected]) -> Iterable[str]:
    for key in rows.keys() & expected.keys():
        tags, want = rows[key].tags, expected[key]
        for tag, noted in (("bare_lf", want.bare_lf), ("full_host_name", want.full_host_name)):
            if tags is not None and (tag in tags) != noted:
                yield f"{' '.join(key)}: tag {tag} is {tag in tags}, not {noted}"
