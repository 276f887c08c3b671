"""Makes foreign text safe for a terminal.

Tables, messages and logs contain text that others chose, such as a name in a feed or the reply of
a server. It must not move the cursor or change colours. It is separate because all three use it.
"""


def printable(text: str, *, keep: str = "") -> str:
    """Replace each control character by `?`, except those to keep."""
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() or char in keep else "?" for char in text)
