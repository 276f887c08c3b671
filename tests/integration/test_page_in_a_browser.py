"""The page in headless Chromium, opened from disk: it shows, searches and logs no message."""

from __future__ import annotations

import ipaddress
import re
import subprocess
from collections.abc import Callable
from html import unescape
from pathlib import Path
from urllib.parse import quote

import pytest

from page_support import HTML_NAMES, SearchEntry, search_entries, write_sample
from smtpfeeds_common.addresses import format_address

#: Chromium without requests of its own.
ARGUMENTS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
    *("--virtual-time-budget=20000", "--enable-logging=stderr", "--dump-dom"),
)


@pytest.fixture(scope="module")
def pages(
    tmp_path_factory: pytest.TempPathFactory,
) -> Callable[[int], tuple[Path, list[SearchEntry]]]:
    page_of_size: dict[int, tuple[Path, list[SearchEntry]]] = {}

    def page(count: int) -> tuple[Path, list[SearchEntry]]:
        if count not in page_of_size:
            entries = search_entries(count)
            page_of_size[count] = write_sample(tmp_path_factory.mktemp("page"), entries), entries
        return page_of_size[count]

    return page


def open_page(path: Path, tmp_path: Path, fragment: str = "") -> str:
    """Return the page's elements after its scripts have run; fail if the console has a message."""
    result = subprocess.run(
        [
            "chromium",
            *ARGUMENTS,
            f"--user-data-dir={tmp_path}",
            f"{path.as_uri()}{fragment}",
        ],
        check=True,
        capture_output=True,
        text=True,
        timeout=280,
    )
    assert [line for line in result.stderr.splitlines() if "CONSOLE" in line] == []
    return result.stdout


def answer(dom: str) -> str:
    match = re.search(r'<p id="answer"[^>]*>([^<]*)', dom)
    assert match is not None
    return unescape(match[1])


def addresses(dom: str) -> list[str]:
    return [unescape(text) for text in re.findall(r'<a href="#ip=[^"]*">([^<]*)', dom)]


@pytest.mark.parametrize("count", [0, 1, 10_000])
def test_the_page_opens_without_a_message(
    count: int, tmp_path: Path, pages: Callable[[int], tuple[Path, list[SearchEntry]]]
) -> None:
    path, _ = pages(count)
    dom = open_page(path, tmp_path)
    assert f"{count:,}<span> addresses" in dom
    # The sample has expired by the reader's clock, and the page says so.
    assert re.search(r'<p id="stale" class="notice">', dom)


def found(entries: list[SearchEntry], fits: Callable[[SearchEntry], bool]) -> set[str]:
    return {format_address(entry.packed) for entry in entries if fits(entry)}


def test_each_kind_of_search_finds_what_a_loop_finds(
    tmp_path: Path, pages: Callable[[int], tuple[Path, list[SearchEntry]]]
) -> None:
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
    for number, (query, fits) in enumerate(cases.items()):
        dom = open_page(path, tmp_path / str(number), "#q=" + quote(query))
        expected = found(entries, fits)
        assert set(addresses(dom)) == expected, query
        assert answer(dom).startswith("1 address" if len(expected) == 1 else f"{len(expected)} ")


def test_an_address_has_a_link_with_its_history_and_names_stay_text(
    tmp_path: Path, pages: Callable[[int], tuple[Path, list[SearchEntry]]]
) -> None:
    path, entries = pages(10_000)
    odd = next(entry for entry in entries if HTML_NAMES.get(entry.asn or 0, "").startswith("<"))
    dom = open_page(path, tmp_path, "#ip=" + quote(format_address(odd.packed)))
    assert answer(dom) == "1 address"
    card = dom[dom.index('<article id="card"') :]
    assert f"<h3>{format_address(odd.packed)}</h3>" in card
    assert f"<dd>{odd.cls}</dd>" in card
    assert "&lt;script&gt;" in card
    assert "<script>alert" not in dom


def test_nothing_that_matches_is_said(
    tmp_path: Path, pages: Callable[[int], tuple[Path, list[SearchEntry]]]
) -> None:
    path, _ = pages(1)
    dom = open_page(path, tmp_path, "#q=" + quote("<b>nothing</b>"))
    assert answer(dom).startswith("Nothing in the feeds matches “<b>nothing</b>”")
    assert addresses(dom) == []


def test_what_is_no_address_is_not_said_to_be_in_no_feed(
    tmp_path: Path, pages: Callable[[int], tuple[Path, list[SearchEntry]]]
) -> None:
    path, _ = pages(1)
    dom = open_page(path, tmp_path, "#q=" + quote("probe 192.0.2.0/33"))
    assert answer(dom).startswith("“192.0.2.0/33” is not an address")
