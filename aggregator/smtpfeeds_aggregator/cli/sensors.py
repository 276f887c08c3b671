"""`smtpfeeds sensors`: show sensors, refusals and floods, and the epochs of accounts."""

from typing import TYPE_CHECKING, Any, Final

import click

from smtpfeeds_common.answers import Form, Limited, format_options, note, write_records
from smtpfeeds_common.columns import Column
from smtpfeeds_common.times import iso_utc

from .database import connected
from .options import EXIT_CODES, database_options, parsed_time
from .sensors_removal import end_unknown, forget, purge, unknown

if TYPE_CHECKING:
    from ..settings import AggregatorSettings
    from ..store.status import SensorState


def state_colour(state: Any) -> str | None:
    """Return red if a sensor that should report is silent."""
    return {"silent": "red", "enrolled": "yellow"}.get(state)


def _red_if_any(value: Any) -> str | None:
    return "red" if value else None


_SENSORS: Final = (
    Column("sensor", least=12),
    Column(
        "state",
        help="alive, silent, enrolled (not heard yet), revoked, retired; unknown: all refused",
        colour=state_colour,
    ),
    Column("alive", "boolean", "a batch came in the last three minutes", rank=10),
    Column("silent_since", "time", "null unless it is silent", rank=3),
    Column("last_heard", "time"),
    Column("version", rank=7),
    Column("epoch", "integer", "the number of its account's epoch", rank=8),
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

_ALL: Final = click.option("--all", "with_retired", is_flag=True, help="Retired sensors too.")


@click.group(invoke_without_command=True, epilog=EXIT_CODES)
@_ALL
@format_options(_SENSORS)
@database_options
@click.pass_context
def sensors(
    ctx: click.Context, settings: "AggregatorSettings", form: Form, *, with_retired: bool
) -> None:
    """List the sensors and their refused messages; rotate, purge or forget a sensor.

    State: alive, a batch came in the last three minutes; silent, none did; enrolled, it has an
    account and was not heard yet; revoked; retired. Skew: the sensor's clock minus the centre's at
    the last batch, in seconds; delivery lowers it a little. Past bucket: events of new addresses
    past the number that is stored for a sensor. Flood: what an account sends too much of now, in
    messages per second. The list includes accounts whose messages were all refused. Times are UTC.
    """
    if ctx.invoked_subcommand is None:
        _list_sensors(settings, form, with_retired=with_retired)


sensors.add_command(purge)
sensors.add_command(forget)


@sensors.command("list", epilog=EXIT_CODES, short_help="List the sensors.")
@_ALL
@format_options(_SENSORS)
@database_options
def sensors_list(settings: "AggregatorSettings", form: Form, *, with_retired: bool) -> None:
    """List the sensors: state, silent since, version, events, clock skew, refusals, floods.

    \b
    Examples:
      smtpfeeds sensors list
      smtpfeeds sensors list --fields sensor,state,version --format csv
    """
    _list_sensors(settings, form, with_retired=with_retired)


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
    write_records((epoch._asdict() for epoch in epochs), form, unknown(name))


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
            end_unknown(name)
        epoch = store.rotate(
            name, waiting=lambda: click.echo("waiting for ingest to pause", err=True)
        )
    click.echo(f"{name}: epoch {epoch} begins; what was heard before is in epoch {epoch - 1}")


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
    from ..store.status import StatusStore

    with connected(settings) as connection:
        rows = StatusStore(connection).refusals(name, parsed_time(since), limit + 1)
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


def _list_sensors(settings: "AggregatorSettings", form: Form, *, with_retired: bool) -> None:
    from ..store.status import StatusStore

    with connected(settings) as connection:
        every = StatusStore(connection).sensors()
    states = [state for state in every if with_retired or state.state != "retired"]
    records = [
        {
            "sensor": _account(state.name),
            "state": state.state,
            "alive": bool(state.alive),
            "silent_since": state.heard_at if state.state == "silent" else None,
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
            "flood": flood_of(state),
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
                f"{_account(state.name)} has flooded the queue since {iso_utc(state.flood_since)}: "
                f"{flood_of(state)}; batches of others are delayed until it stops or is revoked; "
                "nothing is lost"
            )


def flood_of(state: "SensorState") -> str | None:
    """Return what an account sends too much of now."""
    if state.flood_since is None:
        return None
    return f"{state.flood_messages_per_s:.0f}/s {state.flood_reason}"


def _account(name: str) -> str:
    """Return the name of an account for a message; some messages have no account."""
    return name or "(no account)"
