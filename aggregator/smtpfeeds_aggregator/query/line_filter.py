"""Select the lines that contain an address of the feeds, and write them.

Input and output are octets: nothing is decoded, and a line is written as it was read. The memory
used depends on the number of known addresses, not on the number of lines.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from itertools import groupby
from operator import itemgetter
from typing import Final

from .line_blocks import LINE_BYTES_MAX, Block
from .line_matches import LineMatches
from .text_addresses import TextMatcher

#: An address that ends later in its line is not searched: a long line may be split there.
SEARCHED_BYTES: Final = LINE_BYTES_MAX - 96

Annotate = Callable[[bytes, Sequence[bytes]], bytes]
"""A line without its end, and the known addresses in it: the line that is written."""


class LineFilter:
    """Takes blocks of lines and returns the lines that match."""

    def __init__(
        self,
        matcher: TextMatcher,
        *,
        invert: bool = False,
        annotate: Annotate | None = None,
        counts: Counter[bytes] | None = None,
    ) -> None:
        """Take the known addresses and the form of the output.

        Args:
            matcher: the known addresses.
            invert: return the lines that do not match.
            annotate: returns the output for a line that matches; None: the line itself.
            counts: counts the lines of each known address; then no lines are returned.
        """
        self._matcher, self._invert = matcher, invert
        self._annotate, self._counts = annotate, counts
        #: Lines read; lines that match; lines longer than the searched part.
        self.lines = self.matching = self.long_lines = 0
        self._is_passed = self._is_open = False
        self._open_matches: Sequence[bytes] = ()

    def take(self, block: Block) -> list[bytes]:
        """Return the lines of a block to write, each with its line feed."""
        if block.is_rest:
            return self._rest(block)
        text = block.octets
        if len(text) > LINE_BYTES_MAX:
            self.long_lines += _longer(text)
        matches = LineMatches(text, self._matcher, SEARCHED_BYTES)
        self.lines += len(matches.ends)
        self.matching += len(matches.lines)
        is_matching = len(matches.lines) > 0
        self._open_matches, self._is_open = (), block.is_open
        if self._counts is not None:
            self._counts.update(key for _, key in matches.pairs())
            return []
        self._is_passed = is_matching != self._invert
        if block.is_open:
            if self._annotate is not None and is_matching:
                self._open_matches = [key for _, key in matches.pairs()]
            return [text] if self._is_passed else []
        if self._annotate is not None:
            return list(self._annotated(text, matches))
        wanted = matches.other_lines() if self._invert else matches.lines
        return [_ended(text[begin:end]) for begin, end in matches.runs(wanted)]

    def _annotated(self, text: bytes, matches: LineMatches) -> Iterator[bytes]:
        begins, ends = matches.begins, matches.ends
        for line, pairs in groupby(matches.pairs(), key=itemgetter(0)):
            yield self._line(text[begins[line] : ends[line]], [key for _, key in pairs])

    def finish(self) -> list[bytes]:
        """Return the missing line end if the input ended within a long line."""
        is_open, self._is_open = self._is_open, False
        return [self._end(b"")] if is_open and self._is_passed else []

    def _rest(self, block: Block) -> list[bytes]:
        """Write the rest of a long line if its beginning was written."""
        self._is_open = block.is_open
        if not self._is_passed:
            return []
        if block.is_open:
            return [block.octets]
        return [self._end(block.octets)]

    def _line(self, line: bytes, keys: Sequence[bytes]) -> bytes:
        assert self._annotate is not None
        body, end = _body_and_end(line)
        return self._annotate(body, keys) + end

    def _end(self, octets: bytes) -> bytes:
        """Return the last piece of a long line; it can still get columns, but no JSON member."""
        if self._annotate is None or not self._open_matches:
            return _ended(octets)
        body, end = _body_and_end(octets)
        columns = self._annotate(b"", self._open_matches)
        return body + columns + end


def _ended(line: bytes) -> bytes:
    return line if line.endswith(b"\n") else line + b"\n"


def _body_and_end(line: bytes) -> tuple[bytes, bytes]:
    if line.endswith(b"\r\n"):
        return line[:-2], b"\r\n"
    return (line[:-1] if line.endswith(b"\n") else line), b"\n"


def _longer(text: bytes) -> int:
    """Return the number of lines that are longer than the searched part."""
    return sum(len(line) > LINE_BYTES_MAX for line in text.split(b"\n"))
