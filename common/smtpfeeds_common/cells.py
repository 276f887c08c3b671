"""How wide a text is on a terminal, in cells.

Most characters take one cell, those of East Asian scripts two, and a combining mark none. AS names
and texts of other hosts may contain any of them.
"""

import unicodedata
from typing import Final

#: Wide and full-width, of Unicode's property East_Asian_Width.
_WIDE: Final = ("W", "F")
#: Marks over, around and within the character before them, and characters that are not shown.
_NO_CELL: Final = ("Mn", "Me", "Cf")


def width_of(text: str) -> int:
    """Return the number of cells of a text without control characters."""
    return len(text) if text.isascii() else sum(map(cells_of, text))


def cells_of(char: str) -> int:
    """Return the number of cells of one character."""
    if unicodedata.category(char) in _NO_CELL:
        return 0
    return 2 if unicodedata.east_asian_width(char) in _WIDE else 1
