"""`smtpfeeds origin`: look origins up; show, refresh and roll back the table.

These commands read the same files as a running aggregator and send it nothing: it notices a new
table by itself.
"""

import functools
import json
import sys
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import click

from smtpfeeds_common import logs
from smtpfeeds_common.addresses import format_address, pack_address
from smtpfeeds_common.answers import (
    Form,
    format_options,
    nothing_found,
    text_or_json,
    write_records,
)
from smtpfeeds_common.columns import Column
from smtpfeeds_common.errors import AddressError, SettingsError
from smtpfeeds_common.times import iso_utc

from .. import settings as aggregator_settings
from ..datasets.generations import GENERATIONS
from ..origin import OriginSource, OriginTable
from ..settings import AggregatorSettings, missing
from .addresses import texts_of
from .as_owner import write_as_owner
from .options import CONFIG, FOLDER
from .settings_files import settings_files

#: Addresses from a pipe are looked up in blocks of this many lines.
_BLOCK: Final = 1000
_USAGE_ERROR: Final = 2
_NO_ORIGIN: Final = "no origin is known"
_COLUMNS: Final = (
    Column("address", least=22, middle=True),
    Column("asn", "integer"),
    Column("prefix", help="the longest that is announced", least=20, middle=True, rank=1),
    Column("name", help="the AS name", least=12),
    Column("generation", help="the table that says so", rank=2),
)


def _with_settings(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command the options that name its tables, and pass it the `settings`."""

    @CONFIG
    @FOLDER
    @click.option("--origin-dir", help="Directory of origin tables, in place of the setting.")
    @click.option("--origin-table", help="A pyasn table, in place of the setting.")
    @click.option("--as-names", help="A list of AS names, in place of the setting.")
    @functools.wraps(command)
    def run(
        config: Path | None,
        folder: Path | None,
        origin_dir: str | None,
        origin_table: str | None,
        as_names: str | None,
        **arguments: Any,
    ) -> None:
        config = settings_files(config, folder, operator=False).config
        # A table named here replaces both settings of the file.
        if origin_table is not None and origin_dir is None:
            origin_dir = ""
        elif origin_dir is not None and origin_table is None:
            origin_table = ""
        settings = aggregator_settings.load(
            config, origin_dir=origin_dir, origin_table=origin_table, as_names=as_names
        )
        logs.configure("warning", settings.log_format)
        command(settings, **arguments)

    return run


@click.group()
def origin() -> None:
    """Origin tables: which AS announces an address, and the AS's name."""


@origin.command(short_help="Show which AS announces addresses.")
@click.argument("addresses", nargs=-1, required=True, metavar="ADDRESS…|-")
@format_options(_COLUMNS)
@_with_settings
def lookup(settings: AggregatorSettings, *, addresses: tuple[str, ...], form: Form) -> None:
    """Show which AS announces ADDRESSes; `-` reads them from standard input, one per line.

    Exit codes: 0 if any address has an origin, 1 if none has, 2 if the input contains no address, 3
    if the table cannot be used.

    \b
    Examples:
      smtpfeeds origin lookup 192.0.2.7 2001:db8::7
      smtpfeeds origin lookup --format csv - < addresses.txt
    """
    table = _current(settings)
    lookup = _Lookup(table)
    rows = (row for block in _blocks(iter(texts_of(addresses))) for row in lookup.rows(block))
    try:
        write_records(rows, form, _NO_ORIGIN)
    except click.exceptions.Exit as end:
        if lookup.malformed and not lookup.addresses:
            raise click.exceptions.Exit(_USAGE_ERROR) from end
        raise
    if not lookup.with_origin:
        nothing_found(_NO_ORIGIN)


@origin.command(short_help="Show the table in use and the last refreshes.")
@text_or_json
@_with_settings
def status(settings: AggregatorSettings, *, as_json: bool) -> None:
    """Show the table in use: source, age, counts, next refresh, last failure.

    \b
    Examples:
      smtpfeeds origin status
      smtpfeeds origin status --json
    """
    described = _describe(settings)
    if as_json:
        click.echo(json.dumps(described, indent=1))
    else:
        width = max(map(len, described))
        for key, value in described.items():
            click.echo(f"{key.replace('_', ' '):{width}}  {_plain(value)}")
    if described["generation"] == "none":
        raise click.exceptions.Exit(1)


@origin.command()
@click.option(
    "--force", is_flag=True, help="Put the new table into use even if it fails the checks."
)
@click.option(
    "--from",
    "source",
    type=click.Path(path_type=Path),
    help="A RIB, a pyasn table, or a directory of them; fetch nothing.",
)
@click.option("--names", type=click.Path(path_type=Path), help="With --from: the AS names for it.")
@click.option("--quiet", "-q", is_flag=True, help="No progress.")
@text_or_json
@_with_settings
def refresh(
    settings: AggregatorSettings,
    *,
    force: bool,
    source: Path | None,
    names: Path | None,
    quiet: bool,
    as_json: bool,
) -> None:
    """Fetch the newest RIB, convert and check it, and put it into use.

    As root it becomes the owner of origin_dir, who must be able to read the files of --from.

    \b
    Examples:
      smtpfeeds origin refresh
      smtpfeeds origin refresh --from rib.20261126.0000.bz2
    """
    from ..origin.acquire.refresh import refresh as run_refresh

    if names is not None and source is None:
        raise click.UsageError("--names goes with --from")
    write_as_owner(settings.origin_dir, GENERATIONS)
    outcome = run_refresh(
        settings,
        source=source,
        names=names,
        force=force,
        progress=lambda text: None if quiet else click.echo(text, err=True),
    )
    manifest = outcome.manifest
    if as_json:
        click.echo(
            json.dumps(
                {
                    "generation": outcome.generation,
                    "unchanged": outcome.unchanged,
                    "prefixes_ipv4": manifest["prefixes4"],
                    "prefixes_ipv6": manifest["prefixes6"],
                    "origins": manifest["origins"],
                    "as_names": manifest["names"],
                    "table_time": _utc(manifest["table_time"]),
                    "forced_despite": list(outcome.overridden),
                }
            )
        )
        return
    state = "is in use already: nothing changed" if outcome.unchanged else "is in use"
    click.echo(
        f"{outcome.generation} {state}: {manifest['prefixes4']} IPv4 and "
        f"{manifest['prefixes6']} IPv6 prefixes, {manifest['origins']} origins, "
        f"{manifest['names']} AS names, of {_utc(manifest['table_time'])}"
    )
    for reason in outcome.overridden:
        click.echo(f"forced, despite: {reason}", err=True)


@origin.command()
@text_or_json
@_with_settings
def rollback(settings: AggregatorSettings, *, as_json: bool) -> None:
    """Put the previous table into use again.

    \b
    Example:
      smtpfeeds origin rollback
    """
    from ..origin.generation import directory_of

    if not settings.origin_dir:
        raise missing("origin_dir", "the directory of origin tables; files cannot be rolled back")
    write_as_owner(settings.origin_dir, GENERATIONS)
    generation = directory_of(settings.origin_dir).roll_back()
    table_time = _utc(generation.manifest["table_time"])
    if as_json:
        click.echo(json.dumps({"generation": generation.name, "table_time": table_time}))
        return
    click.echo(f"{generation.name} is in use again, of {table_time}")


def _current(settings: AggregatorSettings) -> OriginTable:
    if not settings.origin_dir and not settings.origin_table:
        raise SettingsError(
            "neither origin_dir nor origin_table is set: name one in the settings file (--config), "
            "or give --origin-dir or --origin-table"
        )
    source = OriginSource(settings)
    source.load()
    return source.current


def _blocks(lines: Iterator[str]) -> Iterator[list[str]]:
    """Yield blocks of lines; on a terminal, single lines."""
    size = 1 if sys.stdin.isatty() else _BLOCK
    block: list[str] = []
    for line in lines:
        block.append(line)
        if len(block) >= size:
            yield block
            block = []
    if block:
        yield block


class _Lookup:
    """Looks up texts in a table, and counts how many are addresses."""

    def __init__(self, table: OriginTable) -> None:
        self._table = table
        self.addresses = self.with_origin = 0
        self.malformed = 0

    def rows(self, texts: list[str]) -> Iterator[dict[str, Any]]:
        """Yield one row for each address; name on stderr what is not one."""
        table, addresses = self._table, list(self._packed(texts))
        self.addresses += len(addresses)
        for packed, asn in zip(addresses, table.lookup_many(addresses), strict=True):
            self.with_origin += bool(asn)
            yield {
                "address": format_address(packed),
                "asn": asn,
                "prefix": table.prefix(packed) if asn else None,
                "name": table.name(asn) if asn else None,
                "generation": table.generation,
            }

    def _packed(self, texts: list[str]) -> Iterator[bytes]:
        for text in texts:
            try:
                yield pack_address(text)
            except AddressError as exc:
                self.malformed += 1
                click.echo(f"smtpfeeds: {exc.message}", err=True)


def _describe(settings: AggregatorSettings) -> dict[str, Any]:
    """Return the description of the table, under stable names."""
    from ..origin.acquire.refresh import schedule_of
    from ..origin.generation import directory_of

    table = _current(settings)
    info, now = table.info, datetime.now(UTC)
    described: dict[str, Any] = {
        "generation": table.generation,
        "source": info.source,
        "table_time": iso_utc(info.table_time) if info.table_time else None,
        "age_hours": round((now - info.table_time).total_seconds() / 3600, 1)
        if info.table_time
        else None,
        "prefixes_ipv4": info.prefixes_ipv4,
        "prefixes_ipv6": info.prefixes_ipv6,
        "origins": info.origins,
        "as_names": info.names,
        "bad_lines": info.bad_lines,
    }
    if settings.origin_dir:
        directory = directory_of(settings.origin_dir)
        noted = directory.status()
        due = schedule_of(settings).next_refresh(noted, now)
        described |= {
            "older_generations": [generation.name for generation in directory.others()],
            "rolled_back": noted.get("rolled_back"),
            "last_attempt": _utc(noted.get("last_attempt")),
            "last_success": _utc(noted.get("last_success")),
            "last_failure": noted.get("last_failure"),
            "next_refresh": iso_utc(due) if due else None,
        }
    return described


def _plain(value: Any) -> str:
    if value is None or value == []:
        return "-"
    if isinstance(value, list):
        return ", ".join(map(str, value))
    if isinstance(value, dict):
        return f"{_utc(value.get('time'))}: {value.get('reason')}"
    return str(value)


def _utc(noted: str | None) -> str | None:
    """Format a time from a file like all other times."""
    try:
        return iso_utc(datetime.fromisoformat(noted)) if noted else None
    except ValueError:
        return noted
