"""Which files a feed becomes, and the writing of all of them in one pass over its rows."""

from collections.abc import Collection, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import IO, Final

from smtpfeeds_common.feeds import Feed

from .entries import Counts, Entry, Format, Frame
from .formats import csv_file as csv_format
from .formats import ndjson as ndjson_format
from .formats import text as text_format

#: Rows formatted and written at a time.
CHUNK_ROWS: Final = 5_000


@dataclass(slots=True)
class FeedFile:
    """One file of a feed: its format, whose rows it takes, and what they added up to."""

    name: str
    format: Format
    frame: Frame
    counts: Counts = field(default_factory=Counts)

    @property
    def is_whole(self) -> bool:
        """Whether this is the feed's main file, with the rows of both families."""
        return self.format is text_format and self.frame.family is None

    def write(self, stream: IO[str], entries: list[Entry], rows: list[str]) -> None:
        """Write those of the rows that belong here."""
        family = self.frame.family
        if family is not None:
            rows = [row for row, entry in zip(rows, entries, strict=True) if entry.family == family]
            entries = [entry for entry in entries if entry.family == family]
        self.counts.count(entries)
        stream.write("".join(rows))


def files_of(feed: Feed, frame: Frame) -> list[FeedFile]:
    """Every file of a feed."""
    name, suffix = feed.name, text_format.SUFFIX
    return [
        FeedFile(f"{name}{suffix}", text_format, frame),
        FeedFile(f"{name}-ipv4{suffix}", text_format, replace(frame, family=4)),
        FeedFile(f"{name}-ipv6{suffix}", text_format, replace(frame, family=6)),
        FeedFile(f"{name}{csv_format.SUFFIX}", csv_format, frame),
        FeedFile(f"{name}{ndjson_format.SUFFIX}", ndjson_format, frame),
    ]


def write_files(folder: Path, files: Collection[FeedFile], entries: Iterator[Entry]) -> None:
    """Write a feed's files side by side."""
    formats = {file.format for file in files}
    with ExitStack() as stack:
        streams = [(file, stack.enter_context(_create(folder / file.name))) for file in files]
        for file, stream in streams:
            stream.write(file.format.header(file.frame))
        while chunk := list(islice(entries, CHUNK_ROWS)):
            rows = {form: list(map(form.row, chunk)) for form in formats}
            for file, stream in streams:
                file.write(stream, chunk, rows[file.format])
        for file, stream in streams:
            stream.write(file.format.footer(file.frame, file.counts))


def _create(path: Path) -> IO[str]:
    return path.open("x", encoding="utf-8", newline="\n")
