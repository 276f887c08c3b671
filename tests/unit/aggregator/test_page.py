"""The page has nothing inline, loads nothing from other sites, and escapes every name."""

from __future__ import annotations

import re
from html.parser import HTMLParser

import pytest

from page_support import HTML_NAMES, sample_page, search_columns, search_entries
from smtpfeeds_aggregator.publish.page.model import SEARCH_LIMIT
from smtpfeeds_aggregator.publish.page.render import CONTENT_SECURITY_POLICY, STATIC, render
from smtpfeeds_aggregator.publish.page.search import search_data
from smtpfeeds_common.feeds import FEEDS

#: What a page may name: files beside it, places in it, and what SVG calls itself.
LOCAL = re.compile(r"(#[^ ]*|([a-z0-9-]+/)*[a-z0-9-]+\.[a-z.]+)$")


class Page(HTMLParser):
    """Collects what a policy without ``unsafe-inline`` refuses."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.inline: list[str] = []
        self.links: list[str] = []
        self.policy = ""
        self.scripts: list[str] = []
        self.text = ""
        self._in = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        self._in = tag
        self.inline += [name for name in given if name.startswith("on") or name == "style"]
        self.links += [value or "" for name, value in attrs if name in {"href", "src"}]
        if tag == "script":
            self.scripts.append(given.get("src") or "inline")
        if tag == "style":
            self.inline.append(tag)
        if given.get("http-equiv") == "Content-Security-Policy":
            self.policy = given["content"] or ""

    def handle_endtag(self, tag: str) -> None:
        self._in = ""

    def handle_data(self, data: str) -> None:
        if self._in in {"script", "style"} and data.strip():
            self.inline.append(data)
        self.text += data


@pytest.fixture(scope="module")
def page() -> Page:
    return Page(render(sample_page(search_entries(2_000))).decode())


def test_nothing_on_the_page_is_inline(page: Page) -> None:
    assert page.inline == []
    assert page.scripts == ["page.js"]
    assert page.policy == CONTENT_SECURITY_POLICY
    assert "unsafe" not in page.policy
    assert page.policy.startswith("default-src 'none'; ")


def test_each_landmark_has_a_name_of_its_own() -> None:
    """A screen reader lists sections and regions by name."""
    text = render(sample_page(search_entries(2_000))).decode()
    titles = re.findall(r'<section aria-labelledby="([^"]+)"', text)
    names = [re.findall(rf'id="{title}"[^>]*>([^<]+)', text)[0] for title in titles]
    names += re.findall(r'role="region" aria-label="([^"]+)"', text)
    assert len(names) > 5
    assert sorted(set(names)) == sorted(names)


def test_page_loads_nothing_from_other_sites(page: Page) -> None:
    assert page.links
    assert [link for link in page.links if not LOCAL.fullmatch(link)] == []


def test_an_inline_script_would_be_noticed() -> None:
    odd = Page("<p onclick='x()' style='color:red'><script>alert(1)</script><style>p{}</style>")
    assert odd.inline == ["onclick", "style", "alert(1)", "style", "p{}"]
    assert odd.scripts == ["inline"]


def test_names_are_text_and_never_markup(page: Page) -> None:
    entries = search_entries(5_000)
    body = render(sample_page(entries)).decode()
    assert "<script>alert" not in body
    index = search_data(search_columns(entries))
    assert any("<script>" in name for name in HTML_NAMES.values())
    # A script file that a page includes ends nowhere early.
    assert b"<" not in index
    assert index.count(b"\n") == 1
    assert index.startswith(b"smtpfeedsIndex({")


def test_the_scripts_put_text_and_not_markup_into_the_page() -> None:
    from smtpfeeds_aggregator.publish.page.render import static_file

    script = static_file("page.js").decode()
    assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\b", script)
    assert set(STATIC) == {"page.css", "page.js", "icon.svg"}


def test_page_without_search_names_the_command() -> None:
    few = search_entries(3)
    large = Page(render(sample_page(few, SEARCH_LIMIT + 1)).decode())
    assert "more than this page searches (300,000)" in large.text
    # Nothing answers such a link there.
    assert [link for link in large.links if link.startswith("#q=")] == []
    at_the_limit = Page(render(sample_page(few, SEARCH_LIMIT)).decode())
    assert "more than this page searches" not in at_the_limit.text
    assert "#q=survey" in at_the_limit.links


def test_an_empty_feed_has_a_page() -> None:
    empty = Page(render(sample_page([])).decode())
    assert "not a block list" in empty.text
    assert empty.text.count("No events in this week.") == len(FEEDS)
    assert "most 0" not in empty.text
    assert empty.inline == []
