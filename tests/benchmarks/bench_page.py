"""The page of a publication measured in headless Chromium, beside the least that it could take.

    python tests/benchmarks/bench_page.py

Pages with 0, 1, 10,000 and 300,000 addresses, opened from disk in new profiles, so nothing is in a
cache. What is compared takes turns; each figure is a median of rounds, each ratio a median of the
rounds' ratios. It prints a table; BENCH_OUT names a file for the figures as JSON. With
BENCH_SHORT=1 the pages have 300 addresses at most.

* empty_ms: from the navigation to the first paint of a page with one word in it.
* show_ms_N: the same of the page of N addresses; show_vs_empty_N: beside the empty page.
* load_ms_N: a script element with the search's index in it, until a function that does nothing has
  its argument: no search that loads this index as a script can answer sooner.
* first_answer_ms_N: from the first typed word, which makes the page load its index, to the frame
  after the answer; first_answer_vs_load_N: beside load_ms_N.
* answer_ms_N: the same of a later word, the slowest of several kinds.
* index_mb, index_gzip_mb: the index of the largest page.
"""

import gzip
import json
import statistics
import sys
import tempfile
from collections import defaultdict
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks.report import report, stage
from benchmarks.sizes import size
from page_support import search_entries, write_sample
from page_support.browser import Browser, BrowserPage
from smtpfeeds_aggregator.publish.page.model import SEARCH_LIMIT
from smtpfeeds_aggregator.publish.page.search import SEARCH_DATA

SIZES = {
    "none": 0,
    "one": 1,
    "10k": size(10_000, 100),
    "300k": size(SEARCH_LIMIT, 300),
}
ROUNDS = size(15, 1, "BENCH_ROUNDS")
#: A class, an AS, a part of a name, prefixes of both families, and all of a family.
WORDS = ("probe", "AS174", "example-1", "198.51.0.0/16", "2001:db8::/32", "0.0.0.0/0")
_EMPTY = "<!doctype html><html lang=en><title>empty</title><p>word"
_PAINTED = """
new Promise(resolve => new PerformanceObserver(list => {
    const [first] = list.getEntriesByName("first-contentful-paint");
    if (first) resolve(first.startTime);
}).observe({type: "paint", buffered: true}))
"""
#: Type a word; the time until the frame after its answer.
_ANSWERED = """
new Promise(resolve => {
    const began = performance.now(), answer = document.getElementById("answer");
    const input = document.getElementById("q");
    const look = () => {
        if (!answer.textContent || answer.textContent.startsWith("Loading")) return;
        observer.disconnect();
        requestAnimationFrame(() => setTimeout(() => resolve(performance.now() - began)));
    };
    const observer = new MutationObserver(look);
    observer.observe(answer, {childList: true});
    input.value = %s;
    input.dispatchEvent(new Event("input"));
})
"""
_LOADED = """
new Promise((resolve, reject) => {
    const began = performance.now(), script = document.createElement("script");
    window.smtpfeedsIndex = () => resolve(performance.now() - began);
    script.src = %s;
    script.onerror = reject;
    document.body.appendChild(script);
})
"""


def answered_ms(page: BrowserPage, word: str) -> float:
    """Type a word, and return the time of its answer."""
    return float(page.run(_ANSWERED % json.dumps(word)))


class Rounds:
    """Measured times by name, one for each round."""

    def __init__(self, browser: Browser, folder: Path) -> None:
        self._browser, self._folder = browser, folder
        self._empty = folder / "empty.html"
        self._empty.write_text(_EMPTY)
        self._pages: dict[str, Path] = {}
        for name, count in SIZES.items():
            stage(f"a page of {count:,}")
            self._pages[name] = write_sample(folder / name, search_entries(count))
        self.times: defaultdict[str, list[float]] = defaultdict(list)

    def measure(self) -> None:
        """Measure everything once."""
        with self._browser.page(self._empty) as page:
            self.times["empty_ms"].append(page.run(_PAINTED))
        for name, path in self._pages.items():
            with self._browser.page(self._empty) as page:
                index = (path.parent / SEARCH_DATA).as_uri()
                self.times[f"load_ms_{name}"].append(page.run(_LOADED % json.dumps(index)))
            with self._browser.page(path) as page:
                self.times[f"show_ms_{name}"].append(page.run(_PAINTED))
                self.times[f"first_answer_ms_{name}"].append(answered_ms(page, "survey"))
                slowest = max(answered_ms(page, word) for word in WORDS)
                self.times[f"answer_ms_{name}"].append(slowest)
                assert page.messages == [], page.messages

    def figures(self) -> dict[str, float]:
        """Return medians and ratios."""
        figures = {name: statistics.median(times) for name, times in self.times.items()}
        for name in SIZES:
            figures[f"show_vs_empty_{name}"] = self._ratio(f"show_ms_{name}", "empty_ms")
            figures[f"first_answer_vs_load_{name}"] = self._ratio(
                f"first_answer_ms_{name}", f"load_ms_{name}"
            )
        index = (self._folder / "300k" / SEARCH_DATA).read_bytes()
        sizes = {"index_mb": len(index), "index_gzip_mb": len(gzip.compress(index, 6))}
        return figures | {name: octets / 1e6 for name, octets in sizes.items()}

    def _ratio(self, one: str, other: str) -> float:
        pairs = zip(self.times[one], self.times[other], strict=True)
        return statistics.median(first / second for first, second in pairs)


def main() -> None:
    """All figures."""
    with tempfile.TemporaryDirectory(prefix="smtpfeeds-bench-") as place:
        folder = Path(place)
        with Browser(folder / "profile") as browser:
            rounds = Rounds(browser, folder)
            for number in range(ROUNDS):
                stage(f"round {number + 1} of {ROUNDS}")
                rounds.measure()
        report(rounds.figures())


if __name__ == "__main__":
    main()
