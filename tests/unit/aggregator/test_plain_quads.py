"""Lines that hold nothing but a dotted quad become numbers, all at once."""

from __future__ import annotations

from ipaddress import AddressValueError, IPv4Address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from smtpfeeds_aggregator.query.plain_quads import quads_in_lines

ADDRESSES = st.integers(0, 2**32 - 1).map(lambda number: str(IPv4Address(number)))
#: What may stand beside a digit or in its place.
OTHERS = st.sampled_from([*"0129. -", "\t", "\r", "é", ""])


@given(st.lists(ADDRESSES, max_size=20))
def test_quads_are_the_numbers_of_the_addresses(texts: list[str]) -> None:
    numbers = quads_in_lines("".join(f"{text}\n" for text in texts).encode())
    assert numbers is not None
    assert numbers.tolist() == [int(IPv4Address(text)) for text in texts]


@given(st.lists(ADDRESSES, min_size=1, max_size=3), st.integers(0, 50), st.booleans(), OTHERS)
def test_one_wrong_octet_is_seen(texts: list[str], at: int, is_added: bool, other: str) -> None:
    line = texts[-1]
    place = at % (len(line) + 1)
    changed = line[:place] + other + line[place + (not is_added) :]
    numbers = quads_in_lines("".join(f"{text}\n" for text in [*texts[:-1], changed]).encode())
    try:
        expected = int(IPv4Address(changed))
    except AddressValueError:
        assert numbers is None
    else:
        assert numbers is not None
        assert numbers[-1] == expected


@pytest.mark.parametrize("lines", [b"\n", b"1.2.3\n", b"1.2.3.4.5\n1.2.3\n", b"1.2.3.4", b"..."])
def test_another_number_of_dots_is_seen(lines: bytes) -> None:
    assert quads_in_lines(lines) is None
