"""Every command that shows something can show it as JSON, with the same two options."""

from __future__ import annotations

from collections.abc import Iterator

import click

from smtpfeeds_common.cli import main

SHOWING = {"list", "status", "show", "lookup", "refresh", "rollback", "now", "check", "epochs"}
#: Writes one message as it is.
UNCHANGED = {"aggregator dead-letters show"}


def commands(
    command: click.Command, words: tuple[str, ...], context: click.Context
) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    if not isinstance(command, click.Group):
        yield words, command
        return
    for name in command.list_commands(context):
        below = command.get_command(context, name)
        assert below is not None
        yield from commands(below, (*words, name), click.Context(below, parent=context))


def test_what_a_command_shows_can_be_had_as_json() -> None:
    seen = set()
    for words, command in commands(main, (), click.Context(main)):
        options = {text for parameter in command.params for text in parameter.opts}
        named = " ".join(words)
        assert ("--json" in options) == ("--format" in options), named
        if words[-1] in SHOWING and named not in UNCHANGED:
            assert "--json" in options, named
            seen.add(words[-1])
    assert seen == SHOWING
