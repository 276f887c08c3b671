"""The setting ``listen``, and the bit of an address in ``targets``."""

import os

import pytest

from smtpfeeds_common.addresses import pack_address
from smtpfeeds_common.errors import SettingsError
from smtpfeeds_sensor.edge.listen import count_addresses, parse_listen, passed_sockets, target_bit


def shown(*texts: str) -> list[str]:
    return [str(place) for place in parse_listen(texts, 0)]


def test_addresses_prefixes_and_wildcards() -> None:
    assert shown("192.0.2.1:25", "[2001:DB8::1]:2525") == ["192.0.2.1:25", "[2001:db8::1]:2525"]
    assert shown("192.0.2.0/30:25") == [f"192.0.2.{number}:25" for number in range(4)]
    assert shown("[2001:db8::/127]:25") == ["[2001:db8::]:25", "[2001:db8::1]:25"]
    assert shown("*:25") == ["0.0.0.0:25", "[::]:25"]


def test_port_0_may_be_listed_repeatedly() -> None:
    assert len(shown("127.0.0.1:0", "127.0.0.1:0")) == 2


def test_systemd_sockets_by_index() -> None:
    places = parse_listen(["systemd:*"], 3)
    assert [place.systemd for place in places] == [0, 1, 2]
    for text, passed in (("systemd:1", 1), ("systemd:*", 0), ("systemd:0", 0)):
        with pytest.raises(SettingsError, match=f"passes {passed}"):
            parse_listen([text], passed)


def test_unknown_number_of_systemd_sockets_is_accepted() -> None:
    assert [place.systemd for place in parse_listen(["systemd:7"], None)] == [7]
    assert [place.systemd for place in parse_listen(["systemd:*"], None)] == [0]


def test_number_of_systemd_sockets_is_read_for_this_process() -> None:
    assert passed_sockets({"LISTEN_FDS": "2"}) == 2
    assert passed_sockets({"LISTEN_FDS": "2", "LISTEN_PID": str(os.getpid())}) == 2
    assert passed_sockets({"LISTEN_FDS": "2", "LISTEN_PID": "1"}) is None
    assert passed_sockets({"LISTEN_FDS": "many"}) is None
    assert passed_sockets({}) is None


def test_bit_of_a_target_depends_on_its_address_alone() -> None:
    """A further address of a sensor must not change the bits of the others."""
    assert target_bit(pack_address("192.0.2.9")) == 16
    assert target_bit(pack_address("2001:db8::1")) == 44
    # The 64 addresses of a /26 share bits only by chance, not by the form of a checksum.
    block = {target_bit(pack_address(f"192.0.2.{n}")) for n in range(64)}
    assert len(block) > 32


def test_addresses_are_counted_as_clients_connect_to_them() -> None:
    one, two, public = (pack_address(f"192.0.2.{n}") for n in (1, 2, 3))
    assert count_addresses([one, two, one], {}) == 2
    assert count_addresses([one, two], {one: public, two: public}) == 1
    # The number of addresses of a wildcard is only known if the public ones are listed.
    assert count_addresses([None, one], {}) == 0
    assert count_addresses([None], {one: public, two: pack_address("192.0.2.4")}) == 2
