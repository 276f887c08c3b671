"""`smtpfeeds sensors`: who reports, who is refused or floods, and taking a sensor's part out."""

from typing import TYPE_CHECKING

import click

from smtpfeeds_common.times import iso_utc

from .query import (
    EXIT_CODES,
    connected,
    database_options,
    format_options,
    list_formats,
    parsed_time,
)

if TYPE_CHECKING:
    from ..settings import AggregatorSettings
    from ..store.reading import SensorState


@click.group(invoke_without_command=True, epilog=EXIT_CODES)
@format_options(list_formats)
@database_options
@click.pass_context
def sensors(ctx: click.Context, settings: "AggregatorSettings", form: str) -> None:
    """List the sensors; show what was refused; purge one.

    Alive: a batch came in the last three minutes. Skew: the sensor's clock less the centre's at
    the last batch, in seconds; delivery makes it a little less. Flood: what an account sends too
    much of now, in messages a second. Accounts of which everything was refused are listed too.
    Times are UTC.
    """
    if ctx.invoked_subcommand is None:
        _list_sensors(settings, form)


@sensors.command("list", epilog=EXIT_CODES, short_help="List the sensors.")
@format_options(list_formats)
@database_options
def sensors_list(settings: "AggregatorSettings", form: str) -> None:
    """List the sensors: alive, silent since, version, events, clock skew, refusals, floods."""
    _list_sensors(settings, form)


@sensors.command("purge", short_help="Take out what a sensor reported from a time on.")
@click.argument("name")
@click.option(
    "--since",
    required=True,
    help="The first moment that is not trusted: 2026-11-23T11:00Z, or 7d, 12h back.",
)
@click.option("--yes", is_flag=True, help="Do not ask.")
@database_options
def sensors_purge(settings: "AggregatorSettings", name: str, since: str, *, yes: bool) -> None:
    """Take out what a sensor reported from a time on, and rebuild the feeds without it.

    What it first saw at that time or later goes. What it had seen before stays as seen once, at
    its first time: later hits cannot be told apart. Other sensors' part is untouched. What its
    spool or the broker still holds arrives afterwards: stop the sensor first.
    """
    from ..store.purge import PurgeStore

    time = parsed_time(since)
    assert time is not None
    with connected(settings, write=True, long=True) as connection:
        store = PurgeStore(connection)
        if not store.knows(name):
            click.echo(f"there is no sensor {name!r}; `smtpfeeds sensors` lists them", err=True)
            raise click.exceptions.Exit(1)
        touched = len(store.touched(name, time))
        if not yes:
            click.confirm(
                f"Take out what {name} reported since {iso_utc(time)}: {touched} addresses?",
                abort=True,
                err=True,
            )
        purged = store.purge(name, time)
    click.echo(
        f"{name}: {purged.addresses} addresses rebuilt, {purged.sightings_deleted} sightings "
        f"deleted, {purged.sightings_cut} cut back, {purged.observations_deleted} rows left the "
        f"feeds, {purged.hours_deleted} hour counts deleted"
    )


@sensors.command("refusals", epilog=EXIT_CODES, short_help="Count what was refused.")
@click.argument("name", required=False)
@click.option("--since", help="Refused at this time or later: 2026-11-23T11:00Z, or 7d, 12h.")
@click.option(
    "--limit",
    type=click.IntRange(1, 100_000),
    default=1_000,
    show_default=True,
    help="At most this many rows, the newest hours first.",
)
@format_options(list_formats)
@database_options
def sensors_refusals(
    settings: "AggregatorSettings", name: str | None, since: str | None, limit: int, form: str
) -> None:
    """Count the messages that were refused, by account, hour and reason; of one account or all.

    Kept: how many of them `smtpfeeds aggregator dead-letters` shows. Detail: what was wrong with
    the last one. Times are UTC.
    """
    from ..store.reading import ReadingStore
    from .output import REFUSAL_COLUMNS, write_records

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
        for row in rows[:limit]
    ]
    write_records(records, REFUSAL_COLUMNS, form, "nothing was refused")
    if len(rows) > limit:
        click.echo(f"there is more: --limit {limit} cuts it here", err=True)


def _list_sensors(settings: "AggregatorSettings", form: str) -> None:
    from ..store.reading import ReadingStore
    from .output import SENSOR_COLUMNS, write_records

    with connected(settings) as connection:
        states = ReadingStore(connection).sensors()
    records = [
        {
            "sensor": _account(state.name),
            "alive": bool(state.alive),
            "silent_since": None if state.alive else state.heard_at,
            "last_heard": state.heard_at,
            "version": state.version or None,
            "events_24h": state.events_24h,
            "events": state.events,
            "skew_s": None if state.skew_s is None else round(state.skew_s, 1),
            "spool_depth": state.spool_depth,
            "drops": state.drops,
            "refused_24h": state.refused_24h,
            "flood": _flood(state),
        }
        for state in states
    ]
    write_records(records, SENSOR_COLUMNS, form, "no sensor has reported yet")
    for state in states:
        if state.flood_since is not None:
            click.echo(
                f"{_account(state.name)} floods the queue since {iso_utc(state.flood_since)}: "
                f"{_flood(state)}; others are delayed until it stops or is revoked, nothing is "
                "lost",
                err=True,
            )


def _flood(state: "SensorState") -> str | None:
    if state.flood_since is None:
        return None
    return f"{state.flood_messages_per_s:.0f}/s {state.flood_reason}"


def _account(name: str) -> str:
    """An account as people read it: a message may name none."""
    return name or "(no account)"
