"""Which files a feed becomes, and the writing of all of them in one pass over its rows.

Each file is written plain and compressed at once, and hashed on the way.
"""

import hashlib
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from itertools import compress
from operator import not_
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from isal import igzip

from smtpfeeds_common.feeds import Feed

from .entries import Columns, Counts, Format, Frame
from .formats import csv_file as csv_format
from .formats import ndjson as ndjson_format
from .formats import text as text_format

COMPRESSED: Final = ".gz"
#: Three quarters of zlib's best ratio at a tenth of its time.
_LEVEL: Final = 2


@dataclass(slots=True)
class FeedFile:
    """One file of a feed: its format, whose rows it takes, and what they added up to."""

    name: str
    format: Format
    frame: Frame
    counts: Counts = field(default_factory=Counts)
    #: Of the plain file and of the compressed one.
    sha256: str = ""
    compressed_sha256: str = ""
    size: int = 0
    compressed_size: int = 0

    @property
    def is_whole(self) -> bool:
        """Whether this is the feed's main file, with the rows of both families."""
        return self.format is text_format and self.frame.family is None

    @property
    def compressed_name(self) -> str:
        """The name of the compressed file."""
        return self.name + COMPRESSED

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
        open_files = [(file, stack.enter_context(_Output(folder, file))) for file in files]
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


class _Output:
    """A file that is being written, plain and compressed."""

    def __init__(self, folder: Path, file: FeedFile) -> None:
        self._file = file
        self._plain = (folder / file.name).open("xb")
        self._target = (folder / file.compressed_name).open("xb")
        # No time and no name in it: the same rows make the same file.
        self._compressed = igzip.IGzipFile(  # type: ignore[no-untyped-call] # isal's
            filename="", mode="wb", compresslevel=_LEVEL, fileobj=self._target, mtime=0
        )
        self._hash = hashlib.sha256()

    def write(self, text: str) -> None:
        octets = text.encode("ascii")
        self._plain.write(octets)
        self._compressed.write(octets)  # type: ignore[no-untyped-call] # isal's
        self._hash.update(octets)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        with self._plain, self._target:
            self._compressed.close()
            self._file.size, self._file.compressed_size = self._plain.tell(), self._target.tell()
        self._file.sha256 = self._hash.hexdigest()


def digest(path: Path, keep_going: Callable[[], None]) -> str:
    """The SHA-256 of a file."""
    keep_going()
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
