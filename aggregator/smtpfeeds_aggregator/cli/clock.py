"""`smtpfeeds aggregator clock` and `accept-clock`: the doubt about the database's clock."""

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

import click

from smtpfeeds_common.answers import Form, format_options, note, write_record, write_records
from smtpfeeds_common.columns import Column
from smtpfeeds_common.times import iso_utc

from .database import connected
from .options import database_options

if TYPE_CHECKING:
    from ..settings import AggregatorSettings
    from ..store.clock import ClockStatus

_COLUMNS: Final = (
    Column("database", "time", "the database's clock"),
    Column("this_host", "time"),
    Column("noted", "time", "the newest time at which the clock had been beyond doubt for an hour"),
    Column("accepted_at", "time"),
    Column("in_doubt", help="empty where all is well; else step, earlier or sensors"),
    Column("detail", help="the doubt in words"),
)


@click.command("clock", short_help="Show the database's clock, and why it is in doubt.")
@format_options(_COLUMNS)
@database_options
def clock(settings: "AggregatorSettings", form: Form) -> None:
    """Show the database's clock, its stored time, and why it is in doubt.

    in_doubt is empty if the clock is not in doubt; else it is step, earlier or sensors. noted is
    the newest time at which the clock had not been in doubt for an hour.

    \b
    Examples:
      smtpfeeds aggregator clock
      smtpfeeds aggregator clock --json
    """
    from ..store.clock import ClockStore

    with connected(settings) as connection:
        status = ClockStore(connection).status()
    record = {
        "database": status.now,
        "this_host": datetime.now(UTC),
        "noted": status.noted,
        "accepted_at": status.accepted_at,
        "in_doubt": ", ".join(status.doubts),
        "detail": status.doubt,
    }
    if form.is_table:
        write_record(record, form)
    else:
        write_records([record], form, "")
    if form.is_table and not status.doubt:
        note("The clock is not in doubt.")


@click.command("accept-clock", short_help="Accept the database's clock as it is now.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@database_options
def accept_clock(settings: "AggregatorSettings", *, yes: bool) -> None:
    """Make all aggregators accept the database's clock as it is now.

    Use it when the clock is right and still in doubt: it was wrong before, or the sensors' clocks
    are wrong. Aggregators continue to count batches within seconds. An hour after the doubt they
    delete rows that are older than the retention by this clock.

    \b
    Example:
      smtpfeeds aggregator accept-clock
    """
    from ..store.clock import ClockStore

    with connected(settings, write=True) as connection:
        store = ClockStore(connection)
        if not yes:
            click.echo(_question(store.status()), err=True)
            click.confirm("Trust the database's clock?", abort=True, err=True)
        now = store.accept()
    click.echo(f"accepted: the database's clock shows {iso_utc(now)}")


def _question(status: "ClockStatus") -> str:
    doubt = status.doubt or "no aggregator has recorded a doubt"
    return (
        f"{doubt}\nThe database's clock shows {iso_utc(status.now)}, this host's "
        f"{iso_utc(datetime.now(UTC))}; the newest time noted is {iso_utc(status.noted)}."
    )
