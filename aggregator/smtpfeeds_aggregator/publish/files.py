"""Which files a feed becomes, and the writing of all of them in one pass over its rows.

Each file is written plain and compressed at once, and hashed on the way.
"""

from collections.abc import Collection, Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from itertools import compress
from operator import not_
from pathlib import Path

from smtpfeeds_common.feeds import Feed

from .entries import Columns, Counts, Format, Frame
from .formats import csv_file as csv_format
from .formats import ndjson as ndjson_format
from .formats import text as text_format
from .written import PlainAndCompressed, Written


@dataclass(slots=True)
class FeedFile:
    """One file of a feed: its format, whose rows it takes, and what they added up to."""

    name: str
    format: Format
    frame: Frame
    counts: Counts = field(default_factory=Counts)
    #: The plain file and the compressed one, once they are.
    written: list[Written] = field(default_factory=list)

    @property
    def is_whole(self) -> bool:
        """Whether this is the feed's main file, with the rows of both families."""
        return self.format is text_format and self.frame.family is None

    def select(self, columns: Columns, rows: list[str]) -> tuple[Iterable[str], list[int]]:
        """Those of the rows that belong here, and their origins."""
        family = self.frame.family
        if family is None:
            return rows, columns.asn
        wanted = columns.is_ipv4 if family == 4 else list(map(not_, columns.is_ipv4))
        return compress(rows, wanted), list(compress(columns.asn, wanted))


def files_of(feed: Feed, frame: Frame, formats: Collection[str]) -> list[FeedFile]:
    """The files of a feed that are written with its rows: the text, and others by the setting."""
    name, suffix = feed.name, text_format.SUFFIX
    files = [
        FeedFile(f"{name}{suffix}", text_format, frame),
        FeedFile(f"{name}-ipv4{suffix}", text_format, replace(frame, family=4)),
        FeedFile(f"{name}-ipv6{suffix}", text_format, replace(frame, family=6)),
    ]
    if "csv" in formats:
        files.append(FeedFile(f"{name}{csv_format.SUFFIX}", csv_format, frame))
    if "ndjson" in formats:
        files.append(FeedFile(f"{name}{ndjson_format.SUFFIX}", ndjson_format, frame))
    return files


def write_files(folder: Path, files: Collection[FeedFile], chunks: Iterator[Columns]) -> None:
    """Write a feed's files side by side, each plain and compressed."""
    formats = {file.format: file.format.rows for file in files}
    with ExitStack() as stack:
        open_files = [
            (file, stack.enter_context(PlainAndCompressed(folder, file.name))) for file in files
        ]
        for file, output in open_files:
            output.write(file.format.header(file.frame))
        for columns in chunks:
            rows = {form: write(columns) for form, write in formats.items()}
            for file, output in open_files:
                selected, asns = file.select(columns, rows[file.format])
                file.counts.count(asns)
                output.write("".join(selected))
        for file, output in open_files:
            output.write(file.format.footer(file.frame, file.counts))
    for file, output in open_files:
        file.written = output.written(file.frame.feed.name, file.counts.addresses, file.counts.asns)
