"""The option `--config`, in the same words at every command that reads settings."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

Command = TypeVar("Command", bound=Callable[..., Any])


def config_option(program: str) -> Callable[[Command], Command]:
    """Add `--config` to a command; `program` names the environment's variables."""
    return click.option(
        "--config",
        "-c",
        type=click.Path(exists=True, dir_okay=False, path_type=Path),
        help=f"Settings file (TOML). SMTPFEEDS_{program.upper()}_* variables override it.",
    )
