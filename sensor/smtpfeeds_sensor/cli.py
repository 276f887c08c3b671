"""`smtpfeeds sensor`: run, check-config, status, replay."""

import functools
import json
import re
import time
from datetime import UTC, datetime
from pathlib import Path

import click

from smtpfeeds_common import logs
from smtpfeeds_common.config_option import as_option, check_as, config_option
from smtpfeeds_common.errors import SettingsError, SpoolError
from smtpfeeds_common.spool import Status, read_status
from smtpfeeds_common.times import iso_utc

from . import settings as sensor_settings
from .settings import SensorSettings

_config = config_option("sensor")
_SINCE = re.compile(r"(\d+)([smhd])")
_UNIT_S = {"s": 1, "m": 60, "h": 3600, "d": 86_400}


@click.group()
def sensor() -> None:
    """Run an SMTP sensor, and look after it."""


@sensor.command(short_help="Run the sensor until SIGTERM or SIGINT.")
@_config
def run(config: Path | None) -> None:
    """Run the sensor until SIGTERM or SIGINT.

    SIGHUP reads settings, certificates and passwords again: lists of networks, brokers, keys and
    passwords are taken over; other settings need a restart.
    """
    from .run import run_sensor

    settings = sensor_settings.load(config)
    logs.configure(settings.log_level, settings.log_format)
    read_again = functools.partial(sensor_settings.load, config, look_at_files=False)
    run_sensor(settings, read_again)


@sensor.command("check-config")
@_config
@as_option
def check_config(config: Path | None, as_user: str) -> None:
    """Check the settings; open and start nothing."""
    from .check import check_all

    check_as(as_user)
    settings = sensor_settings.load(config)
    for remark in check_all(settings):
        click.echo(f"note: {remark}", err=True)
    click.echo("the settings are good")


@sensor.command(short_help="Show from the spool files how the sensor does.")
@_config
@click.option("--json", "as_json", is_flag=True, help="One JSON object a spool.")
def status(config: Path | None, as_json: bool) -> None:  # noqa: FBT001 - a click flag
    """Show from the spool files how the sensor does; it need not run."""
    settings = sensor_settings.load(config)
    paths = _own_spools(settings)
    for path in paths:
        state = read_status(path)
        if as_json:
            click.echo(json.dumps({"spool": str(path), **state._asdict()}))
        else:
            click.echo("\n".join(_lines(path, state)))


def _own_spools(settings: SensorSettings) -> list[Path]:
    from .delivery.spools import own_spools

    paths = own_spools(settings)
    if not paths:
        raise SpoolError(
            f"there is no spool of {settings.name!r} in {settings.spool_dir}; "
            "the sensor makes it when it starts"
        )
    return paths


def _lines(path: Path, status: Status) -> list[str]:
    oldest = "nothing" if status.oldest_ms is None else f"since {_utc(status.oldest_ms)}"
    rows = ", ".join(f"{name} {number}" for name, number in status.rows.items())
    batches = (
        f"{status.batches_waiting} wait for a confirm, {status.batches_kept} kept for a replay"
    )
    facts = [
        ("sensor", f"{status.sensor} {status.version}, state of {_utc(status.noted_ms)}"),
        ("last client", _utc(status.client_ms)),
        ("last delivery", _utc(status.delivered_ms)),
        ("last failure", _failure(status)),
        ("waits", f"{oldest}: {rows}"),
        ("batches", batches),
        ("size", f"{status.used_bytes / 1024 / 1024:.1f} MB"),
        ("events dropped", str(status.drops)),
    ]
    lines = [f"  {name:<15}  {value}" for name, value in facts]
    counters = [(name, number) for name, number in status.counters.items() if number]
    return [str(path), *lines, *_alarms(status), *(f"  {n:<21} {v}" for n, v in counters)]


def _failure(status: Status) -> str:
    return f"{_utc(status.failed_ms)}: {status.failure}" if status.failure else "never"


def _alarms(status: Status) -> list[str]:
    """What somebody should look at; nothing where all is well."""
    alarms = [
        (status.doubt, "clock", status.doubt),
        (status.undated, "not dated", f"{status.undated} addresses, until the clock is believed"),
        (status.batches_again, "again", f"{status.batches_again} batches will be delivered again"),
        (status.batches_too_large, "too large", f"{status.batches_too_large} batches are held"),
        (status.batches_refused, "refused", f"{status.batches_refused} batches are held"),
    ]
    return [f"  {name:<15}  {text}" for is_there, name, text in alarms if is_there]


@sensor.command(short_help="Deliver confirmed batches again.")
@_config
@click.option(
    "--since",
    required=True,
    help='From when: "6h", "2d", or a UTC time such as 2026-11-23T11:00Z.',
)
def replay(config: Path | None, since: str) -> None:
    """Deliver confirmed batches again: what arrives twice counts once.

    Works while the sensor runs; its publisher sends them at its next look.
    """
    from smtpfeeds_common.spool import replay as replay_spool

    settings = sensor_settings.load(config)
    since_ms = _since_ms(since, time.time())
    number = sum(replay_spool(path, since_ms) for path in _own_spools(settings))
    click.echo(f"{number} batches sealed since {_utc(since_ms)} will be delivered again")


def _since_ms(text: str, now_s: float) -> int:
    found = _SINCE.fullmatch(text)
    if found:
        return int((now_s - int(found[1]) * _UNIT_S[found[2]]) * 1000)
    try:
        moment = datetime.fromisoformat(text)
    except ValueError as exc:
        raise SettingsError(f'--since: {text!r} is neither "6h" nor a UTC time') from exc
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return int(moment.timestamp() * 1000)


def _utc(ms: int | None) -> str:
    if ms is None:
        return "never"
    return iso_utc(datetime.fromtimestamp(ms // 1000, UTC))
