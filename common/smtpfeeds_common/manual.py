"""`smtpfeeds man`: writes manual pages from the help of the commands."""

import inspect
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import click

from . import __version__
from .errors import SettingsError

_SECTION: Final = "1"
#: click's mark of a paragraph that it does not rewrap.
_AS_IT_IS: Final = "\b"
#: Of each command. click has it as an option of a command only in the spelling of the first call.
_HELP: Final = ("-h, --help", "Show this message and exit.")
_NOT_ASCII: Final = re.compile(r"[^\x00-\x7f]")


@click.command(short_help="Write manual pages of all commands.")
@click.option(
    "--output",
    "output",
    required=True,
    type=click.Path(path_type=Path, file_okay=False),
    help="The folder for them, such as /usr/local/share/man/man1.",
)
@click.pass_context
def man(context: click.Context, output: Path) -> None:
    """Write a manual page for each command that is installed.

    \b
    Example:
      smtpfeeds man --output ~/.local/share/man/man1
    """
    root = context.find_root()
    count = 0
    try:
        output.mkdir(parents=True, exist_ok=True)
        for path, command in walk(("smtpfeeds",), root.command, root):
            file = output / f"{'-'.join(path)}.{_SECTION}"
            file.write_text(page(path, command), encoding="utf-8")
            count += 1
    except OSError as exc:
        raise SettingsError(f"cannot write below {output}: {exc.strerror}") from exc
    click.echo(f"wrote {count} pages to {output}")


def walk(
    path: tuple[str, ...], command: click.Command, context: click.Context
) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    """Yield a command and all its subcommands, except those whose packages are not installed."""
    yield path, command
    if not isinstance(command, click.Group):
        return
    for name in command.list_commands(context):
        try:
            child = command.get_command(context, name)
        except click.ClickException:
            continue
        if child is not None and not child.hidden:
            below = click.Context(child, parent=context, info_name=name)
            yield from walk((*path, name), child, below)


def page(path: tuple[str, ...], command: click.Command) -> str:
    """Write one page with the macros of man(7)."""
    context = click.Context(command, info_name=" ".join(path))
    name = "-".join(path)
    usage = " ".join(command.collect_usage_pieces(context))
    lines = [
        f'.TH "{name.upper()}" "{_SECTION}" "" "smtpfeeds {__version__}" "smtpfeeds"',
        *(".SH NAME", f"{_text(name)} \\- {_text(command.get_short_help_str(200))}"),
        *(".SH SYNOPSIS", f".B {_text(' '.join(path))}", _text(usage)),
        ".SH DESCRIPTION",
        *_paragraphs(_clean(command.help)),
        ".SH OPTIONS",
    ]
    records = [parameter.get_help_record(context) for parameter in command.params]
    for record in (*records, _HELP):
        if record is not None:
            lines += [".TP", f".B {_text(record[0])}", _text(record[1])]
    if isinstance(command, click.Group):
        lines.append(".SH COMMANDS")
        for below in command.list_commands(context):
            lines += [".TP", f"\\fB{_text(f'{name}-{below}')}\\fR({_SECTION})"]
    lines += _epilog(_clean(command.epilog))
    return "\n".join(lines) + "\n"


def _clean(text: str | None) -> str:
    """Remove the indentation, which click keeps until it formats a text."""
    return inspect.cleandoc(text or "")


def _epilog(text: str) -> Iterator[str]:
    """Write the text after the help: examples, then the exit codes."""
    parts = re.split(r"\n\s*\n", text.strip()) if text else []
    for section, is_example in (("EXAMPLES", True), ("EXIT STATUS", False)):
        wanted = [part for part in parts if part.startswith(_AS_IT_IS) == is_example]
        if wanted:
            yield f".SH {section}"
            yield from _paragraphs("\n\n".join(wanted))


def _paragraphs(text: str) -> Iterator[str]:
    for part in re.split(r"\n\s*\n", text.strip()):
        if part.startswith(_AS_IT_IS):
            yield ".PP"
            yield ".nf"
            yield from (_text(line) for line in part.splitlines()[1:])
            yield ".fi"
        else:
            yield ".PP"
            yield _text(" ".join(part.split()))


def _text(text: str) -> str:
    """Escape a line, so that roff reads no request and no escape in it, in any encoding."""
    escaped = text.replace("\\", "\\e").replace("-", "\\-")
    escaped = _NOT_ASCII.sub(lambda match: f"\\[u{ord(match[0]):04X}]", escaped)
    return f"\\&{escaped}" if escaped.startswith((".", "'")) else escaped
