"""Dotted quads of a set in octets, column by column: a whole block of lines at once.

What stands free, between blanks, brackets or quotes, is decided here. What stands
beside anything else is doubtful: the exact rule of ``text_addresses`` decides it.
"""

from collections.abc import Iterable
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

#: Dots of a plain quad are at most this far apart.
_GAP: Final = 4
#: Octets of padding on either side: no index leaves the block.
_PAD: Final = 4
_NOT_A_DIGIT: Final = 0xFF

Octets = npt.NDArray[np.uint8]
Places = npt.NDArray[np.intp]
Numbers = npt.NDArray[np.uint32]


def _table(members: bytes) -> npt.NDArray[np.bool_]:
    table = np.zeros(256, dtype=bool)
    table[list(members)] = True
    return table


#: No word, no IPv6 address and no defanged dot goes on over these. As padding stands a line feed.
_FREE_BEFORE: Final = _table(b" \t\n\r[(<\"'=,;|")
_FREE_BEHIND: Final = _table(b" \t\n\r])>\"',;|")


class Quads(NamedTuple):
    """Quads of the set in a block."""

    starts: Places
    ends: Places
    numbers: Numbers
    #: First dots of those that the exact rule decides.
    doubtful: Places


class PlainQuads:
    """A set of IPv4 addresses, to be found in plain form."""

    def __init__(self, quads: Iterable[int]) -> None:
        self._quads = np.unique(np.fromiter(quads, dtype=np.uint32))
        # A bit for each upper half of a quad answers most questions without a search.
        self._upper = np.zeros(1 << 16, dtype=bool)
        self._upper[self._quads >> 16] = True

    def find(self, octets: Octets, dots: Places) -> Quads:
        """The quads of the set, by the places of all dots."""
        if len(dots) < 3 or not len(self._quads):
            return Quads(dots[:0], dots[:0], self._quads[:0], dots[:0])
        gap_1, gap_2 = dots[1:-1] - dots[:-2], dots[2:] - dots[1:-1]
        fits = (gap_1 >= 2) & (gap_1 <= _GAP) & (gap_2 >= 2) & (gap_2 <= _GAP)
        first = dots[:-2][fits]
        second = first + gap_1[fits]
        last = second + gap_2[fits]
        digits = np.full(len(octets) + 2 * _PAD, _NOT_A_DIGIT, dtype=np.uint8)
        digits[_PAD:-_PAD] = octets - ord("0")
        numbers = (
            (_number_before(digits, first) << 24)
            | (_number_before(digits, second) << 16)
            | (_number_before(digits, last) << 8)
            | _number_behind(digits, last)
        ).astype(np.uint32, copy=False)
        near = np.flatnonzero(self._upper[numbers >> 16])
        where = np.searchsorted(self._quads, numbers[near])
        where[where == len(self._quads)] = 0
        known = near[self._quads[where] == numbers[near]]
        return _decided(octets, digits, first[known], second[known], last[known], numbers[known])


def _decided(
    octets: Octets, digits: Octets, first: Places, second: Places, last: Places, numbers: Numbers
) -> Quads:
    """Which of the quads stand free and are written as a number is."""
    length_1, is_good_1 = _octet_before(digits, first)
    _, is_good_2 = _octet_before(digits, second)
    _, is_good_3 = _octet_before(digits, last)
    length_4, is_good_4 = _octet_behind(digits, last)
    starts, ends = first - length_1, last + 1 + length_4
    padded = np.full(len(octets) + 2, ord("\n"), dtype=np.uint8)
    padded[1:-1] = octets
    is_free = _FREE_BEFORE[padded[starts]] & _FREE_BEHIND[padded[ends + 1]]
    decided = is_free & is_good_1 & is_good_2 & is_good_3 & is_good_4
    return Quads(starts[decided], ends[decided], numbers[decided], first[~decided])


def _octet_before(digits: Octets, end: Places) -> tuple[Places, npt.NDArray[np.bool_]]:
    """How many digits stand before a place, at most three, and whether they are an octet."""
    at = end + _PAD
    ones, tens, hundreds = (digits[at - back].astype(np.int64) for back in (1, 2, 3))
    return _octet(ones, tens, hundreds, tens <= 9, hundreds <= 9)


def _octet_behind(digits: Octets, before: Places) -> tuple[Places, npt.NDArray[np.bool_]]:
    """The same of the digits behind a place."""
    at = before + _PAD
    one, two, three = (digits[at + ahead].astype(np.int64) for ahead in (1, 2, 3))
    has_two = two <= 9
    has_three = has_two & (three <= 9)
    ones = np.where(has_three, three, np.where(has_two, two, one))
    tens = np.where(has_three, two, one)
    return _octet(ones, tens, one, has_two, has_three)


def _octet(
    ones: npt.NDArray[np.int64],
    tens: npt.NDArray[np.int64],
    hundreds: npt.NDArray[np.int64],
    has_tens: npt.NDArray[np.bool_],
    has_hundreds: npt.NDArray[np.bool_],
) -> tuple[Places, npt.NDArray[np.bool_]]:
    has_hundreds = has_hundreds & has_tens
    length = 1 + has_tens.astype(np.intp) + has_hundreds
    value = ones + np.where(has_tens, tens * 10, 0) + np.where(has_hundreds, hundreds * 100, 0)
    leading = np.where(has_hundreds, hundreds, np.where(has_tens, tens, 1))
    return length, (value <= 255) & (leading > 0)


def _number_before(digits: Octets, end: Places) -> Numbers:
    """The decimal number of up to three digits that ends before a place, modulo 256."""
    at = end + _PAD
    ones, tens, hundreds = (digits[at - back].astype(np.uint32) for back in (1, 2, 3))
    has_tens = tens <= 9
    ones[has_tens] += tens[has_tens] * 10
    has_hundreds = has_tens & (hundreds <= 9)
    ones[has_hundreds] += hundreds[has_hundreds] * 100
    ones &= 0xFF
    return ones


def _number_behind(digits: Octets, before: Places) -> Numbers:
    """The decimal number of up to three digits that begins behind a place, modulo 256."""
    at = before + _PAD
    number, second, third = (digits[at + ahead].astype(np.uint32) for ahead in (1, 2, 3))
    has_second = second <= 9
    number[has_second] = number[has_second] * 10 + second[has_second]
    has_third = has_second & (third <= 9)
    number[has_third] = number[has_third] * 10 + third[has_third]
    number &= 0xFF
    return number
