"""Write all files of a feed in one pass over its rows.

Each file is written plain and compressed at once, and hashed on the way, in a thread: while it
writes a chunk of rows, which needs no interpreter, the next one is formatted.
"""

from collections.abc import Collection, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

import numpy as np

from smtpfeeds_common.feeds import Feed

from .chunks import Chunk
from .columns import Rows
from .entries import Counts, Format, Frame, joined
from .formats import csv_file as csv_format
from .formats import ndjson as ndjson_format
from .formats import text as text_format
from .written import PlainAndCompressed, Written

_LF: Final = 10


@dataclass(slots=True)
class FeedFile:
    """A file of a feed: its format, its rows, and their counts."""

    name: str
    format: Format
    frame: Frame
    counts: Counts = field(default_factory=Counts)
    #: The plain file and the compressed one, once they are written.
    written: list[Written] = field(default_factory=list)

    @property
    def is_whole(self) -> bool:
        """Return whether this is the feed's main file, with the rows of both families."""
        return self.format is text_format and self.frame.family is None

    def take(self, chunk: Chunk, lines: bytes) -> bytes:
        """Count the rows that belong to this file; return their lines."""
        if self.frame.family is None:
            self.counts.count(chunk.asns)
            return lines
        wanted = chunk.ipv4 if self.frame.family == 4 else ~chunk.ipv4
        self.counts.count(chunk.asns[wanted])
        return _selected(lines, wanted)


def files_of(feed: Feed, frame: Frame, formats: Collection[str]) -> list[FeedFile]:
    """Return the files that are written with a feed's rows: the text, and others by the setting."""
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


def write_files(folder: Path, files: Collection[FeedFile], chunks: Iterator[Chunk]) -> None:
    """Write a feed's files together, each plain and compressed.

    Raises:
        OSError: a file cannot be written.
    """
    formats = {file.format for file in files}
    with ExitStack() as stack:
        outputs = [stack.enter_context(PlainAndCompressed(folder, file.name)) for file in files]
        thread = stack.enter_context(ThreadPoolExecutor(2, "publish-files"))

        def write(blocks: Collection[bytes]) -> list[Future[None]]:
            return [
                thread.submit(output.write, block)
                for output, block in zip(outputs, blocks, strict=True)
            ]

        written = write([_ascii(file.format.header(file.frame)) for file in files])
        for chunk in chunks:
            lines = {form: _ascii(joined(form, chunk)) for form in formats}
            blocks = [file.take(chunk, lines[file.format]) for file in files]
            _wait(written)  # at most two chunks are held
            written = write(blocks)
        _wait(written)
        _wait(write([_ascii(file.format.footer(file.frame, file.counts)) for file in files]))
    for file, output in zip(files, outputs, strict=True):
        file.written = output.written(file.frame.feed.name, file.counts.addresses, file.counts.asns)


def _ascii(text: str) -> bytes:
    return text.encode("ascii")


def _wait(written: Collection[Future[None]]) -> None:
    for each in written:
        each.result()


def _selected(lines: bytes, wanted: Rows) -> bytes:
    """Return the selected lines; adjacent lines are copied together."""
    ends = np.flatnonzero(np.frombuffer(lines, np.uint8) == _LF) + 1
    edges = np.flatnonzero(np.diff(wanted, prepend=False, append=False))
    at = np.concatenate(([0], ends))[edges].tolist()
    view = memoryview(lines)
    return b"".join(map(view.__getitem__, map(slice, at[::2], at[1::2])))
