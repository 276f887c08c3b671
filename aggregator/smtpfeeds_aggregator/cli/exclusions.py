"""`smtpfeeds exclude` and `smtpfeeds forget`: keep prefixes out of the feeds, and delete what is
stored of them.
"""

import sys
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Final

import click

from smtpfeeds_common.addresses import Network, parse_network
from smtpfeeds_common.answers import Form, format_options, write_records
from smtpfeeds_common.columns import Column
from smtpfeeds_common.errors import AddressError, SettingsError
from smtpfeeds_common.times import iso_utc

from .database import connected
from .options import database_options

if TYPE_CHECKING:
    from ..settings import AggregatorSettings
    from ..store.exclusions import Exclusion

#: A spool keeps undelivered events for the retention, and confirmed batches for a day; a week more
#: is for a host that was offline.
_ARRIVAL: Final = timedelta(days=8)
_PUBLISHED: Final = (
    "published files change with the next publication, at once with `smtpfeeds publish now`"
)
#: A shorter prefix contains the networks of many organisations; a typing error would empty the
#: feeds.
_ASK_BELOW: Final = {4: 8, 6: 16}
#: Addresses whose deletion takes long enough for a line of progress.
_WORTH_A_LINE: Final = 10_000
_COLUMNS: Final = (
    Column("prefix"),
    Column("in_force", "boolean", "false: it has ended, or has not begun"),
    Column("since", "time"),
    Column("until", "time", "null: without an end", rank=1),
    Column("reason", least=20),
)


def _check_reason(_context: click.Context, _option: click.Parameter, reason: str) -> str:
    if not reason.strip():
        raise click.BadParameter("write a reason, so that the list says why a prefix is missing")
    return reason.strip()


@click.group()
def exclude() -> None:
    """Keep prefixes out of the published files. Their events are still counted and stored."""


@exclude.command("add", short_help="Keep a prefix or an address out of the feeds.")
@click.argument("prefix", metavar="PREFIX|ADDRESS")
@click.option(
    "--why",
    "reason",
    required=True,
    callback=_check_reason,
    help="The reason, for yourself: never published.",
)
@click.option("--until", help="When it ends: 2026-12-24T00:00Z, or 30d from now. Default: never.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@database_options
def add(
    settings: "AggregatorSettings", prefix: str, reason: str, until: str | None, *, yes: bool
) -> None:
    """Keep a prefix or an address out of the feeds from the next publication on.

    It asks before it excludes a prefix shorter than /8 (IPv6: /16).

    Examples:

    \b
      smtpfeeds exclude add 192.0.2.0/24 --why "our own mail servers"
      smtpfeeds exclude add 2001:db8::25 --why "asked by its owner" --until 90d
    """
    from ..store.exclusions import ExclusionStore

    network, end = _network(prefix), _end(until)
    with connected(settings, write=True) as connection:
        store = ExclusionStore(connection)
        addresses = store.count(network)
        if not yes and network.prefixlen < _ASK_BELOW[network.version]:
            click.confirm(
                f"Publish nothing of {network}, with {addresses} stored addresses?",
                abort=True,
                err=True,
            )
        store.add(network, reason, end)
    click.echo(
        f"{network} is not published {_until(end)} ({addresses} of its addresses are stored); "
        + _PUBLISHED
    )


@exclude.command("list", short_help="List exclusions.")
@format_options(_COLUMNS)
@database_options
def list_(settings: "AggregatorSettings", form: Form) -> None:
    """List exclusions, also those that have ended. Times are UTC.

    \b
    Examples:
      smtpfeeds exclude list
      smtpfeeds exclude list --json
    """
    from ..store.exclusions import ExclusionStore

    with connected(settings) as connection:
        exclusions = ExclusionStore(connection).all()
    write_records((one._asdict() for one in exclusions), form, "nothing is excluded")


@exclude.command("remove", short_help="Publish a prefix again.")
@click.argument("prefix", metavar="PREFIX|ADDRESS")
@database_options
def remove(settings: "AggregatorSettings", prefix: str) -> None:
    """Publish a prefix again from the next publication on. Spell it as `list` shows it.

    \b
    Example:
      smtpfeeds exclude remove 192.0.2.0/24
    """
    from ..store.exclusions import ExclusionStore

    network = _network(prefix)
    with connected(settings, write=True) as connection:
        store = ExclusionStore(connection)
        removed = store.remove(network)
        others = [
            other.prefix for other in store.all() if other.in_force and _is_in(network, other)
        ]
    verb = "excludes" if len(others) == 1 else "exclude"
    still = f"; {', '.join(others)} still {verb} it" if others else ""
    if not removed:
        click.echo(f"{network} has no exclusion of its own{still}", err=True)
        raise click.exceptions.Exit(1)
    click.echo(
        f"{network} is no longer excluded{still}"
        if others
        else f"{network} is published again with the next publication"
    )


@click.command(short_help="Delete what is stored about an address or a prefix.")
@click.argument("prefix", metavar="ADDRESS|PREFIX")
@click.option(
    "--why",
    "reason",
    default="forgotten on request",
    show_default=True,
    callback=_check_reason,
    help="The reason, for yourself: never published.",
)
@click.option("--yes", is_flag=True, help="Do not ask.")
@database_options
def forget(settings: "AggregatorSettings", prefix: str, reason: str, *, yes: bool) -> None:
    """Delete what is stored about an address or a prefix, and do not publish it.

    It stays excluded for as long as a sensor's spool or a replay can send its events again: the
    retention and eight days. Counts by hour stay, because they contain no address. Published files
    change with the next publication, at once with `smtpfeeds publish now`.

    \b
    Examples:
      smtpfeeds forget 192.0.2.7 --why "asked for on 2026-11-26"
      smtpfeeds forget 2001:db8::/64 --yes
    """
    from ..store.exclusions import ExclusionStore

    network = _network(prefix)
    with connected(settings, write=True) as connection:
        store = ExclusionStore(connection)
        addresses = store.count(network)
        if not yes:
            click.confirm(
                f"Delete the {addresses} stored addresses of {network}?", abort=True, err=True
            )
        end = datetime.now(UTC) + timedelta(days=settings.retention_days) + _ARRIVAL
        forgotten = store.forget(network, reason, end, _progress(addresses))
    click.echo(
        f"{network}: {forgotten.addresses} addresses deleted "
        f"({forgotten.observations} rows of feeds, {forgotten.sightings} sightings); "
        f"not published {_until(forgotten.until)}; " + _PUBLISHED
    )


def _progress(total: int) -> Callable[[int], None]:
    """Show progress on a terminal, if the deletion takes long enough."""

    def show(addresses: int) -> None:
        click.echo(f"\r{addresses} of {total} addresses", nl=False, err=True)

    return show if sys.stderr.isatty() and total > _WORTH_A_LINE else lambda _addresses: None


def _is_in(network: Network, exclusion: "Exclusion") -> bool:
    other = parse_network(exclusion.prefix)
    return other.version == network.version and network.subnet_of(other)  # type: ignore[arg-type]


def _network(text: str) -> Network:
    try:
        return parse_network(text)
    except AddressError as exc:
        raise SettingsError(exc.message) from exc


def _end(text: str | None) -> datetime | None:
    """Parse a future time; a duration counts from now."""
    from ..query.times import parse_duration, parse_time

    if text is None:
        return None
    now = datetime.now(UTC)
    try:
        duration = parse_duration(text)
        end = parse_time(text, now) if duration is None else now + duration
    except OverflowError as exc:
        raise SettingsError(f"--until {text} is too far away; leave it out for no end") from exc
    if end <= now:
        raise SettingsError(f"--until {text} is in the past")
    return end


def _until(end: datetime | None) -> str:
    return "from now on" if end is None else f"until {iso_utc(end)}"
