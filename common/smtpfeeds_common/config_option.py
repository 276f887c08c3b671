"""Options in the same words at every command that reads settings: `--config` and `--as`."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from .users import become, find_user

Command = TypeVar("Command", bound=Callable[..., Any])


def config_option(program: str) -> Callable[[Command], Command]:
    """Add `--config` to a command; `program` names the environment's variables."""
    return click.option(
        "--config",
        "-c",
        type=click.Path(exists=True, dir_okay=False, path_type=Path),
        help=f"Settings file (TOML). SMTPFEEDS_{program.upper()}_* variables override it.",
    )


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
