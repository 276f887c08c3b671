"""The files of a feed that are not written together with the large ones.

Each has a module in `formats`. They are off by default, or bounded in size, so they are written in
a separate pass.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import IO, Final, Protocol

from .chunks import FeedRows
from .entries import Columns, Counts, Frame
from .formats import addresses as addresses_format
from .formats import intel as intel_format
from .formats import json_file as json_format
from .formats import stix as stix_format
from .stopping import KeepGoing, each_guarded
from .written import Written, write_checked

#: A row of STIX is a kilobyte.
_CHUNK_ROWS: Final = 5_000


class Document(Protocol):
    """The interface of a format's module, to write and read back its files."""

    @property
    def SUFFIX(self) -> str:
        """The end of the file's name."""
        ...

    @property
    def SEPARATOR(self) -> str:
        """The text between two rows."""
        ...

    def header(self, frame: Frame) -> str:
        """Return the text before the rows."""
        ...

    def rows(self, frame: Frame, columns: Columns, before: Counts) -> list[str]:
        """Return rows without separators; `before` is about the rows that were written before."""
        ...

    def footer(self, frame: Frame, counts: Counts) -> str:
        """Return the text after the rows."""
        ...

    def read_back(self, stream: IO[bytes]) -> int:
        """Return the number of entries of a file; raise ValueError if it has another format."""
        ...


#: By the name in the setting `formats`, with the largest number of entries.
_DOCUMENTS: Final[dict[str, tuple[Document, int | None]]] = {
    "stix": (stix_format, stix_format.MAX_ENTRIES),
    "json": (json_format, json_format.MAX_ENTRIES),
    "intel": (intel_format, None),
    "addresses": (addresses_format, None),
}


def write_documents(
    folder: Path,
    rows: FeedRows,
    frame: Frame,
    formats: tuple[str, ...],
    keep_going: KeepGoing,
) -> tuple[list[Written], dict[str, str]]:
    """Write the documents of a feed that the setting names.

    Returns:
        What was written, and by name what was not, with the reason.
    """
    written: list[Written] = []
    not_written: dict[str, str] = {}
    for name, (document, most) in _DOCUMENTS.items():
        if name not in formats:
            continue
        file = f"{frame.feed.name}{document.SUFFIX}"
        if most is not None and len(rows) > most:
            not_written[file] = f"{len(rows)} entries; it is written up to {most}"
            continue
        pieces = _pieces(document, rows, frame, keep_going)
        written += write_checked(
            folder, file, frame.feed.name, pieces, document.read_back, keep_going
        )
    return written, not_written


def _pieces(
    document: Document, rows: FeedRows, frame: Frame, keep_going: KeepGoing
) -> Iterator[tuple[str, int]]:
    counts = Counts()
    yield document.header(frame), 0
    for chunk in each_guarded(rows.chunks(_CHUNK_ROWS), keep_going):
        texts = document.rows(frame, chunk, counts)
        before = document.SEPARATOR if counts.addresses and texts else ""
        counts.addresses += len(texts)
        counts.last_asn = chunk.asn[-1]
        yield before + document.SEPARATOR.join(texts), len(texts)
    yield document.footer(frame, counts), 0
