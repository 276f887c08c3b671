"""`smtpfeeds lists`: show and refresh the lists of scanners and mailers, look addresses up.

These commands read the same files as a running aggregator and send it nothing: it notices a new
generation by itself.
"""

from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click
import msgspec

from smtpfeeds_common import logs
from smtpfeeds_common.addresses import format_address
from smtpfeeds_common.answers import Form, format_options, text_or_json, write_records
from smtpfeeds_common.columns import Column
from smtpfeeds_common.times import iso_utc

from .. import settings as aggregator_settings
from ..datasets.generations import GENERATIONS
from .addresses import addresses_of
from .as_owner import write_as_owner
from .options import CONFIG, FOLDER
from .settings_files import settings_files

if TYPE_CHECKING:
    from ..classification.lists.in_use import ListSource
    from ..classification.lists.table import ListTable, Match
    from ..settings import AggregatorSettings

_STATUS: Final = (
    Column("list", least=20),
    Column("kind", help="scanner or mailer"),
    Column("actor", least=10, rank=1),
    Column("day", "date", "the list's own date"),
    Column("age_days", "integer"),
    Column("day_from", help="where that date comes from", rank=3),
    Column("entries", "integer"),
    Column("dropped", "integer", "entries that are not used", rank=4),
    Column("source", rank=5, least=12),
    Column("refused", help="why a newer one was refused", rank=2, least=10),
)
_LOOKUP: Final = (
    Column("address", least=22, middle=True),
    Column("prefix", least=20, middle=True),
    Column("kind", help="scanner or mailer"),
    Column("actor", least=10),
    Column("fresh", "boolean", "recent enough to count"),
    Column("age_days", "integer", rank=2),
    Column("day", "date", "the list's own date", rank=3),
    Column("list", least=10),
    Column("home", help="the actor's page", rank=4, least=12),
)


def _with_settings(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command the options that name the settings, and pass it the `settings`."""

    @CONFIG
    @FOLDER
    @wraps(command)
    def run(config: Path | None, folder: Path | None, **arguments: Any) -> None:
        settings = aggregator_settings.load(settings_files(config, folder, operator=False).config)
        logs.configure("warning", settings.log_format)
        command(settings, **arguments)

    return run


@click.group()
def lists() -> None:
    """Lists of known scanners and large mailers."""


@lists.command(short_help="Show the lists in use, their ages and refusals.")
@format_options(_STATUS)
@_with_settings
def status(settings: "AggregatorSettings", form: Form) -> None:
    """Show each list: its owner, date, entries, and why newer versions were refused.

    An entry of a single address counts for 60 days from the list's date, a range for a year.

    \b
    Examples:
      smtpfeeds lists status
      smtpfeeds lists status --json
    """
    source, today = _loaded(settings), datetime.now(UTC).date()
    records = [
        {
            "list": each.name,
            "kind": each.kind,
            "actor": each.actor,
            "day": each.day,
            "age_days": (today - each.day).days,
            "day_from": each.day_from,
            "entries": len(each.prefixes),
            "dropped": each.dropped,
            "source": each.source,
            "refused": each.refused or None,
        }
        for each in source.current.lists
    ]
    state = _state_of(settings, source.current)
    if form.format == "json" and not form.chosen:
        click.echo(msgspec.json.format(msgspec.json.encode(state | {"lists": records})).decode())
        return
    if form.is_table:
        for line in _state_lines(state):
            click.echo(line)
    write_records(records, form, "there are no lists")


@lists.command(short_help="Show which lists contain addresses.")
@click.argument("addresses", nargs=-1, required=True, metavar="ADDRESS…|-")
@format_options(_LOOKUP)
@_with_settings
def lookup(settings: "AggregatorSettings", addresses: tuple[str, ...], form: Form) -> None:
    """Show which lists contain ADDRESSes; `-` reads them from standard input, one per line.

    The longest prefix comes first, then the newest. Exit codes: 0 if any address is listed, 1 if
    none is, 2 if the input contains no address, 3 if the lists cannot be used.

    \b
    Examples:
      smtpfeeds lists lookup 192.0.2.7
      smtpfeeds lists lookup --format csv - < addresses.txt
    """
    table, today = _loaded(settings).current, datetime.now(UTC).date()
    rows = (
        _row(packed, match, today)
        for packed in addresses_of(addresses)
        for match in table.find(packed)
    )
    write_records(rows, form, "no list contains it")


@lists.command(short_help="Read all lists again, and put them into use.")
@click.option("--force", is_flag=True, help="Also use lists that grew a lot or became empty.")
@click.option("--offline", is_flag=True, help="Fetch nothing: read only files and the package.")
@click.option("--quiet", "-q", is_flag=True, help="No progress.")
@text_or_json
@_with_settings
def refresh(
    settings: "AggregatorSettings", *, force: bool, offline: bool, quiet: bool, as_json: bool
) -> None:
    """Fetch the lists in the settings, check them, and put them into use.

    When a list is refused, its previous version stays in use, and the output shows the reason. As
    root it becomes the owner of lists_dir.

    \b
    Examples:
      smtpfeeds lists refresh
      smtpfeeds lists refresh --offline
    """
    from ..classification.lists.refresh import refresh as run_refresh

    write_as_owner(settings.lists_dir, GENERATIONS)
    outcome = run_refresh(
        settings,
        fetch=not offline,
        force=force,
        progress=lambda text: None if quiet else click.echo(text, err=True),
    )
    if as_json:
        click.echo(msgspec.json.format(msgspec.json.encode(outcome)).decode())
        return
    for reason in outcome.refused.values():
        click.echo(f"refused: {reason}", err=True)
    click.echo(
        f"{outcome.generation} "
        + ("is in use already: nothing changed" if outcome.unchanged else "is in use")
        + f": {outcome.lists} lists, {outcome.entries} entries"
        + (f", {len(outcome.refused)} refused" if outcome.refused else "")
    )


@lists.command(short_help="Put the previous lists into use again.")
@text_or_json
@_with_settings
def rollback(settings: "AggregatorSettings", *, as_json: bool) -> None:
    """Put the previous generation into use again; only --force returns to the one that you left.

    \b
    Example:
      smtpfeeds lists rollback
    """
    from ..classification.lists.refresh import directory_of

    if not settings.lists_dir:
        raise aggregator_settings.missing(
            "lists_dir", "the directory of lists; packaged lists cannot be rolled back"
        )
    write_as_owner(settings.lists_dir, GENERATIONS)
    manifest = directory_of(settings.lists_dir).roll_back().manifest
    if as_json:
        wanted = ("generation", "made_at", "lists", "entries")
        click.echo(msgspec.json.encode({key: manifest[key] for key in wanted}).decode())
        return
    click.echo(f"{manifest['generation']} is in use again, of {manifest['made_at']}")


def _loaded(settings: "AggregatorSettings") -> "ListSource":
    from ..classification.lists.in_use import ListSource

    source = ListSource(settings)
    source.load()
    return source


def _row(packed: bytes, match: "Match", today: Any) -> dict[str, Any]:
    each = match.list
    return {
        "address": format_address(packed),
        "prefix": str(match.prefix),
        "kind": each.kind,
        "actor": each.actor,
        "fresh": match.is_fresh(today),
        "age_days": (today - each.day).days,
        "day": each.day,
        "list": each.name,
        "home": each.home or None,
    }


def _state_of(settings: "AggregatorSettings", table: "ListTable") -> dict[str, Any]:
    """Return the generation and the result of refreshes, under stable names."""
    state: dict[str, Any] = {
        "generation": table.generation,
        "entries": sum(len(each.prefixes) for each in table.lists),
    }
    if not settings.lists_dir:
        return state
    from ..classification.lists.refresh import directory_of, schedule_of

    directory = directory_of(settings.lists_dir)
    noted = directory.status()
    due = schedule_of(settings).next_refresh(noted, datetime.now(UTC))
    return state | {
        "older_generations": [generation.name for generation in directory.others()],
        "rolled_back": noted.get("rolled_back"),
        "last_attempt": noted.get("last_attempt"),
        "last_success": noted.get("last_success"),
        "last_failure": noted.get("last_failure"),
        "next_refresh": iso_utc(due) if due else None,
        "refused": noted.get("refused") or {},
    }


def _state_lines(state: dict[str, Any]) -> Iterator[str]:
    width = max(map(len, state))
    for key, value in state.items():
        if key == "refused":
            for reason in value.values():
                yield f"{key:{width}}  {reason}"
        else:
            yield f"{key.replace('_', ' '):{width}}  {_plain(value)}"


def _plain(value: Any) -> str:
    if value in (None, []):
        return "-"
    if isinstance(value, list):
        return ", ".join(value)
    if isinstance(value, dict):
        return f"{value.get('time')}: {value.get('reason')}"
    return str(value)
