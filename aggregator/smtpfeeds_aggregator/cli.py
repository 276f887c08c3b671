"""`smtpfeeds aggregator`: migrate, run, check-config and what is refused."""

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


@click.group()
def aggregator() -> None:
    """Run the central aggregator."""


@aggregator.command()
@CONFIG
def run(config: Path | None) -> None:
    """Take batches in and, where feeds_dir is set, publish the feeds.

    Logs one line `ready` when batches can come in. SIGTERM and SIGINT finish
    what is in hand.
    """
    from .service import Service

    settings = load(config)
    raise SystemExit(Service(settings).run())


@aggregator.command()
@CONFIG
def migrate(config: Path | None) -> None:
    """Bring the database's schema up to this program's.

    Safe while aggregators run, and twice at once.
    """
    from .store.connection import connect
    from .store.migrations import migrate as apply

    with connect(load(config), "migrate", autocommit=True) as connection:
        done = apply(connection)
    for step in done:
        click.echo(f"applied {step.version:04d} {step.name}")
    if not done:
        click.echo("the schema is up to date")


@aggregator.command("check-config")
@CONFIG
def check_config(config: Path | None) -> None:
    """Read the settings as `run` would; connects to nothing."""
    from .check_config import check

    for line in check(load(config)):
        click.echo(line)
