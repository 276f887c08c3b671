"""`smtpfeeds completion`: shell completion of commands and options."""

import os
from pathlib import Path
from typing import Final

import click

from .errors import SettingsError

_PROGRAM: Final = "smtpfeeds"
#: The shell's script sets this variable; click then prints the completions.
_VARIABLE: Final = "_SMTPFEEDS_COMPLETE"
#: Where each shell looks for scripts: a variable, its default below the home folder, the file.
_PLACES: Final = {
    "bash": ("XDG_DATA_HOME", ".local/share", "bash-completion/completions/smtpfeeds"),
    "zsh": ("XDG_DATA_HOME", ".local/share", "zsh/site-functions/_smtpfeeds"),
    "fish": ("XDG_CONFIG_HOME", ".config", "fish/completions/smtpfeeds.fish"),
}


@click.command(short_help="Let the shell complete commands and options.")
@click.argument("shell", type=click.Choice([*_PLACES]))
@click.option(
    "--install", is_flag=True, help="Write the script to the place where the shell finds it."
)
@click.pass_context
def completion(context: click.Context, shell: str, *, install: bool) -> None:
    """Print the script that completes commands and options in SHELL, or install it.

    \b
    Examples:
      smtpfeeds completion bash --install
      source <(smtpfeeds completion bash)
    """
    from click.shell_completion import get_completion_class

    cls = get_completion_class(shell)
    assert cls is not None
    script = cls(context.find_root().command, {}, _PROGRAM, _VARIABLE)
    text = script.source_template % script.source_vars()
    # click's script for fish cuts a description at its first comma.
    text = text.replace('string split ","', 'string split --max 1 ","')
    if not install:
        click.echo(text)
        return
    place = place_of(shell)
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(text + "\n", encoding="utf-8")
    except OSError as exc:
        raise SettingsError(f"cannot write {place}: {exc.strerror}") from exc
    click.echo(f"wrote {place}; a new shell uses it")
    if shell == "zsh":
        click.echo(f"zsh finds it if ~/.zshrc has, before compinit: fpath+=({place.parent})")


def place_of(shell: str) -> Path:
    """Return the path where a shell looks for the script of this user."""
    variable, usual, below = _PLACES[shell]
    named = os.environ.get(variable)
    return (Path(named) if named else Path.home() / usual) / below
