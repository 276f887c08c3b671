"""The options `--config` and `--as`, the same for every command that reads settings.

Without `--config` a command looks for its settings file in the folder that SMTPFEEDS_DIR names
(that of `smtpfeeds up`), or else in /etc/smtpfeeds, or in the folder that SMTPFEEDS_SETTINGS names
in its place.
"""

import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, TypeVar

import click

from .errors import SettingsError
from .existing_path import ExistingPath
from .users import become, find_user

Command = TypeVar("Command", bound=Callable[..., Any])

#: Names the folder of `smtpfeeds up` for every command.
FOLDER_VARIABLE: Final = "SMTPFEEDS_DIR"
#: Where the systemd units keep their settings.
USUAL_FOLDER: Final = Path("/etc/smtpfeeds")
#: Names another folder for them.
_SETTINGS_VARIABLE: Final = "SMTPFEEDS_SETTINGS"


def config_option(program: str, *, usual: str = "") -> Callable[[Command], Command]:
    """Add `--config` to a command.

    Args:
        program: the program in the names of the environment variables.
        usual: the file to look for in the usual places; empty: only the option names a file.
    """

    def or_usual(_context: click.Context, _option: click.Parameter, given: Any) -> Any:
        return usual_config(usual) if usual and given is None else given

    return click.option(
        "--config",
        "-c",
        type=ExistingPath(dir_okay=False),
        callback=or_usual,
        help=f"Settings file (TOML). SMTPFEEDS_{program.upper()}_* variables override it.",
    )


def usual_folder() -> Path:
    """Return the folder with the settings of this host.

    Raises:
        SettingsError: SMTPFEEDS_SETTINGS names something that is not a folder.
    """
    named = os.environ.get(_SETTINGS_VARIABLE)
    if not named:
        return USUAL_FOLDER
    try:
        fault = "" if stat.S_ISDIR(Path(named).stat().st_mode) else "it is not a folder"
    except OSError as exc:
        fault = str(exc.strerror)
    if fault:
        raise SettingsError(
            f"{_SETTINGS_VARIABLE} names {named}: {fault}. Name the folder that has the settings "
            f"files, or unset the variable to use {USUAL_FOLDER}"
        )
    return Path(named)


def usual_config(*names: str) -> Path | None:
    """Return the settings file to use without `--config`; None if there is none.

    Args:
        names: files in the usual folder in order of preference. In the folder that SMTPFEEDS_DIR
            names, the first is used.

    Raises:
        SettingsError: there is one, and this user can read none. Without its settings a command
            would answer for a host with the default ones.
    """
    named = os.environ.get(FOLDER_VARIABLE)
    if named:
        return Path(named) / names[0]
    folder = usual_folder()
    files = [folder / name for name in names]
    if readable := [file for file in files if os.access(file, os.R_OK)]:
        return readable[0]
    for closed in filter(None, map(closed_by, files)):
        raise SettingsError(
            f"this user cannot read {closed}: start the command as root or as the user of the "
            "program, or name another settings file with --config"
        )
    return None


def closed_by(file: Path) -> Path | None:
    """Return what keeps this user from reading a file: the file, or its folder; else None."""
    if os.access(file, os.F_OK):
        return None if os.access(file, os.R_OK) else file
    is_closed = os.access(file.parent, os.F_OK) and not os.access(file.parent, os.X_OK)
    return file.parent if is_closed else None


def as_option(command: Command) -> Command:
    """Add `--as USER` to a command that only checks; it calls ``check_as`` after its imports."""
    return click.option(
        "--as",
        "as_user",
        default="",
        metavar="USER",
        help="For root: check as this user, such as the one of the systemd unit.",
    )(command)


def check_as(name: str) -> None:
    """Become this user for the rest of the command; an empty name changes nothing.

    Raises:
        SettingsError: there is no such user, or only root can become it.
    """
    user = find_user(name, setting="--as")
    if user is not None:
        become(user)
