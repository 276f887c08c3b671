"""Find dotted quads of a set in octets, by columns: a whole block of lines at once.

This module decides about quads between blanks, brackets or quotes. Quads next to anything else are
doubtful: the exact rule of ``text_addresses`` decides about them.
"""

from collections.abc import Iterable
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from smtpfeeds_common.addresses import IPv4_BYTES

#: Dots of a plain quad are two to this many octets apart.
_GAP: Final = 4
#: Put around a block, so that no index leaves it; it ends every word.
PADDING: Final = b"\n" * 4
_PAD: Final = len(PADDING)
_ZERO: Final = ord("0")

Octets = npt.NDArray[np.uint8]
Places = npt.NDArray[np.intp]
Numbers = npt.NDArray[np.uint32]
Mask = npt.NDArray[np.bool_]


def _table(members: bytes) -> Mask:
    table = np.zeros(256, dtype=bool)
    table[list(members)] = True
    return table


#: These end a word, an IPv6 address and a defanged dot.
_FREE_BEFORE: Final = _table(b" \t\n\r[(<\"'=,;|")
_FREE_BEHIND: Final = _table(b" \t\n\r])>\"',;|")


class Quads(NamedTuple):
    """The quads of the set in a block."""

    starts: Places
    ends: Places
    numbers: Numbers
    #: The first dots of quads about which the exact rule decides.
    doubtful: Places


def numbers_of(packed: Iterable[bytes]) -> Numbers:
    """Return IPv4 addresses of four octets each as numbers."""
    return np.frombuffer(b"".join(packed), dtype=">u4").astype(np.uint32)


def quads_in_lines(lines: bytes) -> Numbers | None:
    """Return the quads in lines that contain nothing else; None if a line is not a quad.

    Args:
        lines: each with its line feed.
    """
    padded = np.frombuffer(b"".join((PADDING, lines, PADDING)), dtype=np.uint8)
    octets = padded[_PAD:-_PAD]
    ends, dots = np.flatnonzero(octets == ord("\n")), np.flatnonzero(octets == ord("."))
    if len(dots) != 3 * len(ends):
        return None
    three = dots.reshape(-1, 3).T
    # The characters before each octet and after the last.
    edges = np.concatenate((np.append(-1, ends[:-1])[: len(ends)], *three, ends))
    edges = edges.reshape(5, -1)
    are_quads = np.ones(len(ends), dtype=bool)
    for number in range(3):
        length, is_good = _octet_before(padded, edges[number + 1])
        are_quads &= is_good & (edges[number + 1] - length == edges[number] + 1)
    length, is_good = _octet_behind(padded, edges[3])
    are_quads &= is_good & (edges[3] + 1 + length == edges[4])
    return _numbers(padded, np.concatenate(three)) if are_quads.all() else None


class PlainQuads:
    """Finds the addresses of a set of IPv4 addresses in plain form."""

    def __init__(self, quads: Numbers) -> None:
        self._quads = np.sort(quads)
        # One bit for each upper half of a quad rejects most quads without a search.
        self._upper = np.zeros(1 << 16, dtype=bool)
        self._upper[self._quads >> 16] = True

    def __contains__(self, packed: bytes) -> bool:
        """Return whether an address of four octets is in the set."""
        number = np.array([int.from_bytes(packed)], dtype=np.uint32)
        return len(packed) == IPv4_BYTES and bool(self._are_known(number)[0])

    def find(self, padded: Octets, dots: Places) -> Quads:
        """Return the quads of the set.

        Args:
            padded: a block with ``PADDING`` before and after it.
            dots: the places of all dots in the block.
        """
        if len(dots) < 3 or not len(self._quads):
            return Quads(dots[:0], dots[:0], self._quads[:0], dots[:0])
        gaps = dots[1:] - dots[:-1]
        is_near = (gaps >= 2) & (gaps <= _GAP)
        fits = np.flatnonzero(is_near[:-1] & is_near[1:])
        three = dots[np.concatenate((fits, fits + 1, fits + 2))]
        first, second, last = three.reshape(3, -1)
        numbers = _numbers(padded, three)
        near = np.flatnonzero(self._upper[numbers >> 16])
        known = near[self._are_known(numbers[near])]
        return _decided(padded, first[known], second[known], last[known], numbers[known])

    def _are_known(self, numbers: Numbers) -> Mask:
        if not len(self._quads):
            return np.zeros(len(numbers), dtype=bool)
        where = np.searchsorted(self._quads, numbers)
        where[where == len(self._quads)] = 0
        known: Mask = self._quads[where] == numbers
        return known


def _decided(
    padded: Octets, first: Places, second: Places, last: Places, numbers: Numbers
) -> Quads:
    """Return which quads are delimited, and have numbers without leading zeros."""
    length_1, is_good_1 = _octet_before(padded, first)
    _, is_good_2 = _octet_before(padded, second)
    _, is_good_3 = _octet_before(padded, last)
    length_4, is_good_4 = _octet_behind(padded, last)
    starts, ends = first - length_1, last + 1 + length_4
    is_free = _FREE_BEFORE[padded[starts + _PAD - 1]] & _FREE_BEHIND[padded[ends + _PAD]]
    decided = is_free & is_good_1 & is_good_2 & is_good_3 & is_good_4
    return Quads(starts[decided], ends[decided], numbers[decided], first[~decided])


def _numbers(padded: Octets, dots: Places) -> Numbers:
    """Return the quads as numbers.

    Args:
        padded: the block, between two times ``PADDING``.
        dots: the first dots of all quads, then the second, then the third.
    """
    numbers = np.zeros(len(dots) // 3, dtype=np.uint32)
    for octet in (
        *_numbers_before(padded, dots).reshape(3, -1),
        _numbers_behind(padded, dots.reshape(3, -1)[2]),
    ):
        numbers <<= 8
        numbers |= octet
    return numbers


def _octet_before(padded: Octets, end: Places) -> tuple[Places, Mask]:
    """Return the number of digits before a place, at most three, and whether they form an octet."""
    ones, tens, hundreds = _digits(padded, end, (-1, -2, -3))
    return _octet(ones, tens, hundreds, tens <= 9, hundreds <= 9)


def _octet_behind(padded: Octets, before: Places) -> tuple[Places, Mask]:
    """Return the same for the digits after a place."""
    one, two, three = _digits(padded, before, (1, 2, 3))
    has_two = two <= 9
    has_three = has_two & (three <= 9)
    ones = np.where(has_three, three, np.where(has_two, two, one))
    tens = np.where(has_three, two, one)
    return _octet(ones, tens, one, has_two, has_three)


def _octet(
    ones: Octets, tens: Octets, hundreds: Octets, has_tens: Mask, has_hundreds: Mask
) -> tuple[Places, Mask]:
    has_hundreds = has_hundreds & has_tens
    length = 1 + has_tens.astype(np.intp) + has_hundreds
    number = (
        ones
        + np.where(has_tens, tens * 10, 0)
        + np.where(has_hundreds, hundreds.astype(np.uint16) * 100, 0)
    )
    leading = np.where(has_hundreds, hundreds, np.where(has_tens, tens, 1))
    return length, (ones <= 9) & (number <= 255) & (leading > 0)


def _numbers_before(padded: Octets, ends: Places) -> Octets:
    """Return the decimal numbers of up to three digits that end before places, modulo 256."""
    ones, tens, hundreds = _digits(padded, ends, (-1, -2, -3))
    has_tens = tens <= 9
    return ones + has_tens * (tens * 10 + (hundreds <= 9) * (hundreds * 100))


def _numbers_behind(padded: Octets, before: Places) -> Octets:
    """Return the decimal numbers of up to three digits that begin after places, modulo 256."""
    number, second, third = _digits(padded, before, (1, 2, 3))
    has_second = second <= 9
    # Ten times the number plus the next digit, if there is one.
    number += has_second * (number * 9 + second)
    number += (has_second & (third <= 9)) * (number * 9 + third)
    return number


def _digits(padded: Octets, places: Places, offsets: tuple[int, int, int]) -> list[Octets]:
    """Return the digits at three places; a value above 9 is not a digit."""
    return [padded[places + (_PAD + offset)] - _ZERO for offset in offsets]
