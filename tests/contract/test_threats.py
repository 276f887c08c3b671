"""Every test that the threats page names exists."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "explanation" / "threats.md"
NAMED = re.compile(r"`(?:(test_\w+\.py)(?:::(test_\w+))?|(test_\w+))`")


def test_threats_page_names_existing_tests() -> None:
    folder = ROOT / "tests"
    texts = {path.name: path.read_text() for path in folder.rglob("test_*.py")}
    named = NAMED.findall(PAGE.read_text())
    assert len(named) > 12
    for file, function, alone in named:
        if file:
            assert file in texts, file
        if name := function or alone:
            where = texts[file] if file else "".join(texts.values())
            assert f"def {name}(" in where, name


def test_each_row_names_a_test_or_states_that_there_is_none() -> None:
    rows = [
        line for line in PAGE.read_text().splitlines() if re.match(r"\| (?!---|it can|with)", line)
    ]
    assert len(rows) > 15
    marked = ("*by design*", "*not tried*", "the same test")
    bare = [row for row in rows if not NAMED.search(row) and not any(m in row for m in marked)]
    assert bare == []
