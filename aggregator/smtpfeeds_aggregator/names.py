"""Clean AS names, so that no feed consumer's parser chokes on one.

Registries let a network be called almost anything: with a pipe in it, a quote,
an address. The feed's reference page lists which consumer breaks on what; the
steps here follow it, in its order. Pure; the origin tables and the feeds share it.
"""

import html
import re
from typing import Final

#: Width of the ASname column: what consumers of this layout expect.
SHORT_NAME_CHARS: Final = 30
#: What stands in a feed where nothing is known.
NOT_KNOWN: Final = "NA"
#: More commas than this, and one consumer reads the row as CSV and loses it.
MAX_COMMAS: Final = 2

_PRINTABLE: Final = frozenset(map(chr, range(0x20, 0x7F)))
_DROPPED: Final = str.maketrans("", "", '|"#')
_DOTTED_QUAD: Final = re.compile(r"\d+(?:\.\d+){3,}")
#: The comma too: the surplus ones become spaces later on.
_EVAL_CALL: Final = re.compile(r"(eval)[\s,(]*\(", re.IGNORECASE)
_COUNTRY: Final = re.compile(r",\s?[A-Z]{2}\s*$")
#: What RIPE's list writes in place of a name, for 4,400 ASNs that nobody has.
_NO_NAME: Final = re.compile(r"-\s*(?:reserved|private use)\s+as\s*-", re.IGNORECASE)


def clean_name(raw: str, *, has_country: bool) -> str:
    """Give the full name in printable ASCII, harmless to every known parser; '' if nothing is left.

    Args:
        has_country: the source ends nearly every name with a country (``GOOGLE, US``).
            Elsewhere ``, SA`` is part of the name.
    """
    text = _to_ascii(html.unescape(raw)).translate(_DROPPED)
    text = _DOTTED_QUAD.sub(lambda quad: quad[0].replace(".", "-"), text)
    text = " ".join(_EVAL_CALL.sub(r"\1 ", text).split())
    if has_country:
        # ``AS4745-138 - , KR``: an organisation without a name leaves its dash behind.
        text = _COUNTRY.sub("", text).rstrip().removesuffix(" -")
    if _NO_NAME.fullmatch(text):
        return ""
    # A space in place of a surplus comma: nothing that was broken apart grows together again.
    *kept, last = text.split(",", MAX_COMMAS)
    return " ".join(",".join([*kept, last.replace(",", " ")]).split())


def ends_with_country(raw: str) -> bool:
    """Whether a name as the source has it ends with a comma and a country code."""
    return _COUNTRY.search(raw) is not None


def short_name(name: str) -> str:
    """Cut a cleaned name to the feed's column; ``NA`` if nothing is left."""
    return name[:SHORT_NAME_CHARS].strip() or NOT_KNOWN


def _to_ascii(text: str) -> str:
    """Transliterate each script; what has no counterpart goes, any white space is a space."""
    if text.isascii() and text.isprintable():
        return text
    from anyascii import anyascii

    spaced = "".join(" " if char.isspace() else char for char in text)
    return "".join(char for char in anyascii(spaced) if char in _PRINTABLE)
