"""Which lines hold an address that the feeds know, and what is written of them.

Octets in, octets out: nothing is decoded, and a line is written as it was read. What
is held does not grow with the lines that pass, only with the addresses that are known.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from itertools import chain
from typing import Final

from .line_blocks import LINE_BYTES_MAX, Block
from .text_addresses import TextMatcher, lines_around

#: An address that ends later in its line is not looked for: in a long line it may be cut.
SEARCHED_BYTES: Final = LINE_BYTES_MAX - 96

Annotate = Callable[[bytes, Sequence[bytes]], bytes]
"""A line without its end, and the known addresses in it: the line that is written."""


class LineFilter:
    """Takes blocks of lines and gives those that match."""

    def __init__(
        self,
        matcher: TextMatcher,
        *,
        invert: bool = False,
        annotate: Annotate | None = None,
        counts: Counter[bytes] | None = None,
    ) -> None:
        """Take what is looked for.

        Args:
            matcher: the known addresses.
            invert: give the lines that do not match.
            annotate: what is written of a line that matches; None: the line.
            counts: filled with the number of lines of each known address.
        """
        self._matcher, self._invert = matcher, invert
        self._annotate, self._counts = annotate, counts
        #: Lines until now; those that match; those longer than is searched.
        self.lines = self.matching = self.long_lines = 0
        self._is_passed = False
        self._open_matches: Sequence[bytes] = ()

    def take(self, block: Block) -> list[bytes]:
        """The lines of a block that are to be written, each with its line feed."""
        if block.is_rest:
            return self._rest(block)
        text = block.octets
        self.lines += text.count(b"\n") + (not text.endswith(b"\n"))
        if len(text) > LINE_BYTES_MAX:
            self.long_lines += _longer(text)
        written: list[bytes] = []
        unmatched_from = 0
        self._is_passed, self._open_matches = self._invert, ()
        for begin, end, matches in lines_around(text, self._matcher.search(text)):
            keys = [
                key
                for match in matches
                if match.end - begin <= SEARCHED_BYTES
                and (key := self._matcher.lookup(match.packed)) is not None
            ]
            if not keys:
                continue
            self._count(keys)
            if self._invert:
                written.append(text[unmatched_from:begin])
                unmatched_from = end
                self._is_passed = not block.is_open
            elif block.is_open:
                self._is_passed, self._open_matches = True, keys
                written.append(text)
            else:
                written.append(self._line(text[begin:end], keys))
        if self._invert:
            rest = text[unmatched_from:]
            written.append(rest if block.is_open or not rest else _ended(rest))
        return written

    def finish(self) -> list[bytes]:
        """What is missing where the input ended within a long line."""
        octets = self._end(b"") if self._is_passed and self._open_matches else b""
        self._open_matches = ()
        return [octets] if octets else []

    def _count(self, keys: Sequence[bytes]) -> None:
        self.matching += 1
        if self._counts is not None:
            self._counts.update(set(keys))

    def _rest(self, block: Block) -> list[bytes]:
        """The rest of a long line goes where its beginning went."""
        if not self._is_passed:
            return []
        if block.is_open:
            return [block.octets]
        octets = self._end(block.octets)
        self._open_matches = ()
        return [octets]

    def _line(self, line: bytes, keys: Sequence[bytes]) -> bytes:
        if self._annotate is None:
            return _ended(line)
        body, end = _body_and_end(line)
        return self._annotate(body, list(dict.fromkeys(keys))) + end

    def _end(self, octets: bytes) -> bytes:
        """The last piece of a long line: columns can still be added to it, JSON cannot."""
        if self._annotate is None or not self._open_matches:
            return _ended(octets)
        body, end = _body_and_end(octets)
        columns = self._annotate(b"", list(dict.fromkeys(self._open_matches)))
        return body + columns + end


def _ended(line: bytes) -> bytes:
    return line if line.endswith(b"\n") else line + b"\n"


def _body_and_end(line: bytes) -> tuple[bytes, bytes]:
    if line.endswith(b"\r\n"):
        return line[:-2], b"\r\n"
    return (line[:-1] if line.endswith(b"\n") else line), b"\n"


def _longer(text: bytes) -> int:
    """How many lines are longer than is searched."""
    return sum(len(line) > LINE_BYTES_MAX for line in chain(text.split(b"\n")))
