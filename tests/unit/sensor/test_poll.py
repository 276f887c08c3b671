"""The sensor's reactor serves ready descriptors as Twisted's does, even if they change."""

import socket
import time
from collections.abc import Callable, Iterator
from typing import cast

import pytest
from twisted.internet.interfaces import IReadDescriptor
from twisted.python.failure import Failure

from smtpfeeds_sensor.edge.poll import SensorReactor


class Reader:
    """A readable socket, which calls a test's function when it is read."""

    def __init__(self, reactor: SensorReactor, then: Callable[[], None] = lambda: None) -> None:
        self.socket, self.peer = socket.socketpair()
        self.peer.send(b"x")
        self.then = then
        self.served = 0
        self.lost: list[Failure] = []
        reactor.addReader(descriptor(self))

    def fileno(self) -> int:
        return self.socket.fileno()

    def doRead(self) -> None:
        self.socket.recv(1)
        self.served += 1
        self.then()

    def connectionLost(self, reason: Failure) -> None:
        self.lost.append(reason)

    def close(self) -> None:
        self.socket.close()
        self.peer.close()


def descriptor(reader: Reader) -> IReadDescriptor:
    """A reader under the interface that it has: type checkers cannot follow zope's."""
    return cast("IReadDescriptor", reader)


@pytest.fixture
def reactor() -> Iterator[SensorReactor]:
    reactor = SensorReactor()
    yield reactor
    for left in reactor.removeAll():
        if isinstance(left, Reader):
            left.close()


def test_all_ready_sockets_are_served_in_one_turn(reactor: SensorReactor) -> None:
    readers = [Reader(reactor) for _ in range(5)]
    reactor.doPoll(0)
    assert [one.served for one in readers] == [1] * 5
    reactor.doPoll(0)
    assert [one.served for one in readers] == [1] * 5


def test_socket_removed_in_the_same_turn_is_not_served(reactor: SensorReactor) -> None:
    first, second = Reader(reactor), Reader(reactor)
    first.then = lambda: reactor.removeReader(descriptor(second))
    second.then = lambda: reactor.removeReader(descriptor(first))
    reactor.doPoll(0)
    assert first.served + second.served == 1
    reactor.removeAll()
    first.close()
    second.close()


def test_error_of_one_socket_ends_only_that(reactor: SensorReactor) -> None:
    def fail() -> None:
        raise ZeroDivisionError

    bad, good = Reader(reactor, fail), Reader(reactor)
    reactor.doPoll(0)
    assert bad.lost[0].check(ZeroDivisionError)
    assert (good.served, good.lost) == (1, [])
    assert bad not in reactor.getReaders()
    bad.close()


def test_error_of_a_closed_socket_does_not_affect_another(reactor: SensorReactor) -> None:
    """An error can follow the close, such as one in a callback."""

    def close_and_fail() -> None:
        reactor.removeReader(descriptor(bad))
        bad.close()
        raise ZeroDivisionError

    bad, good = Reader(reactor, close_and_fail), Reader(reactor)
    reactor.doPoll(0)
    assert (good.served, good.lost) == (1, [])
    assert reactor.getReaders().count(descriptor(good)) == 1
    assert descriptor(bad) not in reactor.getReaders()


def test_octets_of_a_peer_that_has_closed_are_read_first(reactor: SensorReactor) -> None:
    reader = Reader(reactor)
    reader.peer.close()
    reactor.doPoll(0)
    assert (reader.served, reader.lost) == (1, [])


def test_time_is_monotonic(reactor: SensorReactor, monkeypatch: pytest.MonkeyPatch) -> None:
    """A timer is due after its wait, regardless of the wall clock."""
    due: list[float] = []
    monkeypatch.setattr(time, "time", lambda: 0.0)
    before = time.monotonic()
    reactor.callLater(0.0, lambda: due.append(reactor.seconds()))
    reactor.runUntilCurrent()
    assert before <= due[0] <= time.monotonic()
