"""`smtpfeeds aggregator dead-letters`: show, put back and drop refused messages."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from smtpfeeds_common.answers import Form, format_options, write_records
from smtpfeeds_common.columns import Column, Record
from smtpfeeds_common.errors import SettingsError
from smtpfeeds_common.printable import printable

from .options import CONFIG, load

if TYPE_CHECKING:
    from ..sources.dead_letters import DeadLetter, DeadLetters

_NOTHING: Final = "nothing is refused"
_COLUMNS: Final = (
    Column("id"),
    Column("at", "time"),
    Column("account", help="null where the message names none"),
    Column("kind", rank=1),
    Column("octets", "integer", rank=2),
    Column("reason", least=20),
)
LIMIT = click.option(
    "--limit",
    type=click.IntRange(1, 100_000),
    default=1_000,
    show_default=True,
    help="Look at this many of the oldest messages.",
)
ALL = click.option("--all", "every", is_flag=True, help="All of them.")
IDS = click.argument("ids", nargs=-1, metavar="[ID]...")


@click.group("dead-letters", short_help="Show, requeue and drop refused messages.")
def dead_letters() -> None:
    """Refused messages: those that are not a batch, and rows of batches."""


def _queue(config: Path | None) -> "DeadLetters":
    from ..sources.dead_letters import DeadLetters

    settings = load(config)
    if not settings.broker:
        raise SettingsError(
            "which broker? Give --config FILE with the setting 'broker', or set "
            "SMTPFEEDS_AGGREGATOR_BROKER"
        )
    if settings.broker[0].startswith("spool:"):
        raise SettingsError(
            "without a broker there is no queue of refused messages; a refused batch stays in its "
            "spool: `smtpfeeds sensor status` counts it"
        )
    return DeadLetters(settings)


@dead_letters.command("list")
@CONFIG
@LIMIT
@format_options(_COLUMNS)
def list_(config: Path | None, limit: int, form: Form) -> None:
    """List refused messages: ID, time, account, kind, octets, reason. Exit code 1: none.

    \b
    Examples:
      smtpfeeds aggregator dead-letters list
      smtpfeeds aggregator dead-letters list --limit 1000 --format csv
    """
    letters = _queue(config).read(limit)
    write_records(map(_record, letters), form, _NOTHING)


def _record(letter: "DeadLetter") -> Record:
    return {
        "id": letter.id,
        "at": letter.at,
        "account": letter.account or None,
        "kind": letter.kind,
        "octets": len(letter.body),
        "reason": letter.reason,
    }


@dead_letters.command(short_help="Write the body of one message.")
@CONFIG
@LIMIT
@click.argument("letter_id", metavar="ID")
def show(config: Path | None, limit: int, letter_id: str) -> None:
    """Write the body of one message, unchanged; on a terminal without control characters.

    \b
    Example:
      smtpfeeds aggregator dead-letters show 0d3f6a52-7c1e-4b7e-9a3f-2f8f3d1c5a10/17
    """
    for letter in _queue(config).read(limit):
        if letter.id == letter_id:
            if sys.stdout.isatty():
                click.echo(printable(letter.body.decode(errors="replace"), keep="\n"))
            else:
                sys.stdout.buffer.write(letter.body)
                sys.stdout.buffer.flush()
            return
    _none_of([letter_id])


@dead_letters.command(short_help="Put messages back into the queue of batches.")
@CONFIG
@LIMIT
@ALL
@IDS
def requeue(config: Path | None, limit: int, ids: tuple[str, ...], *, every: bool) -> None:
    """Put messages back into the queue of batches, under the account that sent them.

    \b
    Example:
      smtpfeeds aggregator dead-letters requeue 0d3f6a52-7c1e-4b7e-9a3f-2f8f3d1c5a10/17
    """
    _one_of(ids, every=every)
    done, rows = _queue(config).requeue(None if every else ids, limit)
    click.echo(f"put back: {len(done)}")
    if rows:
        click.echo(
            f"not put back: {rows} messages of refused rows, which are not batches", err=True
        )
    if not done and not every:
        _none_of(ids)


@dead_letters.command()
@CONFIG
@LIMIT
@ALL
@IDS
def drop(config: Path | None, limit: int, ids: tuple[str, ...], *, every: bool) -> None:
    """Delete messages.

    \b
    Examples:
      smtpfeeds aggregator dead-letters drop 0d3f6a52-7c1e-4b7e-9a3f-2f8f3d1c5a10/17
      smtpfeeds aggregator dead-letters drop --all
    """
    _one_of(ids, every=every)
    done = _queue(config).drop(None if every else ids, limit)
    click.echo(f"dropped: {len(done)}")
    if not done and not every:
        _none_of(ids)


def _one_of(ids: tuple[str, ...], *, every: bool) -> None:
    if bool(ids) == every:
        raise click.UsageError("name IDs, or give --all")


def _none_of(ids: tuple[str, ...] | list[str]) -> None:
    click.echo(f"no such message: {', '.join(ids)}; see `dead-letters list`", err=True)
    raise SystemExit(1)
