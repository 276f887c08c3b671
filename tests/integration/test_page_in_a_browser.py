"""The page in headless Chromium, opened from disk: it shows, searches and logs no message."""

from __future__ import annotations

import ipaddress
import json
import re
from collections.abc import Callable, Iterator
from html import unescape
from pathlib import Path
from urllib.parse import quote

import pytest

from page_support import HTML_NAMES, SearchEntry, search_entries, write_sample
from page_support.accessibility import violations
from page_support.browser import Browser, BrowserPage, Scheme
from smtpfeeds_aggregator.publish.page.model import SEARCH_LIMIT
from smtpfeeds_common.addresses import format_address

Samples = Callable[[int], tuple[Path, list[SearchEntry]]]

#: Resolves when the search has answered, not when it has begun to load its index.
ANSWERED = """
new Promise(resolve => {
    const answer = document.getElementById("answer");
    const look = () => {
        if (!answer.textContent || answer.textContent.startsWith("Loading")) return false;
        resolve(answer.textContent);
        return true;
    };
    if (!look()) new MutationObserver(look).observe(answer, {childList: true});
})
"""
TYPED = """
(text => {
    const input = document.getElementById("q");
    input.value = text;
    input.dispatchEvent(new Event("input"));
})
"""
#: True if nothing is wider than the window, not even inside a region that could scroll.
FITS = """
[document.documentElement, ...document.querySelectorAll(".scroll")]
    .every(each => each.scrollWidth <= each.clientWidth)
"""


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> Samples:
    page_of_size: dict[int, tuple[Path, list[SearchEntry]]] = {}

    def page(count: int) -> tuple[Path, list[SearchEntry]]:
        if count not in page_of_size:
            entries = search_entries(count)
            page_of_size[count] = write_sample(tmp_path_factory.mktemp("page"), entries), entries
        return page_of_size[count]

    return page


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with Browser(tmp_path_factory.mktemp("profile")) as running:
        yield running


def typed(page: BrowserPage, text: str) -> str:
    """Type into the search, and return its answer."""
    page.run(f"{TYPED}({json.dumps(text)})")
    return str(page.run(ANSWERED))


def searched(browser: Browser, path: Path, fragment: str) -> str:
    """Return the elements of a page that answers its fragment; fail if there is a message."""
    with browser.page(path, fragment) as page:
        page.run(ANSWERED)
        assert page.messages == []
        return page.elements()


def answer(dom: str) -> str:
    match = re.search(r'<p id="answer"[^>]*>([^<]*)', dom)
    assert match is not None
    return unescape(match[1])


def addresses(dom: str) -> list[str]:
    return [unescape(text) for text in re.findall(r'<a href="#ip=[^"]*">([^<]*)', dom)]


@pytest.mark.parametrize("count", [0, 1, 10_000, SEARCH_LIMIT])
def test_the_page_opens_and_searches_without_a_message(
    count: int, browser: Browser, pages: Samples
) -> None:
    path, entries = pages(count)
    with browser.page(path) as page:
        assert f"{count:,}<span> addresses" in page.elements()
        # The sample has expired by the reader's clock, and the page says so.
        assert page.run("document.getElementById('stale').hidden") is False
        assert "edition has expired" in page.run("document.getElementById('stale').textContent")
        assert page.run("document.querySelector('script[src^=search]')") is None
        ipv4 = sum(len(entry.packed) == 4 for entry in entries)
        answers = [typed(page, text) for text in ("0.0.0.0/0", "::/0", "probe 192.0.2.0/33")]
        assert [each.split()[0] for each in answers[:2]] == [
            f"{number:,}" if number else "Nothing" for number in (ipv4, count - ipv4)
        ]
        assert answers[2].startswith("“192.0.2.0/33” is not an address")
        if entries:
            assert typed(page, format_address(entries[-1].packed)) == "1 address"
        assert page.messages == []


@pytest.mark.parametrize(
    ("scheme", "width", "query"),
    [
        ("light", 1400, "survey"),
        ("dark", 1400, "ip"),
        ("light", 320, "ip"),
        ("dark", 320, "survey"),
    ],
)
def test_the_page_keeps_the_rules_of_axe(
    scheme: Scheme, width: int, query: str, browser: Browser, pages: Samples
) -> None:
    """With results or with the card of one address, with every table of numbers open."""
    path, entries = pages(10_000)
    text = format_address(entries[0].packed) if query == "ip" else query
    with browser.page(path, f"#q={quote(text)}", width=width, scheme=scheme) as page:
        page.run(ANSWERED)
        page.run("document.querySelectorAll('details').forEach(each => { each.open = true; })")
        assert page.run("document.getElementById('card').hidden") is (query != "ip")
        assert violations(page) == []
        assert page.run(FITS) is True
        assert page.messages == []


def found(entries: list[SearchEntry], fits: Callable[[SearchEntry], bool]) -> set[str]:
    return {format_address(entry.packed) for entry in entries if fits(entry)}


def test_each_kind_of_search_finds_what_a_loop_finds(browser: Browser, pages: Samples) -> None:
    path, entries = pages(10_000)
    one = next(entry for entry in entries if len(entry.packed) == 4)
    six = next(entry for entry in entries if len(entry.packed) == 16)
    sixes = sorted(entry.packed for entry in entries if len(entry.packed) == 16)
    text, text6 = format_address(one.packed), format_address(six.packed)
    net = one.packed[0] >> 4
    harmless = f"hxxp://{text.replace('.', '[.]')}/"
    whole = ipaddress.IPv6Address(six.packed).exploded.upper()
    cases: dict[str, Callable[[SearchEntry], bool]] = {
        # All words must match: each is another spelling of the same address.
        f"{harmless} ::ffff:{text} {text}-{text} {one.asn}": lambda entry: (
            entry.packed == one.packed
        ),
        f"{one.packed[0]}.{one.packed[1]}.": lambda entry: (
            len(entry.packed) == 4 and entry.packed[:2] == one.packed[:2]
        ),
        f"{net << 4}.0.0.0/4 {one.cls} AS{one.asn}": lambda entry: (
            len(entry.packed) == 4
            and entry.packed[0] >> 4 == net
            and entry.cls == one.cls
            and entry.asn == one.asn
        ),
        f"{text6} {whole} {whole[:24]} {text6.replace(':', '[:]')} {text6}-{whole}": (
            lambda entry: entry.packed == six.packed
        ),
        f"{format_address(sixes[0])}-{format_address(sixes[20])}": lambda entry: (
            entry.packed in sixes[:21]
        ),
        format_address(six.packed)[:4] + "::/16": lambda entry: (
            len(entry.packed) == 16 and entry.packed[:2] == six.packed[:2]
        ),
        f"AS{one.asn}": lambda entry: entry.asn == one.asn,
        "example-199": lambda entry: "example-199" in entry.name.lower(),
    }
    for query, fits in cases.items():
        dom = searched(browser, path, "#q=" + quote(query))
        expected = found(entries, fits)
        assert set(addresses(dom)) == expected, query
        assert answer(dom).startswith("1 address" if len(expected) == 1 else f"{len(expected)} ")


def test_an_address_has_a_link_with_its_history_and_names_stay_text(
    browser: Browser, pages: Samples
) -> None:
    path, entries = pages(10_000)
    odd = next(entry for entry in entries if HTML_NAMES.get(entry.asn or 0, "").startswith("<"))
    dom = searched(browser, path, "#ip=" + quote(format_address(odd.packed)))
    assert answer(dom) == "1 address"
    card = dom[dom.index('<article id="card"') :]
    assert f">{format_address(odd.packed)}</a></h3>" in card
    assert f"<dd>{odd.cls}</dd>" in card
    assert "&lt;script&gt;" in card
    assert "<script>alert" not in dom


def test_search_without_a_match_is_reported(browser: Browser, pages: Samples) -> None:
    path, _ = pages(1)
    dom = searched(browser, path, "#q=" + quote("<b>nothing</b>"))
    assert answer(dom).startswith("Nothing in the feeds matches “<b>nothing</b>”")
    assert addresses(dom) == []


def test_the_browser_reports_what_the_policy_refuses(
    browser: Browser, tmp_path: Path, pages: Samples
) -> None:
    """The tests above can fail: an inline script is refused, and that is a message."""
    path, _ = pages(1)
    for file in path.parent.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    text = path.read_text("utf-8")
    (tmp_path / path.name).write_text(text.replace("</main>", "<script>a()</script></main>"))
    with browser.page(tmp_path / path.name) as page:
        (message,) = page.messages
    assert "Content Security Policy" in message


def test_axe_reports_what_breaks_a_rule(browser: Browser, tmp_path: Path) -> None:
    """The test with axe can fail."""
    bad = tmp_path / "bad.html"
    bad.write_text("<!doctype html><title>x</title><p style='color:#bbb'>pale</p><input>")
    with browser.page(bad) as page:
        rules = {line.partition(":")[0] for line in violations(page)}
    assert {"html-has-lang", "color-contrast", "label"} <= rules
