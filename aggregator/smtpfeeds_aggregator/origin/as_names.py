"""AS names: pyasn's JSON and both layouts of RIPE's asn.txt, cleaned once.

asn.txt has had two layouts: ``15169 GOOGLE, US`` and, since 2026, ``15169
GOOGLE - Google LLC, US``. In both a country ends the line, and the text before
it is the name. In pyasn's JSON (``{"15169": "…"}``) no country was added.
"""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from smtpfeeds_aggregator.names import clean_name
from smtpfeeds_common.errors import OriginError

from .table_text import read_whole

#: Longer texts are no names; cut before cleaning.
MAX_NAME_CHARS: Final = 300
_LINE: Final = re.compile(r"^\s*(?:AS)?(\d{1,10})[ \t]+(\S.*?)\s*$")
_MAX_ASN: Final = 0xFFFFFFFE
_MAX_BAD_SHARE: Final = 0.01


def read_names(path: Path) -> dict[int, str]:
    """Read and clean AS names, plain or gzip; JSON or asn.txt by their content.

    Raises:
        OriginError: unreadable, cut short, or no list of AS names.
    """
    return parse_names(read_whole(path, "list of AS names"), str(path))


def parse_names(content: bytes, where: str) -> dict[int, str]:
    """Clean the names of a list; what is left without a name is left out.

    Raises:
        OriginError: no list of AS names, or cut short.
    """
    is_json = content.lstrip()[:1] == b"{"
    pairs = _from_json(content, where) if is_json else _from_text(content, where)
    names: dict[int, str] = {}
    for asn, raw in pairs:
        name = clean_name(raw[:MAX_NAME_CHARS], ripe_layout=not is_json)
        if name.strip(" -.,"):
            names[asn] = name
    if not names:
        raise OriginError(f"{where} holds no AS name: check what the file holds")
    return names


def _from_json(content: bytes, where: str) -> Iterator[tuple[int, str]]:
    try:
        table = json.loads(content)
        for key, value in table.items():
            if isinstance(value, str) and 1 <= int(key) <= _MAX_ASN:
                yield int(key), value
    except (ValueError, AttributeError) as exc:
        raise OriginError(
            f"{where} is no JSON list of AS names ({exc}): it should read like "
            '{"64496": "Example", …}; fetch it again'
        ) from exc


def _from_text(content: bytes, where: str) -> Iterator[tuple[int, str]]:
    if content and not content.endswith(b"\n"):
        raise OriginError(f"{where} ends in the middle of a line: it was cut; fetch it again")
    lines = content.decode("utf-8", errors="replace").splitlines()
    bad = 0
    for line in lines:
        found = _LINE.match(line)
        if found and 1 <= int(found[1]) <= _MAX_ASN:
            yield int(found[1]), found[2]
        elif line.strip() and not line.lstrip().startswith(("#", ";")):
            bad += 1
    if bad > max(5, len(lines) * _MAX_BAD_SHARE):
        raise OriginError(
            f"{where} is no list of AS names: {bad} of {len(lines)} lines are not `ASN NAME, CC`"
        )
