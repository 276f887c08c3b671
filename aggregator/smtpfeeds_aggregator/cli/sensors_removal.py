"""`smtpfeeds sensors purge` and `forget`: delete what a sensor reported."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, NoReturn

import click

from smtpfeeds_common.answers import note
from smtpfeeds_common.errors import SettingsError
from smtpfeeds_common.times import iso_utc

from .database import connected
from .options import database_options, parsed_time

if TYPE_CHECKING:
    from ..settings import AggregatorSettings
    from ..store.epochs import Epoch
    from ..store.purge import Part, Purged


@click.command("purge", short_help="Delete what a sensor reported.")
@click.argument("name")
@click.option(
    "--epoch",
    type=click.IntRange(min=1),
    help="Everything reported in this epoch of the account; the epoch must be over.",
)
@click.option(
    "--since",
    help="Everything that the centre received at this time or later: 2026-11-23T11:00Z, or 7d, "
    "12h.",
)
@click.option("--yes", is_flag=True, help="Do not ask.")
@database_options
def purge(
    settings: "AggregatorSettings", name: str, epoch: int | None, since: str | None, *, yes: bool
) -> None:
    """Delete what a sensor reported in an epoch or since a time; rebuild the feeds without it.

    A purge of an epoch is exact: afterwards the database is as if the epoch's batches had never
    arrived, and `smtpfeeds sensor replay` on the sensor delivers its last day again with the new
    password.

    With --since, rows first reported since then are deleted. A row reported before and after stays
    as one event, at the time of its first report, because later hits cannot be separated. Batches
    still in the spool or at the broker arrive later: stop the sensor first.

    Rows of other sensors do not change.

    \b
    Examples:
      smtpfeeds sensors purge sensor-1 --epoch 2
      smtpfeeds sensors purge sensor-1 --since 2026-11-23T11:00Z
    """
    from ..store.epochs import EpochStore
    from ..store.purge import PurgeStore

    if (epoch is None) == (since is None):
        raise click.UsageError("give either --epoch or --since")
    with connected(settings, write=True, long=True) as connection:
        epochs = EpochStore(connection).epochs(name)
        if not epochs:
            end_unknown(name)
        store = PurgeStore(connection)
        part, words = _part(name, epoch, since, epochs)
        if part.since is not None and part.since < (recorded := store.heard_recorded_since()):
            click.echo(
                f"note: the centre records since {iso_utc(recorded)} when it hears of an event; "
                "for earlier ones the time of the event counts",
                err=True,
            )
        if not yes:
            click.confirm(
                f"Delete what {name} reported {words}: {store.touched(part)} addresses?",
                abort=True,
                err=True,
            )
        purged = store.purge(part)
    click.echo(f"{name}: {_sum(purged)}")


def _part(
    name: str, epoch: int | None, since: str | None, epochs: "Sequence[Epoch]"
) -> tuple["Part", str]:
    """Return what to delete, and a text about it."""
    from ..store.purge import part_of_epoch, part_since

    current = epochs[-1].epoch
    if epoch is None:
        time = parsed_time(since)
        assert time is not None
        return part_since(name, current, time), f"since {iso_utc(time)}"
    if epoch > current:
        raise SettingsError(f"{name} is in epoch {current}: see `smtpfeeds sensors epochs {name}`")
    if epoch == current:
        raise SettingsError(
            f"epoch {epoch} of {name} is not over: end it with `smtpfeeds sensors rotate {name}`"
        )
    return part_of_epoch(name, epoch), f"in epoch {epoch}"


@click.command("forget", short_help="Delete all that a sensor reported, and the sensor.")
@click.argument("name")
@click.option("--yes", is_flag=True, help="Do not ask.")
@database_options
def forget(settings: "AggregatorSettings", name: str, *, yes: bool) -> None:
    """Delete everything that a sensor reported in all epochs of its account, and the sensor itself.

    First revoke or retire its account, or stop it, and wait until the queue is empty: what arrives
    later is stored as a new sensor's. The next publication has none of the addresses that no other
    sensor reported; older generations and the archive keep them until they expire. Rows of other
    sensors do not change. The sensor's refused messages stay in the queue of refused messages.

    \b
    Example:
      smtpfeeds sensors forget sensor-1
    """
    from ..store.fleet import FleetStore
    from ..store.status import StatusStore

    with connected(settings, write=True, long=True) as connection:
        state = next((one for one in StatusStore(connection).sensors() if one.name == name), None)
        if state is None or state.epoch is None:
            end_unknown(name)
        if state.alive:
            raise SettingsError(
                f"{name} was heard less than three minutes ago: revoke or retire its account, or "
                "stop it, before it is forgotten"
            )
        if not yes:
            click.confirm(
                f"Delete {name} and all that it reported, {state.events} events?",
                abort=True,
                err=True,
            )
        purged = FleetStore(connection).forget(
            name, waiting=lambda: note("waiting for ingest to pause")
        )
    click.echo(f"{name} is forgotten: {_sum(purged)}; publish with `smtpfeeds publish now`")


def _sum(purged: "Purged") -> str:
    return (
        f"{purged.addresses} addresses rebuilt, {purged.sightings_deleted} sightings deleted, "
        f"{purged.sightings_cut} cut back, {purged.observations_deleted} rows left the feeds, "
        f"{purged.hours_deleted} hour counts deleted"
    )


def unknown(name: str) -> str:
    """Return the message that there is no such sensor."""
    return f"there is no sensor {name!r}; `smtpfeeds sensors` lists them"


def end_unknown(name: str) -> NoReturn:
    """Exit with code 1 because the sensor is not known."""
    click.echo(unknown(name), err=True)
    raise click.exceptions.Exit(1)
