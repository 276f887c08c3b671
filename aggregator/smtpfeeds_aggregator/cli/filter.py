"""`smtpfeeds filter`: print the lines of a log that contain an address of the feeds.

Exit codes are those of grep: 0 a line matched, 1 no line matched, 2 an error.
"""

import os
import sys
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

import click

from smtpfeeds_common.answers import Form, Limited, format_options, note, write_records
from smtpfeeds_common.columns import Column
from smtpfeeds_common.command_end import print_error
from smtpfeeds_common.errors import SettingsError, SmtpfeedsError
from smtpfeeds_common.feeds import FEED_NAMES
from smtpfeeds_common.garbage import no_garbage

from ..classification.classes import Class
from .entry_columns import class_colour
from .source import PLACE, Source, source_options

if TYPE_CHECKING:
    from ..query.address_set import AddressSet
    from ..query.known import Known
    from ..query.line_filter import LineFilter
    from ..query.text_addresses import TextMatcher

_MATCHED: Final = 0
_NO_MATCH: Final = 1
_WRONG: Final = 2
_STDIN: Final = "-"
_IPV6_BITS: Final = 128
#: What is known of an address, and in a summary how many lines contain it.
_COLUMNS: Final = (
    Column("lines", "integer", "lines with the address; in a summary alone"),
    Column(
        "ipaddr", title="address", help="the address that the feeds know", middle=True, least=20
    ),
    Column("class", help="what it is, by its behaviours and lists", colour=class_colour),
    Column("feeds", "texts", "the feeds that it is in", rank=4),
    Column("lastseen", title="last seen UTC", help="cut to the second, UTC", rank=1),
    Column("days", help="the last 7 days, the oldest first: # seen, . not", rank=2),
    Column("hits", "integer", "events, of the feed with more", rank=5),
    Column("ASN", "integer", "origin; null where none is known", rank=4),
    Column("ASname", title="AS name", help="its name", least=10, rank=3),
    Column("actor", help="who runs it, by the lists", least=10, rank=6),
    Column("first_seen", title="first seen UTC", help="cut to the second, UTC", rank=8),
    Column("sensors", "integer", "sensors that saw it, of the feed with more", rank=8),
    Column("why", "texts", "the reasons for the class", least=12, rank=7),
    Column("tags", "texts", "behaviours of the last two weeks", least=12, rank=9),
    Column("new", "boolean", "first seen within 24 hours", rank=9),
)
#: Columns added to a line unless `--fields` names others.
_ADDED: Final = ("ipaddr", "class", "feeds", "lastseen", "days", "ASN", "ASname", "actor")

_EPILOG: Final = """\b
Examples:
  smtpfeeds filter /var/log/mail.log
  tail -f /var/log/mail.log | smtpfeeds filter --only-class password-guess
  smtpfeeds filter --summary --from https://feeds.example.net/ mail.log*.gz

Exit codes: 0 a line matched, 1 none did, 2 something went wrong.
"""


@click.command(
    "filter",
    epilog=_EPILOG,
    short_help="Print the lines of a log that contain an address of the feeds.",
)
@click.argument("files", nargs=-1, type=PLACE, metavar="[FILE]...")
@click.option("--invert", is_flag=True, help="Print the lines that hold no such address.")
@click.option(
    "--only-class",
    "classes",
    type=click.Choice([str(name) for name in Class]),
    multiple=True,
    metavar="CLASS",
    help="Only addresses of this class, such as relay-test; can be given again.",
)
@click.option(
    "--feed", "feeds", type=click.Choice(FEED_NAMES), multiple=True, help="Only this feed."
)
@click.option(
    "--annotate",
    is_flag=True,
    help="Add what the feeds say about the address: columns, or a member of a JSON object.",
)
@click.option(
    "--delimiter", default="\t", help="The text before each added column; the default is a tab."
)
@click.option(
    "--summary", is_flag=True, help="Count the lines of each address, and print no lines."
)
@click.option(
    "--limit", type=click.IntRange(min=1), help="At most this many addresses in the summary."
)
@click.option(
    "--ipv6-prefix",
    type=click.IntRange(16, _IPV6_BITS),
    default=_IPV6_BITS,
    show_default=True,
    help="How many bits of an IPv6 address must match; 64 suits clients that change the rest.",
)
@format_options(_COLUMNS)
@source_options
def filter_lines(
    files: tuple[str, ...],
    classes: tuple[str, ...],
    feeds: tuple[str, ...],
    delimiter: str,
    ipv6_prefix: int,
    limit: int | None,
    form: Form,
    source: Source,
    *,
    invert: bool,
    annotate: bool,
    summary: bool,
) -> None:
    """Print the lines of logs that contain an address of the feeds, unchanged.

    FILE is plain text or gzip. Without a FILE, or for `-`, the standard input is read, and a line
    of a live pipe is printed as soon as it arrives. The command recognises addresses in any
    spelling and between any characters. --format and --limit are for --summary only.
    """
    with _as_grep():
        _check(ipv6_prefix, form, delimiter, invert=invert, annotate=annotate, summary=summary)
        feeds = feeds or FEED_NAMES
        known: Mapping[bytes, Known] = {}
        counts = Counter[bytes]() if summary else None
        add = None
        with no_garbage():
            from ..query.line_filter import LineFilter

            if annotate or summary or classes:
                known = _known(source, feeds, classes)
                matcher = _matcher_of(known, ipv6_prefix)
            else:
                matcher = _matcher(source.addresses(feeds), ipv6_prefix)
            if annotate:
                from ..query.annotations import Annotations

                add = Annotations(known, _added(form), delimiter).line
        lines = LineFilter(matcher, invert=invert, annotate=add, counts=counts)
        failed = _pass_files(files or (_STDIN,), lines, is_quiet=summary)
        if lines.long_lines:
            note(f"note: lines longer than 1 MiB, searched only that far: {lines.long_lines}")
        if not matcher:
            note("note: no address in the feeds matches these options")
        if counts is not None:
            _write_summary(counts, known, lines, form, limit)
    matched = lines.matching < lines.lines if invert else lines.matching > 0
    raise click.exceptions.Exit(_WRONG if failed else _MATCHED if matched else _NO_MATCH)


def _known(
    source: Source, feeds: Sequence[str], classes: Collection[str]
) -> "Mapping[bytes, Known]":
    """Return what is known of each address."""
    from ..query.known import known_addresses

    with source.entries(feeds) as entries:
        return known_addresses(entries, classes)


def _matcher_of(known: "Mapping[bytes, Known]", ipv6_prefix: int) -> "TextMatcher":
    """Return a matcher for the addresses; for an IPv6 prefix it returns the newest address."""
    from ..query.address_set import AddressSet
    from ..query.known import newest_first

    order = known if ipv6_prefix == _IPV6_BITS else newest_first(known)
    return _matcher(AddressSet.of(order), ipv6_prefix)


def _matcher(addresses: "AddressSet", ipv6_prefix: int) -> "TextMatcher":
    from ..query.text_addresses import TextMatcher

    return TextMatcher(addresses, ipv6_prefix_bits=ipv6_prefix)


@contextmanager
def _as_grep() -> Iterator[None]:
    """Use exit code 2 for every error, because 1 means that no line matched."""
    try:
        yield
    except SmtpfeedsError as exc:
        print_error(f"smtpfeeds: {exc.message}")
        raise click.exceptions.Exit(_WRONG) from exc


def _check(
    ipv6_prefix: int, form: Form, delimiter: str, *, invert: bool, annotate: bool, summary: bool
) -> None:
    if ipv6_prefix % 8:
        raise SettingsError("--ipv6-prefix: give a multiple of 8, such as 64")
    if invert and (annotate or summary):
        raise SettingsError(
            "--invert prints the lines without a known address; remove --annotate and --summary"
        )
    if annotate and summary:
        raise SettingsError("--summary prints no lines; remove --annotate")
    if not summary and (form.format != "table" or (form.chosen and not annotate)):
        raise SettingsError(
            "--format is for --summary only, and --fields for --summary and --annotate"
        )
    if not delimiter or "\n" in delimiter:
        raise SettingsError("--delimiter: give at least one character, and no line feed")


def _added(form: Form) -> Sequence[Column]:
    by_name = {column.name: column for column in _COLUMNS}
    if form.chosen:
        return [column for column in form.columns if column.name != "lines"]
    return [by_name[name] for name in _ADDED]


def _pass_files(files: Iterable[str], lines: "LineFilter", *, is_quiet: bool) -> bool:
    """Filter the files in turn; return whether one could not be read to its end."""
    from ..query.line_blocks import UnreadableInput

    failed = False
    output = sys.stdout.buffer
    for name in files:
        try:
            for octets in _filtered(name, lines):
                if octets and not is_quiet:
                    output.write(octets)
                    output.flush()
        except UnreadableInput as exc:
            failed = True
            print_error(f"smtpfeeds: {name}: {exc}")
        except OSError as exc:
            # The end of the command handles output errors and a closed pipe.
            if exc.filename != name:
                raise
            failed = True
            print_error(f"smtpfeeds: {name}: {exc.strerror}")
    return failed


def _filtered(name: str, lines: "LineFilter") -> Iterator[bytes]:
    """Yield the output for a file, block by block."""
    from ..query.line_blocks import blocks, decompressed, reads

    descriptor = 0 if name == _STDIN else os.open(name, os.O_RDONLY | os.O_CLOEXEC)
    try:
        for block in blocks(decompressed(reads(descriptor))):
            yield b"".join(lines.take(block))
        yield b"".join(lines.finish())
    finally:
        if name != _STDIN:
            os.close(descriptor)


def _write_summary(
    counts: Counter[bytes],
    known: "Mapping[bytes, Known]",
    lines: "LineFilter",
    form: Form,
    limit: int | None,
) -> None:
    ranked = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    records: list[dict[str, Any]] = [
        {"lines": count, **known[packed].record()} for packed, count in ranked
    ]
    cut = Limited(limit)
    by_class = Counter[str]()
    for record in records:
        by_class[record["class"]] += record["lines"]
    try:
        write_records(cut.of(records), form, "no line contains an address of the feeds")
    finally:
        cut.note()
        parts = ", ".join(f"{count} {name}" for name, count in by_class.most_common())
        note(
            f"{lines.matching} of {lines.lines} lines contain one of {len(records)} addresses"
            + (f": {parts}" if parts else "")
        )
