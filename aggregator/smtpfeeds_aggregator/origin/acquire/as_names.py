"""Parses and cleans AS names from pyasn's JSON and both layouts of RIPE's asn.txt.

asn.txt has had two layouts: ``15169 GOOGLE, US`` and, since 2026, ``15169
GOOGLE - Google LLC, US``. In both, a country ends the line, and the text before
it is the name. pyasn's own asnames.json (``{"15169": "GOOGLE, US"}``) is made from
asn.txt and keeps the country. Other lists in that layout have no countries, so
``, SA`` is part of a company's name there. The share of names that end with a
country distinguishes the two.
"""

import gzip
import json
import re
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Final

from smtpfeeds_aggregator.names import clean_name, ends_with_country
from smtpfeeds_common.errors import OriginError

from ..table.text import read_whole

#: Longer names are cut before cleaning.
MAX_NAME_CHARS: Final = 300
_LINE: Final = re.compile(r"^\s*(?:AS)?(\d{1,10})[ \t]+(\S.*?)\s*$")
#: A line of autnums.html: the ASN in a link, then the name.
_HTML_LINE: Final = re.compile(r"^<a\s[^>]*>\s*(AS\d{1,10})\s*</a>\s*(.*)$", re.IGNORECASE)
_MAX_ASN: Final = 0xFFFFFFFE
_MAX_BAD_SHARE: Final = 0.01
#: A source appends a country to its names if at least this share ends with one: 99.5 % of pyasn's
#: own list do, all of RIPE's, and under 1 % in lists without countries.
_COUNTRY_SHARE: Final = 0.9
#: For lists with fewer names the share is not reliable, so the layout decides.
_MIN_FOR_SHARE: Final = 50


def read_names(path: Path, *, cleaned: bool = False) -> dict[int, str]:
    """Read and clean AS names, plain or gzip; the content tells JSON, asn.txt or autnums.html.

    Args:
        cleaned: `write_names` wrote the file, so its names are clean.

    Raises:
        OriginError: the file is unreadable, truncated, or not a list of AS names.
    """
    content = read_whole(path, "list of AS names")
    if cleaned:
        return dict(_from_json(content, str(path)))
    return parse_names(content, str(path))


def write_names(names: Mapping[int, str], out: Path) -> None:
    """Write cleaned names as gzipped JSON in pyasn's layout; equal names give equal bytes."""
    text = json.dumps({str(asn): names[asn] for asn in sorted(names)}, indent=0)
    with out.open("wb") as raw, gzip.GzipFile("", "wb", 6, raw, mtime=0) as stream:
        stream.write(text.encode())


def parse_names(content: bytes, where: str) -> dict[int, str]:
    """Parse and clean the names of a list; leave out ASNs without a name.

    Raises:
        OriginError: the content is not a list of AS names, or truncated.
    """
    head = content.lstrip()[:1]
    is_json = head == b"{"
    if is_json:
        pairs = _from_json(content, where)
    elif head == b"<":
        pairs = _from_html(content, where)
    else:
        pairs = _from_text(content, where)
    listed = dict(pairs)
    has_country = _has_country(listed.values(), by_layout=not is_json)
    names: dict[int, str] = {}
    for asn, raw in listed.items():
        name = clean_name(raw[:MAX_NAME_CHARS], has_country=has_country)
        if name.strip(" -.,"):
            names[asn] = name
    if not names:
        raise OriginError(f"{where} has no AS name: check the content of the file")
    return names


def _has_country(names: Collection[str], *, by_layout: bool) -> bool:
    """Whether the source ends its names with a country, by the share of names that do."""
    if len(names) < _MIN_FOR_SHARE:
        return by_layout
    return sum(map(ends_with_country, names)) >= len(names) * _COUNTRY_SHARE


def _from_json(content: bytes, where: str) -> Iterator[tuple[int, str]]:
    try:
        table = json.loads(content)
        for key, value in table.items():
            if isinstance(value, str) and 1 <= int(key) <= _MAX_ASN:
                yield int(key), value
    except (ValueError, AttributeError, RecursionError) as exc:
        raise OriginError(
            f"{where} is not a JSON list of AS names ({exc}): it should look like "
            '{"64496": "Example", …}; fetch it again'
        ) from exc


def _from_html(content: bytes, where: str) -> Iterator[tuple[int, str]]:
    """Parse the layout of autnums.html; another page has no such lines."""
    if not content.rstrip().lower().endswith(b"</html>"):
        raise OriginError(f"{where} has no closing tag of a page: it is truncated; fetch it again")
    matches = map(_HTML_LINE.match, content.decode("utf-8", errors="replace").splitlines())
    lines = "".join(f"{line[1]} {line[2]}\n" for line in matches if line)
    yield from _from_text(lines.encode(), where)


def _from_text(content: bytes, where: str) -> Iterator[tuple[int, str]]:
    if content and not content.endswith(b"\n"):
        raise OriginError(f"{where} ends in the middle of a line: it is truncated; fetch it again")
    lines = content.decode("utf-8", errors="replace").splitlines()
    bad = 0
    for line in lines:
        match = _LINE.match(line)
        if match and 1 <= int(match[1]) <= _MAX_ASN:
            yield int(match[1]), match[2]
        elif line.strip() and not line.lstrip().startswith(("#", ";")):
            bad += 1
    if bad > max(5, len(lines) * _MAX_BAD_SHARE):
        raise OriginError(
            f"{where} is not a list of AS names: {bad} of {len(lines)} lines are not `ASN NAME, CC`"
        )
