"""What the aggregator's commands share: where their settings come from."""

from pathlib import Path

import click

from smtpfeeds_common import logs

from . import settings as aggregator_settings
from .settings import AggregatorSettings

CONFIG = click.option(
    "--config",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Settings file (TOML). Without it, SMTPFEEDS_AGGREGATOR_* variables alone.",
)


def load(config: Path | None) -> AggregatorSettings:
    """Read the settings and set up the logs as they say."""
    settings = aggregator_settings.load(config)
    logs.configure(settings.log_level, settings.log_format)
    return settings
