"""Write files plain and compressed together, and read both back.

`PlainAndCompressed` and `check_written` handle all published files with a compressed form,
`write_whole` the others.
"""

import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import IO, Final, Self

from smtpfeeds_common.errors import PublishError

from ..datasets.generations import sync_path
from .gzip_file import COMPRESSED, DAMAGED, compressed, decompressed
from .stopping import KeepGoing, go_on

#: Larger ones take longer: the system gives the memory of each anew.
_BLOCK_OCTETS: Final = 1 << 19
_NOT_WRITTEN: Final = "it does not hold what was written"


@dataclass(frozen=True, slots=True)
class Written:
    """A published file; the name is its path below the generation."""

    name: str
    size: int
    sha256: str
    #: None for a file that belongs to no single feed.
    feed: str | None = None
    #: How many addresses it lists, and of how many origins; None if it lists none.
    addresses: int | None = None
    asns: int | None = None


class HashedFile:
    """Writes octets to a file, and counts and hashes them."""

    def __init__(self, target: IO[bytes]) -> None:
        self._target, self._hash = target, hashlib.sha256()
        #: Number of written octets.
        self.size = 0

    def write(self, octets: bytes, /) -> int:
        """Write octets."""
        self.size += len(octets)
        self._hash.update(octets)
        return self._target.write(octets)

    def flush(self) -> None:
        """Flush the file."""
        self._target.flush()

    @property
    def sha256(self) -> str:
        """Return the hash of the written octets."""
        return self._hash.hexdigest()


class PlainAndCompressed:
    """A file that is being written, plain and compressed; use it as a context manager."""

    def __init__(self, folder: Path, name: str) -> None:
        """Create both files.

        Args:
            folder: of the generation.
            name: the name of the plain file, below the folder.

        Raises:
            OSError: one cannot be created.
        """
        self._name = name
        with ExitStack() as stack:
            plain = stack.enter_context((folder / name).open("xb"))
            small = stack.enter_context((folder / f"{name}{COMPRESSED}").open("xb"))
            self._plain, self._small = HashedFile(plain), HashedFile(small)
            self._compressor = stack.enter_context(compressed(self._small))
            self._files = stack.pop_all()

    def write(self, octets: bytes) -> None:
        """Write to both files."""
        self._plain.write(octets)
        self._compressor.write(octets)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._files.close()

    def written(self, feed: str, addresses: int, asns: int | None = None) -> list[Written]:
        """Return the records of both files, which are closed."""
        plain, small = self._plain, self._small
        first = Written(self._name, plain.size, plain.sha256, feed, addresses, asns)
        name = f"{self._name}{COMPRESSED}"
        return [first, replace(first, name=name, size=small.size, sha256=small.sha256)]


def check_written(folder: Path, written: Sequence[Written], keep_going: KeepGoing = go_on) -> None:
    """Sync a plain file and its compressed form to disk, and read both back.

    The hash of the compressed file is checked. The plain file must then be equal to what is in
    it, which takes half the time of two more hashes.

    Raises:
        PublishError: a file differs from what was written.
    """
    plain, small = written
    for file in written:
        keep_going()
        sync_path(folder / file.name)
    _check_octets(folder, small, keep_going)
    with _content(folder, small) as inside, (folder / plain.name).open("rb") as stream:
        same = _is_same(stream, inside, keep_going)
    if not same:
        _check_octets(folder, plain, keep_going)
        raise PublishError(f"{small.name}: {_NOT_WRITTEN}")


def check_compressed(folder: Path, file: Written, inside: str, keep_going: KeepGoing) -> None:
    """Read a compressed file back, and check the file and its content.

    Args:
        folder: of the generation.
        file: the compressed file, as it was written.
        inside: the SHA-256 of its expected content.
        keep_going: called now and then.

    Raises:
        PublishError: the file or its content differs from what was written.
    """
    _check_octets(folder, file, keep_going)
    digest = hashlib.sha256()
    with _content(folder, file) as stream:
        while block := stream.read(_BLOCK_OCTETS):
            keep_going()
            digest.update(block)
    if digest.hexdigest() != inside:
        raise PublishError(f"{file.name}: {_NOT_WRITTEN}")


@contextmanager
def _content(folder: Path, file: Written) -> Iterator[IO[bytes]]:
    """Return the content of a compressed file.

    Raises:
        PublishError: it is damaged.
    """
    try:
        with decompressed(folder / file.name) as stream:
            yield stream
    except DAMAGED as exc:
        raise PublishError(f"{file.name}: cannot be decompressed: {exc}") from exc


def _is_same(one: IO[bytes], other: IO[bytes], keep_going: KeepGoing) -> bool:
    """Return whether two files have the same octets; `one` reads whole blocks."""
    while block := other.read(_BLOCK_OCTETS):
        keep_going()
        if one.read(len(block)) != block:
            return False
    return not one.read(1)


def _check_octets(folder: Path, file: Written, keep_going: KeepGoing) -> None:
    # The library reads some damaged files that zlib refuses, so reading it is not enough.
    keep_going()
    with (folder / file.name).open("rb") as stream:
        if hashlib.file_digest(stream, "sha256").hexdigest() != file.sha256:
            raise PublishError(f"{file.name}: what is on disk is not what was written")


def write_whole(folder: Path, name: str, octets: bytes, feed: str | None = None) -> Written:
    """Write a small file without a compressed form, and read it back.

    Raises:
        PublishError: a file on disk differs from what was written.
    """
    written = Written(name, len(octets), hashlib.sha256(octets).hexdigest(), feed)
    with (folder / name).open("xb") as stream:
        stream.write(octets)
    _check_octets(folder, written, go_on)
    return written


def write_checked(
    folder: Path,
    name: str,
    feed: str,
    pieces: Iterable[tuple[str, int]],
    read_back: Callable[[IO[bytes]], int],
    keep_going: KeepGoing = go_on,
) -> list[Written]:
    """Write a file and its compressed form, and read both back.

    Args:
        folder: of the generation.
        name: the name below the folder.
        feed: the feed of the rows.
        pieces: pieces of ASCII text, and the number of their entries.
        read_back: counts the entries of a file; raises ValueError if it has another format.
        keep_going: called now and then.

    Raises:
        PublishError: a file on disk differs from what was written.
    """
    entries = 0
    with PlainAndCompressed(folder, name) as output:
        for piece, count in pieces:
            entries += count
            output.write(piece.encode("ascii"))
    written = output.written(feed, entries)
    check_written(folder, written, keep_going)
    try:
        with (folder / name).open("rb") as stream:
            read = read_back(stream)
    except ValueError as exc:
        raise PublishError(f"{name}: {exc}; the generation is not published") from exc
    if read != entries:
        raise PublishError(f"{name}: {read} entries on disk, {entries} written")
    return written
