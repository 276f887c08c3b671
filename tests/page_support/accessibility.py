"""The rules of axe-core, run in a page by the DevTools protocol.

The page's content security policy stays in force: the protocol runs the script, not the page. The
script comes from a pinned package (`deploy/requirements/axe.txt`), of which nothing else is used.
"""

from __future__ import annotations

import json
from functools import cache
from typing import Final

from page_support.browser import BrowserPage
from pinned_packages import pinned_packages

#: WCAG 2.2, levels A and AA, and what axe-core calls best practice. Without `preload`, which
#: fetches style sheets, and the page's policy refuses a fetch.
_OPTIONS: Final = {
    "preload": False,
    "resultTypes": ["violations"],
    "runOnly": ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"],
}
_RUN: Final = """
axe.run(document, %s).then(result => ({
    passes: result.passes.length,
    violations: result.violations.flatMap(rule => rule.nodes.map(
        node => rule.id + ": " + node.html + ": " + node.failureSummary)),
}))
"""


def violations(page: BrowserPage) -> list[str]:
    """Return what breaks a rule, one line for each element and rule."""
    page.run(_axe())
    result = page.run(_RUN % json.dumps(_OPTIONS))
    assert result["passes"] > 0
    lines: list[str] = result["violations"]
    return lines


@cache
def _axe() -> str:
    (script,) = pinned_packages("axe").glob("*/axe.min.js")
    return script.read_text(encoding="utf-8")
