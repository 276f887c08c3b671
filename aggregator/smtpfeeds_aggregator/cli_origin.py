"""`smtpfeeds origin`: look origins up, show and refresh the table, go back to the one before.

These commands read the same files as a running aggregator and tell it nothing:
it notices a new table by itself.
"""

import functools
import json
import sys
from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import click

from smtpfeeds_common import logs
from smtpfeeds_common.addresses import format_address, pack_address
from smtpfeeds_common.errors import AddressError, OriginError

from . import settings as aggregator_settings
from .origin import OriginSource, OriginTable
from .settings import AggregatorSettings

#: Addresses from a pipe are looked up in blocks of this many lines.
_BLOCK: Final = 1000
#: A longer line is no address.
_MAX_LINE: Final = 200
_COLUMNS: Final = ("address", "asn", "prefix", "name", "generation")


def _with_settings(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command the options that name its tables, and `settings` made of them."""

    @click.option(
        "--config",
        "-c",
        type=click.Path(exists=True, dir_okay=False, path_type=Path),
        help="Settings file (TOML). Without it, SMTPFEEDS_AGGREGATOR_* variables alone.",
    )
    @click.option("--origin-dir", help="Directory of origin tables, in place of the setting.")
    @click.option("--origin-table", help="A pyasn table, in place of the setting.")
    @click.option("--as-names", help="A list of AS names, in place of the setting.")
    @functools.wraps(command)
    def run(
        config: Path | None,
        origin_dir: str | None,
        origin_table: str | None,
        as_names: str | None,
        **arguments: Any,
    ) -> None:
        # The one that is named here stands alone, whatever the file says.
        if origin_table is not None and origin_dir is None:
            origin_dir = ""
        elif origin_dir is not None and origin_table is None:
            origin_table = ""
        flags = {"origin_dir": origin_dir, "origin_table": origin_table, "as_names": as_names}
        settings = aggregator_settings.load(config, **flags)
        logs.configure("warning", settings.log_format)
        command(settings, **arguments)

    return run


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def origin() -> None:
    """Origin tables: which AS announces an address, and what it is called."""


@origin.command()
@click.argument("addresses", nargs=-1, required=True, metavar="ADDRESS…|-")
@click.option(
    "--format",
    "form",
    type=click.Choice(["text", "json", "ndjson"]),
    default="text",
    help="Tab-separated text, one JSON list, or one JSON object a line.",
)
@click.option("--json", "as_json", is_flag=True, help="The same as --format json.")
@_with_settings
def lookup(
    settings: AggregatorSettings, *, addresses: tuple[str, ...], form: str, as_json: bool
) -> None:
    """Say who announces ADDRESSes; `-` reads them from the standard input, one a line.

    Prints address, ASN, prefix, AS name and table generation. Exit code 0 if any
    address has an origin, 1 if none has.
    """
    table = _current(settings)
    lines = _from_stdin() if addresses == ("-",) else iter(addresses)
    rows = (row for block in _blocks(lines) for row in _look_up(table, block))
    found = _write(rows, "json" if as_json else form)
    if not found:
        click.echo("no origin is known", err=True)
        raise click.exceptions.Exit(1)


@origin.command()
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@_with_settings
def status(settings: AggregatorSettings, *, as_json: bool) -> None:
    """Show the table in use: source, age, counts, next refresh, last failure."""
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
@click.option("--force", is_flag=True, help="Put the new table in use whatever the checks say.")
@click.option(
    "--from",
    "source",
    type=click.Path(path_type=Path),
    help="A RIB, a pyasn table, or a directory of them; nothing is fetched.",
)
@click.option(
    "--names", type=click.Path(path_type=Path), help="With --from: the AS names to go with it."
)
@click.option("--quiet", "-q", is_flag=True, help="No progress.")
@_with_settings
def refresh(
    settings: AggregatorSettings,
    *,
    force: bool,
    source: Path | None,
    names: Path | None,
    quiet: bool,
) -> None:
    """Fetch the newest RIB, convert and check it, and put it in use."""
    from .origin.refresh import refresh as run_refresh

    if names is not None and source is None:
        raise click.UsageError("--names goes with --from")
    outcome = run_refresh(
        settings,
        source=source,
        names=names,
        force=force,
        progress=lambda text: None if quiet else click.echo(text, err=True),
    )
    made = outcome.manifest
    click.echo(
        f"{outcome.generation} "
        + ("is in use already: nothing changed" if outcome.unchanged else "is in use")
        + f": {made['prefixes4']} IPv4 and {made['prefixes6']} IPv6 prefixes, "
        f"{made['origins']} origins, {made['names']} AS names, of {made['table_time']}"
    )
    for reason in outcome.overridden:
        click.echo(f"forced although: {reason}", err=True)


@origin.command()
@_with_settings
def rollback(settings: AggregatorSettings) -> None:
    """Put the table before the current one in use again."""
    from .origin.refresh import roll_back

    if not settings.origin_dir:
        raise OriginError("origin_dir is not set: only a directory of tables can be rolled back")
    generation = roll_back(settings)
    click.echo(f"{generation.name} is in use again, of {generation.manifest['table_time']}")


def _current(settings: AggregatorSettings) -> OriginTable:
    if not settings.origin_dir and not settings.origin_table:
        raise OriginError(
            "neither origin_dir nor origin_table is set: name one in the settings file (--config), "
            "or give --origin-dir or --origin-table"
        )
    source = OriginSource(settings)
    source.load()
    return source.current


def _from_stdin() -> Iterator[str]:
    """The lines of the standard input, without blank ones; over-long ones cut."""
    while line := sys.stdin.buffer.readline(_MAX_LINE):
        if line.strip():
            yield line.decode("ascii", errors="replace").strip()


def _blocks(lines: Iterator[str]) -> Iterator[list[str]]:
    """Blocks of lines; a terminal gets its answers line by line."""
    size = 1 if sys.stdin.isatty() else _BLOCK
    block: list[str] = []
    for line in lines:
        block.append(line)
        if len(block) >= size:
            yield block
            block = []
    if block:
        yield block


def _look_up(table: OriginTable, texts: list[str]) -> Iterator[dict[str, Any]]:
    """One row per address; what is no address says so on stderr and gives none."""
    addresses = []
    for text in texts:
        try:
            addresses.append(pack_address(text))
        except AddressError as exc:
            click.echo(f"smtpfeeds: {exc.message}", err=True)
    for packed, asn in zip(addresses, table.lookup_many(addresses), strict=True):
        yield {
            "address": format_address(packed),
            "asn": asn,
            "prefix": table.prefix(packed) if asn else None,
            "name": table.name(asn) if asn else None,
            "generation": table.generation,
        }


def _write(rows: Iterable[dict[str, Any]], form: str) -> int:
    """Write rows as they come; how many have an origin."""
    found = 0
    if form == "json":
        listed = list(rows)
        click.echo(json.dumps(listed, indent=1))
        return sum(row["asn"] is not None for row in listed)
    for row in rows:
        found += row["asn"] is not None
        text = (
            json.dumps(row)
            if form == "ndjson"
            else "\t".join("NA" if row[key] is None else str(row[key]) for key in _COLUMNS)
        )
        sys.stdout.write(text + "\n")
    sys.stdout.flush()
    return found


def _describe(settings: AggregatorSettings) -> dict[str, Any]:
    """What there is to know, under names that stay."""
    from .origin.refresh import next_refresh
    from .origin.shelf import Shelf

    table = _current(settings)
    info, now = table.info, datetime.now(UTC)
    described: dict[str, Any] = {
        "generation": table.generation,
        "source": info.source,
        "table_time": info.table_time.isoformat() if info.table_time else None,
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
        shelf = Shelf(Path(settings.origin_dir))
        noted = shelf.status()
        due = next_refresh(settings, noted, now)
        described |= {
            "older_generations": [generation.name for generation in shelf.others()],
            "rolled_back": noted.get("rolled_back"),
            "last_attempt": noted.get("last_attempt"),
            "last_success": noted.get("last_success"),
            "last_failure": noted.get("last_failure"),
            "next_refresh": due.replace(microsecond=0).isoformat() if due else None,
        }
    return described


def _plain(value: Any) -> str:
    if value is None or value == []:
        return "-"
    if isinstance(value, list):
        return ", ".join(map(str, value))
    if isinstance(value, dict):
        return f"{value.get('time')}: {value.get('reason')}"
    return str(value)
