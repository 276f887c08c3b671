"""The web server's example sends its security headers with every answer.

nginx inherits `add_header` only into blocks that have none of their own.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from smtpfeeds_aggregator.publish.page.render import CONTENT_SECURITY_POLICY

EXAMPLE = Path(__file__).parents[2] / "deploy" / "nginx" / "feeds.conf"
TOKEN = re.compile(r"""\s*(?:\#[^\n]*|([{};])|"([^"]*)"|'([^']*)'|([^\s{};"']+))""")
#: Sent with errors too.
WANTED = {
    "X-Content-Type-Options": "nosniff",
    "Content-Security-Policy": f"{CONTENT_SECURITY_POLICY}; frame-ancestors 'none'",
}
#: Five minutes: addresses that are excluded or forgotten must not stay in caches.
MAX_AGE_S = 300

Headers = dict[str, tuple[str, ...]]


def statements(text: str) -> Iterator[tuple[tuple[str, ...], str]]:
    """Return the statements: their words, and their end (``;``, ``{`` or ``}``)."""
    words: list[str] = []
    for end, *texts in TOKEN.findall(text):
        if end:
            yield tuple(words), end
            words = []
        elif word := "".join(texts):
            words.append(word)


def blocks_with_headers(text: str) -> list[tuple[str, Headers]]:
    """Return the headers that each block adds, by the words before the block."""
    blocks: list[tuple[str, Headers]] = []
    open_blocks: list[tuple[str, Headers]] = [("", {})]
    for words, end in statements(text):
        if end == "{":
            open_blocks.append((" ".join(words), {}))
        elif end == "}":
            block = open_blocks.pop()
            if block[1]:
                blocks.append(block)
        elif words and words[0] == "add_header":
            open_blocks[-1][1][words[1]] = words[2:]
    assert len(open_blocks) == 1, "a block is not closed"
    return blocks


def wrong(text: str) -> list[str]:
    """Return the missing headers, by block."""
    return [
        f"{block}: {name}"
        for block, headers in blocks_with_headers(text)
        for name, value in WANTED.items()
        if headers.get(name) != (value, "always")
    ]


def test_every_block_of_the_example_that_adds_headers_adds_all() -> None:
    text = EXAMPLE.read_text(encoding="utf-8")
    assert "server" in dict(blocks_with_headers(text))
    assert wrong(text) == []
    for _, headers in blocks_with_headers(text):
        age = re.fullmatch(r"public, max-age=([0-9]+)", headers["Cache-Control"][0])
        assert age is not None
        assert int(age[1]) <= MAX_AGE_S


def test_location_with_one_header_must_repeat_the_others() -> None:
    location = 'location /generations/ { # {\n add_header Cache-Control "public; }" always;\n}\n'
    text = EXAMPLE.read_text(encoding="utf-8").replace("location / {", f"{location}location / {{")
    assert wrong(text) == [
        "location /generations/: X-Content-Type-Options",
        "location /generations/: Content-Security-Policy",
    ]
