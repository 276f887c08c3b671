"""Text from elsewhere on its way to a terminal.

It stands alone: tables, messages and logs all write text that others chose, such as a name in
a feed or a server's reply, and none of it may move the cursor or change colours.
"""


def printable(text: str, *, keep: str = "") -> str:
    """The text, with `?` in place of each control character that is not to be kept."""
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() or char in keep else "?" for char in text)
