"""Read lines as blocks of octets: from a file, a pipe that is still written to, or gzip.

A block is what one read returns, so the reader of a live log sees a line as soon as it is written.
Nothing here is larger than a few blocks, however long a line is.
"""

import os
import select
import zlib
from collections.abc import Iterable, Iterator
from itertools import chain
from typing import Final, NamedTuple

#: Octets of one read.
READ_BYTES: Final = 1 << 19
#: A longer line is split into pieces.
LINE_BYTES_MAX: Final = 1 << 20
_GZIP: Final = b"\x1f\x8b"
#: zlib: a gzip header, and the largest window.
_GZIP_WINDOW: Final = 31


class UnreadableInput(Exception):
    """An input cannot be read to its end, or is damaged."""


class Block(NamedTuple):
    """Whole lines (the last line of an input may lack its line feed), or a piece of a long line."""

    octets: bytes
    #: Whether the next block continues its only line.
    is_open: bool = False
    #: Whether it contains only a continuation of the previous block's line.
    is_rest: bool = False


def reads(descriptor: int) -> Iterator[bytes]:
    """Yield what each read of a descriptor returns, without waiting for a full block.

    Raises:
        UnreadableInput: a read failed.
    """
    poll = select.poll()
    poll.register(descriptor, select.POLLIN)
    while piece := _read(descriptor, READ_BYTES):
        pieces, size = [piece], len(piece)
        while size < READ_BYTES and poll.poll(0):
            piece = _read(descriptor, READ_BYTES - size)
            if not piece:
                break
            pieces.append(piece)
            size += len(piece)
        yield b"".join(pieces)


def _read(descriptor: int, size: int) -> bytes:
    try:
        return os.read(descriptor, size)
    except OSError as exc:
        raise UnreadableInput(exc.strerror) from exc


def decompressed(pieces: Iterator[bytes]) -> Iterator[bytes]:
    """Yield the pieces of an input, decompressed if it begins like gzip.

    Raises:
        UnreadableInput: the compressed input is damaged or truncated.
    """
    start = b""
    for piece in pieces:
        start += piece
        if len(start) >= len(_GZIP):
            break
    every = chain((start,), pieces)
    return _gunzipped(every) if start.startswith(_GZIP) else every


def _gunzipped(pieces: Iterable[bytes]) -> Iterator[bytes]:
    """Decompress a file of one or more gzip members; zeros after the last are padding."""
    member = zlib.decompressobj(_GZIP_WINDOW)
    try:
        for piece in pieces:
            rest = piece
            while rest:
                if member.eof:
                    rest = rest.lstrip(b"\0")
                    if not rest:
                        break
                    member = zlib.decompressobj(_GZIP_WINDOW)
                octets = member.decompress(rest, READ_BYTES)
                rest = member.unused_data if member.eof else member.unconsumed_tail
                if octets:
                    yield octets
        if not member.eof:
            yield member.flush()
    except zlib.error as exc:
        raise UnreadableInput(f"the gzip data is damaged ({exc})") from exc
    if not member.eof:
        raise UnreadableInput("the gzip data ends in the middle")


def blocks(pieces: Iterable[bytes]) -> Iterator[Block]:
    """Join pieces into blocks of whole lines; long lines get blocks of their own."""
    held, is_long = b"", False
    for piece in pieces:
        rest = piece
        if is_long:
            cut = rest.find(b"\n") + 1
            yield Block(rest[:cut] if cut else rest, is_open=not cut, is_rest=True)
            is_long, rest = not cut, rest[cut:] if cut else b""
        cut = rest.rfind(b"\n") + 1
        if cut:
            yield Block(held + rest[:cut])
            held = b""
        held += rest[cut:]
        if len(held) > LINE_BYTES_MAX:
            yield Block(held, is_open=True)
            held, is_long = b"", True
    if held:
        yield Block(held)
