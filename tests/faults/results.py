"""The table of results in the documentation; only runs write it."""

from __future__ import annotations

import os
import re
import time
from pathlib import Path

from .run import Result

PAGE = Path(__file__).parents[2] / "docs" / "explanation" / "faults.md"
_BEGIN = "<!-- results: written by `make faults` -->"
_END = "<!-- end of results -->"
_HEAD = (
    "| fault | runs | events | cut off | lost | twice | invented | longest recovery, s | on |\n"
    "|---|---:|---:|---:|---:|---:|---:|---:|---|\n"
)


class Table:
    """Results by fault; results of faults that did not run again stay."""

    def __init__(self, page: Path) -> None:
        self._page = page

    def add(self, result: Result) -> None:
        """Replace the last result of a fault, and write the page."""
        page = self._page.read_text(encoding="utf-8")
        rows = _rows(page)
        rows[result.fault] = (
            f"| {result.fault} | {result.faults} | {result.events} | {result.unanswered} "
            f"| {result.lost} | {result.twice} | {result.invented} | {result.recovery_s:.1f} "
            f"| {time.strftime('%Y-%m-%d', time.gmtime())}, {_machine()} |"
        )
        before, rest = page.split(_BEGIN, 1)
        _, after = rest.split(_END, 1)
        table = _HEAD + "".join(f"{rows[fault]}\n" for fault in sorted(rows))
        aside = self._page.with_suffix(".new")
        aside.write_text(f"{before}{_BEGIN}\n{table}{_END}{after}", encoding="utf-8")
        aside.replace(self._page)

    def text(self) -> str:
        """Return the table."""
        return "\n".join(_rows(self._page.read_text(encoding="utf-8")).values())


def _machine() -> str:
    """Return the load of the machine, which affects the recovery time."""
    return f"{os.cpu_count()} cores, load {os.getloadavg()[1]:.0f}"


def _rows(page: str) -> dict[str, str]:
    table = page.split(_BEGIN)[1].split(_END, 1)[0]
    rows = [line for line in table.splitlines() if re.match(r"\| .* \| \d+ \|", line)]
    return {row.split("|")[1].strip(): row for row in rows}
