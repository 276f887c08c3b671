"""`smtpfeeds sensor`: run and check-config."""

import functools
from pathlib import Path

import click

from smtpfeeds_common import logs
from smtpfeeds_common.config_option import as_option, check_as
from smtpfeeds_common.settings import located

from .. import settings as sensor_settings
from ..process.modules import leave_out_unused
from .group import config_of_sensor, sensor


@sensor.command(short_help="Run the sensor until SIGTERM or SIGINT.")
@config_of_sensor
def run(config: Path | None) -> None:
    """Run the sensor until SIGTERM or SIGINT.

    SIGHUP makes it read settings, certificates and passwords again. It applies lists of networks,
    brokers, keys and passwords; other settings need a restart.

    \b
    Example:
      smtpfeeds sensor run --config /etc/smtpfeeds/sensor.toml
    """
    settings = sensor_settings.load(config)
    leave_out_unused(settings)
    from ..run import run_sensor

    logs.configure(settings.log_level, settings.log_format)
    read_again = functools.partial(sensor_settings.load, config, look_at_files=False)
    with located(settings):
        run_sensor(settings, read_again)


@sensor.command("check-config")
@config_of_sensor
@as_option
def check_config(config: Path | None, as_user: str) -> None:
    """Check the settings; open and start nothing.

    \b
    Example:
      smtpfeeds sensor check-config --config /etc/smtpfeeds/sensor.toml --as smtpfeeds
    """
    from ..check import check_all

    check_as(as_user)
    settings = sensor_settings.load(config)
    with located(settings):
        for remark in check_all(settings):
            click.echo(f"note: {remark}", err=True)
    click.echo("the settings are good")
