"""A command whose output goes to a full disk ends with a message instead of a traceback."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.parametrize("lines", [1, 20_000], ids=["at the end", "on the way"])
def test_full_disk_behind_stdout_is_said_and_fails(tmp_path: Path, lines: int) -> None:
    """A short output fails when it is flushed, a long one while it is written."""
    table = tmp_path / "table"
    table.write_text("1.0.0.0/8\t64496\n")
    command = [sys.executable, "-m", "smtpfeeds_common.cli", "origin", "lookup"]
    with Path("/dev/full").open("wb") as full:
        done = subprocess.run(
            [*command, "--origin-table", str(table), "-"],
            input=b"1.1.1.1\n" * lines,
            stdout=full,
            stderr=subprocess.PIPE,
            timeout=60,
            check=False,
        )
    assert done.returncode == 3
    assert done.stderr.decode() == (
        "smtpfeeds: No space left on device: standard output; the output is incomplete\n"
    )
