"""The bounds of new addresses per IPv6 /64 and day, and of prefixes."""

import tracemalloc

from hypothesis import given
from hypothesis import strategies as st

from smtpfeeds_common.spool.admission import PrefixAdmission


def address(prefix: int, interface_id: int) -> bytes:
    return prefix.to_bytes(8) + interface_id.to_bytes(8)


def test_addresses_of_a_prefix_are_bounded_and_those_admitted_stay_so() -> None:
    admission = PrefixAdmission(4, 10)
    assert [admission.admits(address(1, n)) for n in range(6)] == [True] * 4 + [False] * 2
    assert [admission.admits(address(1, n)) for n in range(6)] == [True] * 4 + [False] * 2
    assert admission.admits(address(2, 5))


def test_one_more_prefix_than_are_watched_opens_no_full_one_again() -> None:
    """At the bound an unknown prefix counts as crowded; only a new day makes room."""
    admission = PrefixAdmission(1, 3)
    assert [admission.admits(address(n, 1)) for n in range(3)] == [True] * 3
    assert not admission.admits(address(3, 1))
    assert not admission.admits(address(0, 2))
    assert admission.admits(address(0, 1))
    admission.begin_day()
    assert admission.admits(address(3, 1))
    assert admission.admits(address(0, 2))


def test_octets_of_two_neighbours_are_no_address() -> None:
    admission = PrefixAdmission(2, 1)
    assert admission.admits(address(1, 0x0102030405060708))
    assert admission.admits(address(1, 0x1112131415161718))
    assert not admission.admits(address(1, 0x0506070811121314))


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 300) | st.just(1 << 56)), max_size=200))
def test_it_does_as_sets_would(addresses: list[tuple[int, int]]) -> None:
    admission, admitted = PrefixAdmission(3, 4), dict[int, set[int]]()
    for prefix, interface_id in addresses:
        known = admitted.get(prefix, set())
        expected = interface_id in known or (
            len(known) < 3 and (prefix in admitted or len(admitted) < 4)
        )
        if expected:
            admitted.setdefault(prefix, set()).add(interface_id)
        assert admission.admits(address(prefix, interface_id)) is expected


def test_memory_of_a_whole_48_is_bounded() -> None:
    """65,536 prefixes of 64 addresses take 33.5 MB, and the memory of the prefixes."""
    tracemalloc.start()
    try:
        admission = PrefixAdmission(64, 65_536)
        for prefix in range(65_536):
            admission.admits(address(0x20010DB800000000 + prefix, 1))
        for prefix in range(65_536, 70_000):
            assert not admission.admits(address(0x20010DB800000000 + prefix, 1))
        for interface_id in range(200):
            admission.admits(address(0x20010DB800000000, interface_id))
        used, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert used < 46_000_000
