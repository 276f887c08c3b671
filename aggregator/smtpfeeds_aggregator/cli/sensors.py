"""`smtpfeeds sensors`: who reports, who is refused or floods, and taking a sensor's part out."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final, NoReturn

import click

from smtpfeeds_common.answers import Form, Limited, format_options, note, write_records
from smtpfeeds_common.columns import Column
from smtpfeeds_common.errors import SettingsError
from smtpfeeds_common.times import iso_utc

from .database import connected
from .options import EXIT_CODES, database_options, parsed_time

if TYPE_CHECKING:
    from ..settings import AggregatorSettings
    from ..store.epochs import Epoch
    from ..store.purge import Part
    from ..store.reading import SensorState


def _red_if_no(value: Any) -> str | None:
    return None if value else "red"


def _red_if_any(value: Any) -> str | None:
    return "red" if value else None


_SENSORS: Final = (
    Column("sensor", least=12),
    Column("alive", "boolean", "a batch came in the last three minutes", colour=_red_if_no),
    Column("silent_since", "time", "null while it is alive", rank=3),
    Column("last_heard", "time"),
    Column("version", rank=7),
    Column("epoch", "integer", "which of its account", rank=8),
    Column("events_24h", "integer"),
    Column("events", "integer", "all that are kept", rank=4),
    Column("skew_s", "number", "its clock less the centre's at the last batch", rank=2),
    Column("spool_depth", "integer", "batches that wait in its spool", rank=5),
    Column("drops", "integer", "events that it dropped", rank=1, colour=_red_if_any),
    Column(
        "past_bucket_24h",
        "integer",
        "events of new addresses, more than are stored of a sensor",
        rank=9,
        colour=_red_if_any,
    ),
    Column("refused_24h", "integer", "messages that were refused", rank=6, colour=_red_if_any),
    Column("flood", help="what its account sends too much of now", least=10, colour=_red_if_any),
)
_EPOCHS: Final = (
    Column("epoch", "integer"),
    Column("began_at", "time"),
    Column("ended_at", "time", "null: it is the current one"),
    Column("purged_at", "time", "null: it was not purged"),
)
_REFUSALS: Final = (
    Column("account", least=12),
    Column("hour", "time"),
    Column("reason"),
    Column("messages", "integer"),
    Column("octets", "integer", rank=2),
    Column("kept", "integer", "how many of them `aggregator dead-letters` shows", rank=3),
    Column("last_at", "time", rank=1),
    Column("detail", help="what was wrong with the last one", least=12),
)


@click.group(invoke_without_command=True, epilog=EXIT_CODES)
@format_options(_SENSORS)
@database_options
@click.pass_context
def sensors(ctx: click.Context, settings: "AggregatorSettings", form: Form) -> None:
    """List the sensors and their refused messages; rotate or purge a sensor.

    Alive: a batch came in the last three minutes. Skew: the sensor's clock minus the centre's at
    the last batch, in seconds; delivery lowers it a little. Past bucket: events of new addresses
    past the number that is stored for a sensor. Flood: what an account sends too much of now, in
    messages per second. The list includes accounts whose messages were all refused. Times are UTC.
    """
    if ctx.invoked_subcommand is None:
        _list_sensors(settings, form)


@sensors.command("list", epilog=EXIT_CODES, short_help="List the sensors.")
@format_options(_SENSORS)
@database_options
def sensors_list(settings: "AggregatorSettings", form: Form) -> None:
    """List the sensors: alive, silent since, version, events, clock skew, refusals, floods.

    \b
    Examples:
      smtpfeeds sensors list
      smtpfeeds sensors list --fields sensor,alive,version --format csv
    """
    _list_sensors(settings, form)


@sensors.command("epochs", epilog=EXIT_CODES, short_help="List the epochs of a sensor's account.")
@click.argument("name")
@format_options(_EPOCHS)
@database_options
def sensors_epochs(settings: "AggregatorSettings", name: str, form: Form) -> None:
    """List the epochs of a sensor's account: when each began and ended, and was purged.

    An epoch ends with `smtpfeeds sensors rotate`. Times are UTC.

    \b
    Example:
      smtpfeeds sensors epochs sensor-1
    """
    from ..store.epochs import EpochStore

    with connected(settings) as connection:
        epochs = EpochStore(connection).epochs(name)
    write_records((epoch._asdict() for epoch in epochs), form, _unknown(name))


@sensors.command("rotate", short_help="Begin a new epoch of a sensor's account.")
@click.argument("name")
@database_options
def sensors_rotate(settings: "AggregatorSettings", name: str) -> None:
    """Begin a new epoch of a sensor's account, so that you can purge the previous one exactly.

    Use it after you remove the account's old password at the broker and before you set a new one,
    when the queue is empty: everything received until now belongs to the old epoch, everything
    later to the new one. Ingest waits briefly.

    \b
    Example:
      smtpfeeds sensors rotate sensor-1
    """
    from ..store.epochs import EpochStore

    with connected(settings, write=True) as connection:
        store = EpochStore(connection)
        if not store.epochs(name):
            _end_unknown(name)
        epoch = store.rotate(
            name, waiting=lambda: click.echo("waiting for ingest to pause", err=True)
        )
    click.echo(f"{name}: epoch {epoch} begins; what was heard before is in epoch {epoch - 1}")


@sensors.command("purge", short_help="Delete what a sensor reported.")
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
def sensors_purge(
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
            _end_unknown(name)
        store = PurgeStore(connection)
        part, words = _part(name, epoch, since, epochs)
        if part.since is not None and part.since < (recorded := store.heard_recorded_since()):
            click.echo(
                f"note: when the centre heard is recorded since {iso_utc(recorded)}; for what it "
                "heard before, the time of the event decides",
                err=True,
            )
        if not yes:
            click.confirm(
                f"Take out what {name} reported {words}: {store.touched(part)} addresses?",
                abort=True,
                err=True,
            )
        purged = store.purge(part)
    click.echo(
        f"{name}: {purged.addresses} addresses rebuilt, {purged.sightings_deleted} sightings "
        f"deleted, {purged.sightings_cut} cut back, {purged.observations_deleted} rows left the "
        f"feeds, {purged.hours_deleted} hour counts deleted"
    )


def _part(
    name: str, epoch: int | None, since: str | None, epochs: "Sequence[Epoch]"
) -> tuple["Part", str]:
    """What is to be taken out, and how to say it."""
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


def _unknown(name: str) -> str:
    return f"there is no sensor {name!r}; `smtpfeeds sensors` lists them"


def _end_unknown(name: str) -> NoReturn:
    """End with exit code 1: the sensor is not known."""
    click.echo(_unknown(name), err=True)
    raise click.exceptions.Exit(1)


@sensors.command("refusals", epilog=EXIT_CODES, short_help="Count refused messages.")
@click.argument("name", required=False)
@click.option("--since", help="Refused at this time or later: 2026-11-23T11:00Z, or 7d, 12h.")
@click.option(
    "--limit",
    type=click.IntRange(1, 100_000),
    default=1_000,
    show_default=True,
    help="At most this many rows, the newest hours first.",
)
@format_options(_REFUSALS)
@database_options
def sensors_refusals(
    settings: "AggregatorSettings", name: str | None, since: str | None, limit: int, form: Form
) -> None:
    """Count refused messages by account, hour and reason, for one account or all.

    Kept: how many of them `smtpfeeds aggregator dead-letters` shows. Detail: the fault of the last
    one. Times are UTC.

    \b
    Examples:
      smtpfeeds sensors refusals
      smtpfeeds sensors refusals sensor-1 --since 24h
    """
    from ..store.reading import ReadingStore

    with connected(settings) as connection:
        rows = ReadingStore(connection).refusals(name, parsed_time(since), limit + 1)
    records = [
        {
            "account": _account(row.account),
            "hour": row.hour,
            "reason": row.reason,
            "messages": row.messages,
            "octets": row.octets,
            "kept": row.kept,
            "last_at": row.last_at,
            "detail": row.detail,
        }
        for row in rows
    ]
    cut = Limited(limit)
    write_records(cut.of(records), form, "nothing was refused")
    cut.note()


def _list_sensors(settings: "AggregatorSettings", form: Form) -> None:
    from ..store.reading import ReadingStore

    with connected(settings) as connection:
        states = ReadingStore(connection).sensors()
    records = [
        {
            "sensor": _account(state.name),
            "alive": bool(state.alive),
            "silent_since": None if state.alive else state.heard_at,
            "last_heard": state.heard_at,
            "version": state.version or None,
            "epoch": state.epoch,
            "events_24h": state.events_24h,
            "events": state.events,
            "skew_s": None if state.skew_s is None else round(state.skew_s, 1),
            "spool_depth": state.spool_depth,
            "drops": state.drops,
            "past_bucket_24h": state.past_bucket_24h,
            "refused_24h": state.refused_24h,
            "flood": _flood(state),
        }
        for state in states
    ]
    write_records(records, form, "no sensor has reported yet")
    for state in states:
        if state.past_bucket_24h:
            note(
                f"{_account(state.name)} reported more new addresses than new_addresses_per_day "
                f"allows: {state.past_bucket_24h} events of the last day are counted under its "
                "account alone"
            )
        if state.flood_since is not None:
            note(
                f"{_account(state.name)} floods the queue since {iso_utc(state.flood_since)}: "
                f"{_flood(state)}; others are delayed until it stops or is revoked, nothing is "
                "lost"
            )


def _flood(state: "SensorState") -> str | None:
    if state.flood_since is None:
        return None
    return f"{state.flood_messages_per_s:.0f}/s {state.flood_reason}"


def _account(name: str) -> str:
    """An account as people read it: a message may name none."""
    return name or "(no account)"
