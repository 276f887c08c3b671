"""Writes the files that are made in one piece, plain and compressed, and reads them back.

The large files of a feed, which are written side by side with its rows, are `files`' own.
"""

import hashlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Final

from isal import igzip

from smtpfeeds_common.errors import PublishError

COMPRESSED: Final = ".gz"
#: As `files` compresses.
_LEVEL: Final = 2


@dataclass(frozen=True, slots=True)
class Written:
    """A published file; the name is its path below the generation."""

    name: str
    size: int
    sha256: str
    #: None for a file of no single feed.
    feed: str | None = None
    #: How many addresses it lists; None where it lists none.
    addresses: int | None = None


def write_whole(folder: Path, name: str, octets: bytes, feed: str | None = None) -> Written:
    """Write a small file, plain alone, and read it back.

    Raises:
        PublishError: what is on disk is not what was written.
    """
    path = folder / name
    with path.open("xb") as stream:
        stream.write(octets)
    if path.read_bytes() != octets:
        raise PublishError(f"{name}: what is on disk is not what was written")
    return Written(name, len(octets), hashlib.sha256(octets).hexdigest(), feed)


def write_checked(
    folder: Path,
    name: str,
    feed: str,
    pieces: Iterable[tuple[str, int]],
    read_back: Callable[[IO[bytes]], int],
) -> list[Written]:
    """Write a file and its compressed form, and read both back.

    Args:
        folder: of the generation.
        name: below it.
        feed: whose rows they are.
        pieces: text in ASCII, and how many entries it has.
        read_back: counts the entries of a file; raises ValueError where it is not of its format.

    Raises:
        PublishError: what is on disk is not what was written.
    """
    path, compressed = folder / name, folder / f"{name}{COMPRESSED}"
    digest, entries = hashlib.sha256(), 0
    with (
        path.open("xb") as plain,
        compressed.open("xb") as target,
        # No time and no name in it: the same rows make the same file.
        igzip.IGzipFile(  # type: ignore[no-untyped-call] # isal's
            filename="", mode="wb", compresslevel=_LEVEL, fileobj=target, mtime=0
        ) as squeezed,
    ):
        for piece, count in pieces:
            octets = piece.encode("ascii")
            entries += count
            digest.update(octets)
            plain.write(octets)
            squeezed.write(octets)  # type: ignore[no-untyped-call] # isal's
    wanted = digest.hexdigest()
    _check(path, name, wanted, read_back, entries)
    with igzip.IGzipFile(compressed, "rb") as inside:  # type: ignore[no-untyped-call] # isal's
        if hashlib.file_digest(inside, "sha256").hexdigest() != wanted:
            raise PublishError(f"{name}{COMPRESSED}: it does not hold what {name} does")
    with compressed.open("rb") as stream:
        small = hashlib.file_digest(stream, "sha256").hexdigest()
    return [
        Written(name, path.stat().st_size, wanted, feed, entries),
        Written(compressed.name, compressed.stat().st_size, small, feed, entries),
    ]


def _check(
    path: Path, name: str, digest: str, read_back: Callable[[IO[bytes]], int], entries: int
) -> None:
    with path.open("rb") as stream:
        if hashlib.file_digest(stream, "sha256").hexdigest() != digest:
            raise PublishError(f"{name}: what is on disk is not what was written")
        stream.seek(0)
        try:
            found = read_back(stream)
        except ValueError as exc:
            raise PublishError(f"{name}: {exc}; the generation is not published") from exc
    if found != entries:
        raise PublishError(f"{name}: {found} entries on disk, {entries} written")
