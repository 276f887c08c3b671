"""What the aggregator's commands share: where their settings come from."""

import os
from pathlib import Path
from typing import Final

import click

from smtpfeeds_common import logs
from smtpfeeds_common.config_option import config_option
from smtpfeeds_common.errors import SettingsError

from .. import settings as aggregator_settings
from ..settings import AggregatorSettings

#: What `smtpfeeds up` writes into its folder.
_SINGLE_HOST_SETTINGS: Final = "aggregator.toml"

CONFIG: Final = config_option(aggregator_settings.PROGRAM)
FOLDER: Final = click.option(
    "--dir",
    "folder",
    type=click.Path(path_type=Path, file_okay=False),
    help="The folder of `smtpfeeds up`, in place of --config.",
)


def load(config: Path | None) -> AggregatorSettings:
    """Read the settings and set up the logs as they say."""
    settings = aggregator_settings.load(config)
    logs.configure(settings.log_level, settings.log_format)
    return settings


def config_of(config: Path | None, folder: Path | None) -> Path | None:
    """The settings file that `--config` or `--dir` names.

    Raises:
        SettingsError: both are given, or the folder is none of `smtpfeeds up`.
    """
    if folder is None:
        return config
    if config is not None:
        raise SettingsError("--dir says which settings already; leave --config out")
    return single_host_settings(folder)


def single_host_settings(folder: Path) -> Path:
    """The settings file of a folder of `smtpfeeds up`, for a command that asks nothing else.

    The folder's database is private: libpq's variables in the environment (PGHOSTADDR, PGOPTIONS,
    PGSERVICE and others) are about some other one, and are removed from this process.

    Raises:
        SettingsError: there is none in it.
    """
    config = folder / _SINGLE_HOST_SETTINGS
    if not config.is_file():
        raise SettingsError(f"{folder} is not a folder of `smtpfeeds up`: it has no {config.name}")
    for name in [name for name in os.environ if name.startswith("PG")]:
        del os.environ[name]
    return config
