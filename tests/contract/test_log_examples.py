"""Run the examples about logs and published files from help and how-to pages."""

from __future__ import annotations

import gzip
import re
import shlex
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from publish_support.editions import entry, write_edition
from smtpfeeds_common.cli import main

DOCS = Path(__file__).parents[2] / "docs" / "how-to"
PAGES = ("mail-log.md", "week-in-numbers.md")
COMMANDS = (("filter",), ("stats",), ("feed", "diff"))
LOG = "connect from unknown[192.0.2.17]\nconnect from unknown[198.51.100.1]\n"


def examples() -> list[str]:
    texts = [(DOCS / page).read_text(encoding="utf-8") for page in PAGES]
    for path in COMMANDS:
        leaf: click.Command = main
        for name in path:
            assert isinstance(leaf, click.Group)
            command = leaf.get_command(click.Context(leaf), name)
            assert command is not None
            leaf = command
        texts.append(leaf.epilog or "")
    lines = [line.strip() for text in texts for line in text.splitlines()]
    # Hours are in the database alone.
    wanted = re.compile(r"(tail .*\| )?smtpfeeds (?!.*--by hour)[a-z]")
    return sorted({line for line in lines if wanted.match(line)})


@pytest.mark.parametrize("example", examples())
def test_example_about_logs_runs(
    example: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The named files exist; published files replace the database."""
    rows = [entry("192.0.2.17"), entry("192.0.2.17", "smtpdata"), entry("2001:db8::1", "smtpdata")]
    feeds = write_edition(tmp_path / "feeds", rows)
    write_edition(tmp_path / "yesterday", rows[1:])
    for day in ("2026-11-24", "2026-11-25"):
        write_edition(tmp_path / "feeds" / "archive" / day, rows)
    (tmp_path / "mail.log").write_text(LOG)
    (tmp_path / "mail.log.1.gz").write_bytes(gzip.compress(LOG.encode()))
    monkeypatch.chdir(tmp_path)
    command = re.split(r" [|>] ", example.rpartition("| smtpfeeds ")[2].removeprefix("smtpfeeds "))[
        0
    ]
    words = shlex.split(command.replace("/var/log/", "").replace("mail.log*.gz", "mail.log.1.gz"))
    words = [str(feeds) if word == "https://feeds.example.net/" else word for word in words]
    if "diff" not in words and "--from" not in words:
        words += ["--from", str(feeds)]
    done = CliRunner().invoke(main, words)
    assert done.exit_code in {0, 1}, done.output
    assert not isinstance(done.exception, Exception), done.exception
    if "mail.log" in words and not {"--only-class", "--feed"} & set(words):
        assert done.exit_code == 0, done.output
