"""Discard content: octets after DATA up to the dot are counted and searched, never kept.

Pure, and separate from the dialogue, because neither the end of content nor a match in it may
depend on how it was split into pieces. Up to four octets that may begin an end are held until the
next piece, and those that may begin one of the sensor's names, if these are searched; then they are
erased. Base64 and quoted-printable text is not decoded. It follows RFC 5321 sections 4.1.1.4 and
4.5.2; a bare LF, or LF CR, ends a line (which 2.3.8 forbids) only for a client whose DATA command
ended in the same way, so content is never read as commands.
"""

import re
from typing import Final

from .erase import erase
from .names import BEFORE, BEHIND, SensorNames

_END_CRLF: Final = b"\r\n.\r\n"
_END_LF: Final = re.compile(rb"\n\r?\.\r?\n")
#: Ends if the dot is the first line: the line end before it is that of the command.
_STARTS_CRLF: Final = (b".\r\n",)
_STARTS_LF: Final = (b".\r\n", b".\n", b"\r.\n", b"\r.\r\n")
#: Octets of an unfinished end that are held back.
_TAIL: Final = len(_END_CRLF) - 1

#: What ``Content.skip`` returns.
MORE, ENDED, TOO_MUCH = range(3)


class Content:
    """The content of one message, until its end or the bound."""

    __slots__ = ("_at_start", "_by_lf", "_counted", "_names", "held", "left", "names_sensor")

    def __init__(self, limit_bytes: int, *, by_lf: bool, names: SensorNames | None = None) -> None:
        """Begin.

        Args:
            limit_bytes: octets that are allowed.
            by_lf: whether a bare LF, or LF CR, ends a line.
            names: names to search for, or None.
        """
        self._by_lf, self._names = by_lf, names
        self._at_start = True
        #: Octets of ``held`` that are counted already: a name may begin in them, but not the end.
        self._counted = 0
        #: Whether the content contains one of the names.
        self.names_sensor = False
        #: Octets that are still allowed; the end is not content.
        self.left = limit_bytes
        #: Octets to put before the next piece; the dialogue erases them.
        self.held = bytearray()

    def skip(self, octets: bytearray, at: int) -> tuple[int, int]:
        """Skip from ``at`` on.

        Returns:
            MORE, ENDED or TOO_MUCH; and where the next command begins, if it ended.
        """
        end = len(octets)
        self.held = bytearray()
        if self._at_start:
            starts = _STARTS_LF if self._by_lf else _STARTS_CRLF
            for dot in starts:
                if octets.startswith(dot, at):
                    return ENDED, at + len(dot)
            if end - at < len(starts[-1]) and any(dot.startswith(octets[at:]) for dot in starts):
                self.held = octets[at:]
                return MORE, end
            self._at_start = False
        begins = at + self._counted
        ends_at, next_at = self._find_dot(octets, begins)
        stop = ends_at if ends_at >= 0 else max(begins, end - _TAIL)
        is_too_much = stop - begins > self.left
        if self._names is not None:
            # The octets after a name decide whether it is a name; the last one has none.
            has_ended = ends_at >= 0 and not is_too_much
            until = min(stop, begins + self.left) - (0 if has_ended else BEHIND)
            self._search(self._names, octets, at, begins - BEHIND, until)
        if is_too_much:
            return TOO_MUCH, end
        self.left -= stop - begins
        if ends_at >= 0:
            return ENDED, next_at
        keeps = 0 if self._names is None else self._names.longest + BEHIND + BEFORE
        holds_from = max(at, stop - keeps)
        self._counted = stop - holds_from
        self.held = octets[holds_from:]
        return MORE, end

    def _find_dot(self, octets: bytearray, at: int) -> tuple[int, int]:
        if not self._by_lf:
            ends_at = octets.find(_END_CRLF, at)
            return ends_at, ends_at + len(_END_CRLF)
        match = _END_LF.search(octets, at)
        return match.span() if match else (-1, -1)

    def _search(
        self, names: SensorNames, octets: bytearray, start: int, judged: int, until: int
    ) -> None:
        """Search from ``start`` for names that end after ``judged``, but not after ``until``."""
        text = octets[start : until + BEHIND]
        lower = text.lower()
        if names.occur_outside_mailboxes(lower, judged - start, until - start):
            self.names_sensor = True
            self._names = None
        erase(text)
        erase(lower)
