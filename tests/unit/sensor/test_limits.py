"""Bounds per source and in time, and networks."""

from smtpfeeds_common.addresses import pack_address
from smtpfeeds_sensor.edge.limits import Deadlines, Networks, SourceLimits


def test_connections_of_a_source_are_bounded() -> None:
    limits = SourceLimits(per_source=2, per_second=100)
    ip = pack_address("192.0.2.1")
    assert [limits.enter(ip) for _ in range(3)] == [True, True, False]
    limits.leave(ip)
    assert limits.enter(ip)
    assert limits.enter(pack_address("192.0.2.2"))


def test_ipv6_is_counted_by_its_64() -> None:
    limits = SourceLimits(per_source=2, per_second=100)
    assert limits.enter(pack_address("2001:db8::1"))
    assert limits.enter(pack_address("2001:db8::2"))
    assert not limits.enter(pack_address("2001:db8::3"))
    assert limits.enter(pack_address("2001:db8:0:1::3"))
    assert limits.sources == 2


def test_table_holds_open_connections_only() -> None:
    limits = SourceLimits(per_source=2, per_second=100)
    for number in range(1000):
        ip = number.to_bytes(4)
        limits.enter(ip)
        limits.leave(ip)
    assert limits.sources == 0


def test_accepted_connections_per_second_are_bounded() -> None:
    limits = SourceLimits(per_source=1, per_second=3)
    assert [limits.may_accept(10.1 + number / 10) for number in range(5)] == [True] * 3 + [
        False
    ] * 2
    assert limits.may_accept(11.0)


def test_networks() -> None:
    networks = Networks(["192.0.2.0/24", "2001:db8::/32", "::ffff:198.51.100.0/120"])
    for inside in ("192.0.2.255", "2001:db8:ffff::1", "198.51.100.9"):
        assert pack_address(inside) in networks
    for outside in ("192.0.3.0", "2001:db9::", "203.0.113.1", "::1"):
        assert pack_address(outside) not in networks
    assert not Networks(())


class Timed:
    due = 0

    def __init__(self, again: int = 0) -> None:
        self.again = again
        self.asked: list[int] = []

    def check_time(self, now: int) -> int:
        self.asked.append(now)
        return self.again and now + self.again


def test_deadline_comes_once_or_again_as_answered() -> None:
    wheel = Deadlines()
    once, again, gone = Timed(), Timed(3), Timed()
    for timed in (once, again, gone):
        wheel.add(timed, wheel.now + 2)
    wheel.discard(gone)
    for _ in range(10):
        wheel.advance()
    assert once.asked == [3]
    assert again.asked == [3, 6, 9]
    assert gone.asked == []


def test_deadline_in_the_past_comes_at_the_next_tick() -> None:
    wheel = Deadlines()
    wheel.advance(5)
    late = Timed()
    wheel.add(late, 2)
    wheel.advance()
    assert late.asked == [7]


def test_deadline_may_remove_another_in_the_same_tick() -> None:
    wheel = Deadlines()

    class Killer(Timed):
        def check_time(self, now: int) -> int:
            wheel.discard(other)
            return super().check_time(now)

    killer, other = Killer(), Timed()
    wheel.add(killer, 5)
    wheel.add(other, 9)
    for _ in range(20):
        wheel.advance()
    assert (killer.asked, other.asked) == ([5], [])


def test_suspended_process_does_not_time_out_every_client() -> None:
    wheel = Deadlines()
    idle = Timed()
    wheel.add(idle, wheel.now + 60)
    wheel.advance(3_600)
    assert idle.asked == []
    assert wheel.now == 1 + Deadlines.MOST_TICKS
