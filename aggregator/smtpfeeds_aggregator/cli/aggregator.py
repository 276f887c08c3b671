"""`smtpfeeds aggregator`: migrate, run, check-config, the clock and what is refused."""

from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from smtpfeeds_common.config_option import as_option, check_as
from smtpfeeds_common.settings import located

from .clock import accept_clock, clock
from .dead_letters import dead_letters
from .options import CONFIG, database_options, load
from .roles import roles

if TYPE_CHECKING:
    from ..settings import AggregatorSettings

#: A statement of a step may build an index of a very large table, or wait for another `migrate`.
_STEP_S: Final = 3600.0


@click.group()
def aggregator() -> None:
    """Run the central aggregator."""


@aggregator.command(short_help="Ingest batches, and publish the feeds.")
@CONFIG
def run(config: Path | None) -> None:
    """Ingest batches and, if feeds_dir is set, publish the feeds.

    It logs `ready` when it can ingest batches, and waits for an unavailable database or broker. On
    SIGTERM and SIGINT it finishes the present batches and ends.

    \b
    Example:
      smtpfeeds aggregator run --config /etc/smtpfeeds/aggregator.toml
    """
    from ..start import run as run_service

    settings = load(config)
    with located(settings):
        raise SystemExit(run_service(settings))


@aggregator.command()
@database_options
def migrate(settings: "AggregatorSettings") -> None:
    """Update the database's schema for this program.

    It is safe while aggregators run, also those of the previous version, and twice at once. The
    roles of `aggregator roles` get the privileges that this version needs. A role that does not own
    the tables can run it if the schema is up to date.

    \b
    Example:
      smtpfeeds aggregator migrate
    """
    from smtpfeeds_common import logs

    from ..store.connection import connect
    from ..store.migrations import migrate as apply
    from ..store.roles import renew_grants

    logs.configure(settings.log_level, settings.log_format)
    with connect(settings, "migrate", autocommit=True, limit_s=_STEP_S) as connection:
        done = apply(connection)
        renew_grants(connection)
    for step in done:
        click.echo(f"applied {step.label}")
    if not done:
        click.echo("the schema is up to date")


@aggregator.command("check-config", short_help="Check the settings; connects to nothing.")
@CONFIG
@as_option
def check_config(config: Path | None, as_user: str) -> None:
    """Read the settings like `run`, and check their folders and files; connect to nothing.

    \b
    Example:
      smtpfeeds aggregator check-config --config /etc/smtpfeeds/aggregator.toml --as smtpfeeds
    """
    from .check_config import check

    check_as(as_user)
    settings = load(config)
    with located(settings):
        for line in check(settings):
            click.echo(line)


aggregator.add_command(clock)
aggregator.add_command(accept_clock)
aggregator.add_command(dead_letters)
aggregator.add_command(roles)
