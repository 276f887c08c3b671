"""`smtpfeeds feed diff`: what changed between two editions."""

from typing import Final

import click

from smtpfeeds_common.answers import Form, format_options, note, write_records
from smtpfeeds_common.columns import Column
from smtpfeeds_common.errors import SettingsError
from smtpfeeds_common.feeds import FEED_NAMES
from smtpfeeds_common.garbage import no_garbage
from smtpfeeds_common.times import iso_utc

from .entry_columns import class_colour
from .source import KEY, PLACE, published

_CHANGES: Final = (
    Column("change", help="added, gone, or class: its class has changed"),
    Column("ipaddr", title="address", help="as RFC 5952 writes it", least=20, middle=True),
    Column("category", title="feed", help="the feed"),
    Column("class", help="in the second edition", colour=class_colour),
    Column("class_before", title="before", help="the class in the first edition"),
    Column("lastseen", title="last seen UTC", help="in the later edition that has it", rank=1),
    Column("ASN", "integer", "origin; null where none is known", rank=3),
    Column("ASname", title="AS name", help="its name", least=10, rank=2),
)
_EPILOG: Final = """\b
Examples:
  smtpfeeds feed diff feeds/archive/2026-11-24 feeds/archive/2026-11-25
  smtpfeeds feed diff yesterday/ https://feeds.example.net/ --feed smtpdata

Exit codes: 0 something changed, 1 nothing changed, or the files are not valid, 2 wrong use, 3 the
files could not be read.
"""


@click.command("diff", epilog=_EPILOG, short_help="Show what changed between two editions.")
@click.argument("before", type=PLACE, metavar="BEFORE")
@click.argument("after", type=PLACE, metavar="AFTER")
@click.option(
    "--feed", "feeds", type=click.Choice(FEED_NAMES), multiple=True, help="Only this feed."
)
@KEY
@format_options(_CHANGES)
def feed_diff(before: str, after: str, feeds: tuple[str, ...], key: str | None, form: Form) -> None:
    """Show which addresses were added, are gone, or have changed their class.

    BEFORE and AFTER are folders of feeds, generations, days of the archive, files or URLs; their
    manifests are verified, and with --key the signatures.
    """
    from ..query.published.difference import counted, differences

    first, second = published(before, key), published(after, key)
    wanted = [name for name in feeds or FEED_NAMES if name in first.feeds() & second.feeds()]
    if not wanted:
        raise SettingsError(f"{before} and {after} have none of these feeds in common")
    with no_garbage():
        changes = differences(first.entries(wanted), second.entries(wanted))
    try:
        write_records(changes, form, "nothing changed")
    finally:
        times = [
            "no manifest" if one.edition is None else iso_utc(one.edition.generated)
            for one in (first, second)
        ]
        note(f"{' '.join(wanted)}, {times[0]} to {times[1]}: {counted(changes)}")
