"""Parses a list (text with a prefix a line, or a MISP warning list's JSON) and finds its date.

Pure. A text may describe itself in comments before the first entry:

    # kind: scanner
    # actor: example
    # home: example.org
    # date: 2026-11-23
"""

import json
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from typing import Any, Final

from smtpfeeds_common.errors import ListsError

from .model import Prefix, parse_prefix

#: A list has a few hundred kB; a much larger file is not a list.
MAX_BYTES: Final = 16 << 20
MAX_ENTRIES: Final = 200_000
_MAX_LINE_CHARS: Final = 500
_STATED: Final = re.compile(r"[#;]\s*(kind|actor|home|date)\s*:\s*(\S.{0,200}?)\s*$")
_WORD: Final = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")
#: MISP's lists begin in 2016, so a version with an earlier year is YYMMDDHH.
_FIRST_YEAR: Final = 2016
_CLOCK_SLACK: Final = timedelta(days=1)


@dataclass(frozen=True, slots=True)
class Content:
    """The content of a list's file."""

    prefixes: tuple[Prefix, ...]
    #: Number of entries that are neither an address nor a prefix.
    unreadable: int = 0
    #: What the file states about itself: `kind`, `actor`, `home`, `date`, `version`.
    stated: dict[str, str] = field(default_factory=dict)

    @property
    def entries(self) -> int:
        """Number of all entries, unreadable ones too."""
        return len(self.prefixes) + self.unreadable


def parse(raw: bytes, where: str) -> Content:
    """Parse a list; its content tells the format.

    Args:
        where: its path or URL, for messages.

    Raises:
        ListsError: it is HTML, truncated, too large, or not a list.
    """
    if len(raw) > MAX_BYTES:
        raise ListsError(f"{where} has more than {MAX_BYTES} bytes: no list")
    text = raw.removeprefix(b"\xef\xbb\xbf").decode("utf-8", errors="replace")
    head = text.lstrip()[:1]
    if head == "<":
        raise ListsError(f"{where} is a page of HTML, not a list: check where it comes from")
    return _parse_json(text, where) if head in {"{", "["} else _parse_text(text, where)


def _parse_json(text: str, where: str) -> Content:
    try:
        content: Any = json.loads(text)
    except (ValueError, RecursionError) as exc:
        raise ListsError(f"{where} is truncated or not JSON ({exc}): fetch it again") from exc
    entries = content.get("list") if isinstance(content, dict) else None
    if not isinstance(entries, list) or content.get("type") != "cidr":
        raise ListsError(
            f'{where} is not a MISP warning list of prefixes: it needs "type": "cidr" and "list": '
            f"[…]"
        )
    version = content.get("version")
    stated = {"version": str(version)} if isinstance(version, int | str) else {}
    return _content((str(entry) for entry in entries), stated, where)


def _parse_text(text: str, where: str) -> Content:
    if text and not text.endswith("\n"):
        raise ListsError(
            f"{where} ends in the middle of a line: it is truncated; fetch it again (a complete "
            "list ends with a line feed)"
        )
    entries: list[str] = []
    stated: dict[str, str] = {}
    for line in (raw[:_MAX_LINE_CHARS].strip() for raw in text.splitlines()):
        if line.startswith(("#", ";")):
            match = _STATED.match(line)
            if match and not entries:
                stated[match[1]] = match[2]
        elif line:
            entries.append(re.split(r"[\s#;,]", line, maxsplit=1)[0])
    _check_stated(stated, where)
    return _content(entries, stated, where)


def _check_stated(stated: dict[str, str], where: str) -> None:
    if stated.get("kind", "scanner") not in {"scanner", "mailer"}:
        raise ListsError(f"{where}: the kind {stated['kind']!r} is neither scanner nor mailer")
    if "actor" in stated and not _WORD.fullmatch(stated["actor"]):
        raise ListsError(
            f"{where}: the actor {stated['actor']!r} is not a short word of a-z, 0-9, '.', '_', '-'"
        )
    if "date" in stated:
        try:
            date.fromisoformat(stated["date"])
        except ValueError as exc:
            raise ListsError(f"{where}: the date {stated['date']!r} is not YYYY-MM-DD") from exc


def _content(entries: Iterable[str], stated: dict[str, str], where: str) -> Content:
    prefixes: set[Prefix] = set()
    unreadable = 0
    for count, entry in enumerate(entries, 1):
        if count > MAX_ENTRIES:
            raise ListsError(f"{where} has more than {MAX_ENTRIES} entries: no list")
        try:
            prefixes.add(parse_prefix(entry))
        except ValueError:
            unreadable += 1
    return Content(tuple(sorted(prefixes)), unreadable, stated)


def version_day(version: str, today: date) -> date | None:
    """Return the day in a MISP version (YYYYMMDD or YYMMDDHH); `None` for a serial number."""
    if not re.fullmatch(r"[0-9]{8}", version):
        return None
    for text, form in ((version, "%Y%m%d"), (f"20{version}", "%Y%m%d%H")):
        try:
            day = datetime.strptime(text, form).date()  # noqa: DTZ007 - a day, no time
        except ValueError:
            continue
        if day.year >= _FIRST_YEAR and day <= today + _CLOCK_SLACK:
            return day
    return None
