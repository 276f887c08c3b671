"""`smtpfeeds sensor left-behind`: show, deliver, convert or drop what no program delivers.

Three kinds: batches that are held in the sensor's own spools (too large, or refused by the
aggregator of this host), quarantined files, and spools of a sensor of another name.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Final

import click

from smtpfeeds_common.answers import Form, format_options, write_records
from smtpfeeds_common.columns import Column, Record
from smtpfeeds_common.errors import SettingsError, SpoolError
from smtpfeeds_common.existing_path import ExistingPath
from smtpfeeds_common.spool import SUFFIX, read_status
from smtpfeeds_common.spool.left_behind import LeftBehind, delete, find_left_behind
from smtpfeeds_common.spool.take_over import (
    Taken,
    convert,
    deliver_quarantined,
    drop_held,
    release_held,
)

from .. import settings as sensor_settings
from ..settings import SensorSettings
from .group import config_of_sensor, own_spools_of, sensor

_COLUMNS: Final = (
    Column("file"),
    Column("kind", help="held: too large, held: refused, quarantined, or other sensor"),
    Column("sensor", help="whose events are in it", rank=1),
    Column("addresses", "integer", "that were never sealed"),
    Column("batches", "integer", "that were sealed and never confirmed, or are held"),
    Column("events", "integer", "in both"),
    Column("trouble", help="why not all of it can be read", least=10),
)
_NOTHING_KNOWN: Final[Record] = dict.fromkeys(column.name for column in _COLUMNS)

_name = click.argument("name", metavar="FILE")


@sensor.group("left-behind", short_help="Show, deliver or drop undelivered batches and files.")
def left_behind() -> None:
    """Show, deliver, convert or drop undelivered batches and files.

    These are held batches in a spool, quarantined files, and spools of another sensor name. `list`
    shows the file names that the other commands take. All of them work while the sensor runs.
    """


@left_behind.command("list", short_help="Show undelivered batches and files.")
@config_of_sensor
@format_options(_COLUMNS)
def list_(config: Path | None, form: Form) -> None:
    """Show undelivered batches and files; exit code 1 if there are none.

    \b
    Example:
      smtpfeeds sensor left-behind list
    """
    settings = sensor_settings.load(config)
    write_records([*_held(settings), *_files(settings)], form, "everything is delivered")


def _held(settings: SensorSettings) -> Iterator[Record]:
    for path in own_spools_of(settings):
        status = read_status(path)
        for kind, batches in (
            ("held: too large", status.batches_too_large),
            ("held: refused", status.batches_refused),
        ):
            if batches:
                yield {
                    **_NOTHING_KNOWN,
                    "file": path.name,
                    "kind": kind,
                    "sensor": settings.name,
                    "batches": batches,
                }


def _files(settings: SensorSettings) -> Iterator[Record]:
    for left in find_left_behind(Path(settings.spool_dir), settings.name):
        yield {
            "file": left.path.name,
            "kind": "quarantined" if left.is_quarantined else "other sensor",
            "sensor": left.sensor or None,
            "addresses": left.rows,
            "batches": left.batches,
            "events": left.events,
            "trouble": left.trouble or None,
        }


@left_behind.command(short_help="Deliver a file; each event counts once.")
@config_of_sensor
@_name
@click.option(
    "--password-file",
    type=ExistingPath(dir_okay=False),
    help="The password of the other sensor's account, for a spool of another name.",
)
def deliver(config: Path | None, name: str, password_file: Path | None) -> None:
    """Deliver an undelivered file; each event counts once.

    The sensor's own spool: send its held batches again, and split those that are too large.

    A quarantined file: copy all that can be read into the sensor's spool, with the batches' own
    names, and delete the file.

    A spool of another name: deliver it to the broker now, with its own account. Without a broker
    the aggregator on this host delivers it by itself.

    \b
    Examples:
      smtpfeeds sensor left-behind deliver sensor-1.spool
      smtpfeeds sensor left-behind deliver old-name.spool --password-file old-password
    """
    settings = sensor_settings.load(config)
    path, target = Path(settings.spool_dir) / name, own_spools_of(settings)[0]
    if path in own_spools_of(settings):
        click.echo(f"{release_held(path)} batches will be sent again")
        return
    left = _find(settings, name)
    if left.is_quarantined:
        _report(deliver_quarantined(left.path, target), target)
        return
    from ..delivery.other_name import deliver_under_its_name

    deliver_under_its_name(settings, left.path, left.sensor, password_file)
    click.echo(f"{name} is delivered and has no more events; `drop` deletes it")


@left_behind.command("convert", short_help="Move another sensor's events to this sensor.")
@config_of_sensor
@_name
@click.option(
    "--sealed",
    is_flag=True,
    help="Also move events in sealed batches; those that had arrived count again.",
)
def convert_(config: Path | None, name: str, sealed: bool) -> None:  # noqa: FBT001 - a click flag
    """Move the events of a spool of another name to this sensor.

    For a sensor that was renamed and whose old account no longer exists. Events that were never
    sealed count once. Sealed batches may have arrived already: they stay in the file unless you
    give --sealed.

    \b
    Examples:
      smtpfeeds sensor left-behind convert old-name.spool
      smtpfeeds sensor left-behind convert old-name.spool --sealed
    """
    settings = sensor_settings.load(config)
    target = own_spools_of(settings)[0]
    left = _find(settings, name)
    if left.sensor in {"", settings.name}:
        raise SettingsError(f"{name} is this sensor's own spool: use `deliver`")
    _report(convert(left.path, target, sealed=sealed), target)


@left_behind.command(short_help="Delete a file and the events in it.")
@config_of_sensor
@_name
@click.option("--yes", is_flag=True, help="Do not ask.")
def drop(config: Path | None, name: str, yes: bool) -> None:  # noqa: FBT001 - a click flag
    """Delete an undelivered file and the events in it.

    \b
    Example:
      smtpfeeds sensor left-behind drop sensor-1.damaged-20261126T010000Z
    """
    settings = sensor_settings.load(config)
    path = Path(settings.spool_dir) / name
    is_own = path in own_spools_of(settings)
    left = None if is_own else _find(settings, name)
    if not yes:
        what = "its held batches" if left is None else f"{left.events} events"
        click.confirm(f"Drop {name}, {what}?", abort=True)
    if left is None:
        batches, events = drop_held(path)
        click.echo(f"dropped {batches} batches with {events} events")
    else:
        delete(left.path)
        click.echo(f"dropped {name} with {left.events} events")


def _find(settings: SensorSettings, name: str) -> LeftBehind:
    for left in find_left_behind(Path(settings.spool_dir), settings.name):
        if left.path.name == name:
            return left
    hint = "; give the file's name as `list` shows it" if not name.endswith(SUFFIX) else ""
    raise SpoolError(f"{name} is not an undelivered file in {settings.spool_dir}{hint}")


def _report(taken: Taken, target: Path) -> None:
    click.echo(
        f"{taken.events} events are in {target.name} now: {taken.rows} addresses, "
        f"{taken.batches} batches"
    )
    if taken.left:
        click.echo(
            f"{taken.left} sealed batches stay: deliver them by their own account, or --sealed"
        )
    if taken.trouble:
        click.echo(f"a part could not be read: {taken.trouble}", err=True)
