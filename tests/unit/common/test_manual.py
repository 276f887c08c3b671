"""`smtpfeeds man`: every page is text for roff, and examples keep their lines."""

from __future__ import annotations

import re

import click

from smtpfeeds_common.cli import main
from smtpfeeds_common.manual import page, walk


def test_pages_have_no_control_character_and_examples_have_lines_of_their_own() -> None:
    commands = dict(walk(("smtpfeeds",), main, click.Context(main)))
    for command in commands.values():
        command.get_params(click.Context(command))  # click remembers a help option without -h
    pages = {path: page(path, command) for path, command in commands.items()}
    assert len(pages) > 50
    for path, text in pages.items():
        assert re.findall(r"[^\n\x20-\x7e]", text) == [], path
    wanted = ".nf\nExamples:\n  smtpfeeds forget 192.0.2.7 "
    assert wanted in pages["smtpfeeds", "forget"]
    assert (
        ".SH EXAMPLES\n.PP\n.nf\nExamples:\n  smtpfeeds feed diff "
        in pages["smtpfeeds", "feed", "diff"]
    )
    assert ".B \\-h, \\-\\-help\n" in pages["smtpfeeds", "forget"]
