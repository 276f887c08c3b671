"""The group of the sensor's commands, and their shared parts."""

from datetime import UTC, datetime
from pathlib import Path

import click

from smtpfeeds_common.config_option import config_option
from smtpfeeds_common.errors import SpoolError
from smtpfeeds_common.times import iso_utc

from ..settings import SensorSettings

config_of_sensor = config_option("sensor", usual="sensor.toml")


@click.group()
def sensor() -> None:
    """Run an SMTP sensor, and look after it."""


def own_spools_of(settings: SensorSettings) -> list[Path]:
    """Return the sensor's spool files.

    Raises:
        SpoolError: there is no spool.
    """
    from ..delivery.spools import own_spools

    paths = own_spools(settings)
    if not paths:
        raise SpoolError(
            f"there is no spool of {settings.name!r} in {settings.spool_dir}; "
            "the sensor creates it when it starts"
        )
    return paths


def shown_utc(ms: int | None) -> str:
    """Format a time for an operator."""
    if ms is None:
        return "never"
    return iso_utc(datetime.fromtimestamp(ms // 1000, UTC))
