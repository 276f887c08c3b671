"""Options in the same words at every command that reads settings: `--config` and `--as`.

Where nothing says which settings, the usual places are looked at: the folder that
SMTPFEEDS_DIR names (of `smtpfeeds up`), then /etc/smtpfeeds.
"""

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final, TypeVar

import click

from .users import become, find_user

Command = TypeVar("Command", bound=Callable[..., Any])

#: Names the folder of `smtpfeeds up` for every command.
FOLDER_VARIABLE: Final = "SMTPFEEDS_DIR"
#: Where the units of systemd have their settings.
USUAL_FOLDER: Final = Path("/etc/smtpfeeds")


def config_option(program: str, *, usual: str = "") -> Callable[[Command], Command]:
    """Add `--config` to a command.

    Args:
        program: names the environment's variables.
        usual: the file's name in the usual places, where the option alone says which file.
    """

    def or_usual(_context: click.Context, _option: click.Parameter, given: Any) -> Any:
        return usual_config(usual) if usual and given is None else given

    return click.option(
        "--config",
        "-c",
        type=click.Path(exists=True, dir_okay=False, path_type=Path),
        callback=or_usual,
        help=f"Settings file (TOML). SMTPFEEDS_{program.upper()}_* variables override it.",
    )


def usual_config(
    *names: str, folder: Path = USUAL_FOLDER, environ: Mapping[str, str] | None = None
) -> Path | None:
    """The settings file where none is named; None: there is none that this user may read.

    Args:
        names: files below /etc/smtpfeeds in the order of preference; in the folder that
            SMTPFEEDS_DIR names the first of them is the one.
        folder: in place of /etc/smtpfeeds.
        environ: in place of the environment.
    """
    named = (os.environ if environ is None else environ).get(FOLDER_VARIABLE)
    if named:
        return Path(named) / names[0]
    return next((folder / name for name in names if os.access(folder / name, os.R_OK)), None)


def as_option(command: Command) -> Command:
    """Add `--as USER` to a command that only checks; it calls ``check_as`` once it is imported."""
    return click.option(
        "--as",
        "as_user",
        default="",
        metavar="USER",
        help="For root: check as this user, such as the one of the systemd unit.",
    )(command)


def check_as(name: str) -> None:
    """Do all that follows as this user, where one is named.

    Raises:
        SettingsError: there is no such user, or only root can become it.
    """
    user = find_user(name, setting="--as")
    if user is not None:
        become(user)
