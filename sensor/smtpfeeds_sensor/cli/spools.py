"""`smtpfeeds sensor`: status and replay."""

import json
import re
import time
from datetime import UTC, datetime
from pathlib import Path

import click

from smtpfeeds_common.answers import text_or_json
from smtpfeeds_common.errors import SettingsError
from smtpfeeds_common.spool import Status, read_status
from smtpfeeds_common.spool.left_behind import find_left_behind

from .. import settings as sensor_settings
from .group import config_of_sensor, own_spools_of, sensor, shown_utc

_SINCE = re.compile(r"(\d+)([smhd])")
_UNIT_S = {"s": 1, "m": 60, "h": 3600, "d": 86_400}


@sensor.command(short_help="Show the sensor's status from its spool files.")
@config_of_sensor
@text_or_json
def status(config: Path | None, *, as_json: bool) -> None:
    """Show the sensor's status from its spool files; the sensor does not have to run.

    JSON has one object for each spool, each on a line of its own. `smtpfeeds sensor left-behind
    list` shows undelivered batches and files.

    \b
    Examples:
      smtpfeeds sensor status
      smtpfeeds sensor status --json
    """
    settings = sensor_settings.load(config)
    for path in own_spools_of(settings):
        state = read_status(path)
        if as_json:
            click.echo(json.dumps({"spool": str(path), **state._asdict()}))
        else:
            click.echo("\n".join(_lines(path, state)))
    left = find_left_behind(Path(settings.spool_dir), settings.name)
    if left and not as_json:
        click.echo(f"{len(left)} files are not delivered: see `smtpfeeds sensor left-behind list`")


def _lines(path: Path, status: Status) -> list[str]:
    oldest = "nothing" if status.oldest_ms is None else f"since {shown_utc(status.oldest_ms)}"
    rows = ", ".join(f"{name} {number}" for name, number in status.rows.items())
    batches = (
        f"{status.batches_waiting} wait for a confirm, {status.batches_kept} kept for a replay"
    )
    facts = [
        ("sensor", f"{status.sensor} {status.version}, state of {shown_utc(status.noted_ms)}"),
        ("last client", shown_utc(status.client_ms)),
        ("last delivery", shown_utc(status.delivered_ms)),
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
    return f"{shown_utc(status.failed_ms)}: {status.failure}" if status.failure else "never"


def _alarms(status: Status) -> list[str]:
    """Return lines about problems; empty if there are none."""
    alarms = [
        (status.doubt, "clock", status.doubt),
        (status.undated, "not dated", f"{status.undated} addresses, until the clock is trusted"),
        (
            status.batches_to_replay,
            "again",
            f"{status.batches_to_replay} batches will be delivered again",
        ),
        (status.batches_too_large, "too large", f"{status.batches_too_large} batches are held"),
        (status.batches_refused, "refused", f"{status.batches_refused} batches are held"),
    ]
    return [f"  {name:<15}  {text}" for is_there, name, text in alarms if is_there]


@sensor.command(short_help="Deliver confirmed batches again.")
@config_of_sensor
@click.option(
    "--since",
    required=True,
    help='From when: "6h", "2d", or a UTC time such as 2026-11-23T11:00Z.',
)
def replay(config: Path | None, since: str) -> None:
    """Deliver confirmed batches again; a batch that arrives twice counts once.

    Works while the sensor runs; the sensor soon sends them, after new batches. They stay confirmed
    until then: when the spool is at its bound, it deletes them before any event.

    \b
    Example:
      smtpfeeds sensor replay --since 24h
    """
    from smtpfeeds_common.spool import replay as replay_spool

    settings = sensor_settings.load(config)
    since_ms = _since_ms(since, time.time())
    number = sum(replay_spool(path, since_ms) for path in own_spools_of(settings))
    click.echo(f"{number} batches sealed since {shown_utc(since_ms)} will be delivered again")


def _since_ms(text: str, now_s: float) -> int:
    match = _SINCE.fullmatch(text)
    if match:
        return int((now_s - int(match[1]) * _UNIT_S[match[2]]) * 1000)
    try:
        moment = datetime.fromisoformat(text)
    except ValueError as exc:
        raise SettingsError(f'--since: {text!r} is neither "6h" nor a UTC time') from exc
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return int(moment.timestamp() * 1000)
