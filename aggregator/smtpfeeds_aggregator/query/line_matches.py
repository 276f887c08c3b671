"""Find the lines of a block that contain a known address, as columns."""

from collections.abc import Iterator
from typing import Final

import numpy as np
import numpy.typing as npt

from smtpfeeds_common.addresses import IPv4_BYTES

from .text_addresses import TextMatcher

Lines = npt.NDArray[np.intp]
_FIRST: Final = np.zeros(1, dtype=np.intp)


class LineMatches:
    """The matches of one block of lines."""

    def __init__(self, text: bytes, matcher: TextMatcher, searched_bytes: int) -> None:
        """Search the block.

        Args:
            text: lines; the last one may lack its line feed.
            matcher: the known addresses.
            searched_bytes: an address that ends later in its line does not count.
        """
        self._matcher = matcher
        feeds = np.flatnonzero(np.frombuffer(text, dtype=np.uint8) == ord("\n"))
        ends = feeds + 1
        if not text.endswith(b"\n"):
            ends = np.append(ends, len(text))
        #: Start of each line, and start of the next one.
        self.begins: Lines = np.concatenate((_FIRST, ends[:-1]))
        self.ends: Lines = ends
        matches = matcher.find(text)
        others = matches.others
        starts = np.array([match.start for match in others], dtype=np.intp)
        stops = np.array([match.end for match in others], dtype=np.intp)
        self._starts = np.concatenate((matches.starts, starts))
        self._of_match = np.searchsorted(feeds, self._starts)
        every_stop = np.concatenate((matches.ends, stops))
        self._counts = every_stop - self.begins[self._of_match] <= searched_bytes
        self._quads, self._others = matches.quads, others
        #: The numbers of the lines that match, in order.
        self.lines: Lines = _different(self._of_match[self._counts])

    def pairs(self) -> Iterator[tuple[int, bytes]]:
        """Return each pair of line and known address once, in the order of the text."""
        quads = [quad.to_bytes(IPv4_BYTES) for quad in self._quads.tolist()]
        packed = [*quads, *(self._matcher.lookup(match.packed) for match in self._others)]
        lines, counts = self._of_match.tolist(), self._counts.tolist()
        seen: set[bytes] = set()
        line_before = -1
        for place in np.argsort(self._starts, kind="stable").tolist():
            key = packed[place]
            if not counts[place] or key is None:
                continue
            if lines[place] != line_before:
                line_before = lines[place]
                seen = set()
            if key not in seen:
                seen.add(key)
                yield line_before, key

    def runs(self, lines: Lines) -> Iterator[tuple[int, int]]:
        """Yield start and end of each run of adjacent lines."""
        if not len(lines):
            return
        breaks = np.flatnonzero(np.diff(lines) != 1)
        firsts = np.concatenate(([0], breaks + 1))
        lasts = np.append(breaks, len(lines) - 1)
        yield from zip(
            self.begins[lines[firsts]].tolist(), self.ends[lines[lasts]].tolist(), strict=True
        )

    def other_lines(self) -> Lines:
        """Return the lines that do not match."""
        wanted = np.ones(len(self.ends), dtype=bool)
        wanted[self.lines] = False
        return np.flatnonzero(wanted)


def _different(lines: Lines) -> Lines:
    """Return each number once, in order; importing `np.unique` takes a hundredth of a second."""
    ordered = np.sort(lines)
    is_other = np.ones(len(ordered), dtype=bool)
    is_other[1:] = ordered[1:] != ordered[:-1]
    return ordered[is_other]
