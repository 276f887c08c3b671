"""Clean AS names, so that no feed consumer's parser chokes on one.

Registries let a network be called almost anything: with a pipe in it, a quote,
an address. The feed's reference page lists which consumer breaks on what; the
steps here follow it, in its order. Pure; the origin tables and the feeds share it.
"""

import html
import re
import unicodedata
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
_COUNTRY: Final = re.compile(r",\s?[A-Z]{2}$")

# Letters that no decomposition takes apart, and the signs names are typeset with.
_LATIN: Final = {
    "ß": "ss", "ẞ": "SS", "æ": "ae", "Æ": "AE", "œ": "oe", "Œ": "OE", "ø": "o", "Ø": "O",
    "ł": "l", "Ł": "L", "đ": "d", "Đ": "D", "ð": "d", "Ð": "D", "þ": "th", "Þ": "Th",
    "ħ": "h", "Ħ": "H", "ı": "i", "ŋ": "n", "Ŋ": "N", "ŧ": "t", "Ŧ": "T",  # noqa: RUF001
    "‐": "-", "‑": "-", "‒": "-", "–": "-", "—": "-", "―": "-", "−": "-",  # noqa: RUF001
    "‘": "'", "’": "'", "‚": "'", "′": "'", "´": "'",  # noqa: RUF001
    "•": "-", "·": "-", "∙": "-",
}  # fmt: skip
_CYRILLIC: Final = dict(
    zip(
        "абвгдезийклмнопрстуфхыэіґ",
        "abvgdezijklmnoprstufhyeig",
        strict=True,
    )
) | {
    "ё": "e", "ж": "zh", "ц": "ts", "ч": "ch", "ш": "sh", "щ": "shch", "ъ": "", "ь": "",
    "ю": "yu", "я": "ya", "є": "ye", "ї": "yi",
}  # fmt: skip
_TRANSLITERATED: Final = str.maketrans(
    _LATIN | _CYRILLIC | {key.upper(): value.capitalize() for key, value in _CYRILLIC.items()}
)


def clean_name(raw: str, *, ripe_layout: bool) -> str:
    """Give the full name in printable ASCII, harmless to every known parser; '' if nothing is left.

    Args:
        ripe_layout: the source has a country at the end of every line (``GOOGLE, US``).
            Elsewhere ``, SA`` is part of the name.
    """
    text = _to_ascii(html.unescape(raw)).translate(_DROPPED)
    text = _DOTTED_QUAD.sub(lambda quad: quad[0].replace(".", "-"), text)
    text = " ".join(_EVAL_CALL.sub(r"\1 ", text).split())
    if ripe_layout:
        text = _COUNTRY.sub("", text)
    # A space in place of a surplus comma: nothing that was broken apart grows together again.
    *kept, last = text.split(",", MAX_COMMAS)
    return " ".join(",".join([*kept, last.replace(",", " ")]).split())


def short_name(name: str) -> str:
    """Cut a cleaned name to the feed's column; ``NA`` if nothing is left."""
    return name[:SHORT_NAME_CHARS].strip() or NOT_KNOWN


def _to_ascii(text: str) -> str:
    """Transliterate what has a counterpart, drop the rest; any white space is a space."""
    if text.isascii() and text.isprintable():
        return text
    plain = unicodedata.normalize("NFKD", text.translate(_TRANSLITERATED))
    return "".join(
        char if char in _PRINTABLE else " " if char.isspace() else ""
        for char in plain.translate(_TRANSLITERATED)
    )
