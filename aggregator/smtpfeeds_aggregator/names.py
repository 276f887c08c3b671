"""Cleans AS names so that every known feed consumer can parse them.

Registries allow almost any name for a network: with a pipe, a quote or an address
in it. The feed's reference page lists what each consumer cannot parse; the steps
here follow its order. Pure; the origin tables and the feeds share it.
"""

import html
import re
from typing import Final

#: Width of the ASname column that consumers of this layout expect.
SHORT_NAME_CHARS: Final = 30
#: The feed's value for an unknown name.
NOT_KNOWN: Final = "NA"
#: With more commas, one consumer reads the row as CSV and loses it.
MAX_COMMAS: Final = 2

_PRINTABLE: Final = frozenset(map(chr, range(0x20, 0x7F)))
_DROPPED: Final = str.maketrans("", "", '|"#')
_DOTTED_QUAD: Final = re.compile(r"\d+(?:\.\d+){3,}")
#: Commas are in it because `clean_name` turns surplus ones into spaces later.
_EVAL_CALL: Final = re.compile(r"(eval)[\s,(]*\(", re.IGNORECASE)
_COUNTRY: Final = re.compile(r",\s?[A-Z]{2}\s*$")
#: RIPE's list has this in place of a name for 4,400 unassigned ASNs.
_NO_NAME: Final = re.compile(r"-\s*(?:reserved|private use)\s+as\s*-", re.IGNORECASE)


def clean_name(raw: str, *, has_country: bool) -> str:
    """Return the full name in printable ASCII that every known parser can read; '' if none is left.

    Args:
        has_country: the source ends nearly every name with a country (``GOOGLE, US``).
            In other sources ``, SA`` is part of the name.
    """
    text = _to_ascii(html.unescape(raw)).translate(_DROPPED)
    text = _DOTTED_QUAD.sub(lambda quad: quad[0].replace(".", "-"), text)
    text = " ".join(_EVAL_CALL.sub(r"\1 ", text).split())
    if has_country:
        # ``AS4745-138 - , KR``: the organisation has no name, so a dash remains.
        text = _COUNTRY.sub("", text).rstrip().removesuffix(" -")
    if _NO_NAME.fullmatch(text):
        return ""
    # A space replaces a surplus comma, so that no removed pattern (``eval(``) forms again.
    *kept, last = text.split(",", MAX_COMMAS)
    return " ".join(",".join([*kept, last.replace(",", " ")]).split())


def ends_with_country(raw: str) -> bool:
    """Whether a name from the source ends with a comma and a country code."""
    return _COUNTRY.search(raw) is not None


def short_name(name: str) -> str:
    """Cut a cleaned name to the feed's column; ``NA`` if nothing is left."""
    return name[:SHORT_NAME_CHARS].strip() or NOT_KNOWN


def _to_ascii(text: str) -> str:
    """Transliterate each script; drop what has no ASCII form, turn white space into spaces."""
    if text.isascii() and text.isprintable():
        return text
    from anyascii import anyascii

    spaced = "".join(" " if char.isspace() else char for char in text)
    return "".join(char for char in anyascii(spaced) if char in _PRINTABLE)
