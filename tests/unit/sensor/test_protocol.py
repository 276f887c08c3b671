"""A connection between a transport, the dialogue and the recorder: order, bounds, the end."""

from typing import Any, cast

import pytest
from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.interfaces import IAddress
from twisted.internet.task import Clock
from twisted.python.failure import Failure

from smtpfeeds_common.addresses import pack_address
from smtpfeeds_common.behaviours import Flags
from smtpfeeds_sensor.counters import new_counters
from smtpfeeds_sensor.edge.connection import Connection, Listener, Reception
from smtpfeeds_sensor.edge.limits import Deadlines, Networks, SourceLimits
from smtpfeeds_sensor.smtp.dialogue import Rules
from smtpfeeds_sensor.smtp.personas import Personas

LOCAL = pack_address("192.0.2.25")


class FakeRecorder:
    """Holds replies until the test lets them go."""

    def __init__(self) -> None:
        self.events: list[tuple[int, bytes, int, int]] = []
        self.holders: list[Any] = []

    def hear(self, holder: Any, feed: int, ip: bytes, flags: int, target: int) -> bool:
        self.events.append((feed, ip, flags, target))
        self.holders.append(holder)
        return True

    def commit(self) -> None:
        holders, self.holders = self.holders, []
        for holder in holders:
            holder.release()


class FakeTransport:
    """A socket that takes so many octets at once, and a transport behind it."""

    def __init__(self, room: int = 1_000_000) -> None:
        self.room = room
        self.sent = b""
        self.buffered = b""
        self.end = ""
        self.client: Connection | None = None

    def getHandle(self) -> "FakeTransport":
        return self

    def getsockname(self) -> tuple[str, int]:
        return ("192.0.2.26", 25)

    def send(self, octets: bytes) -> int:
        if not self.room:
            raise BlockingIOError
        taken = octets[: self.room]
        self.room -= len(taken)
        self.sent += taken
        return len(taken)

    def write(self, octets: bytes) -> None:
        self.buffered += octets

    def connectionLost(self, reason: Failure) -> None:
        """Closed at once, and whose it is is told: as Twisted's does."""
        self.end = "closed"
        assert self.client is not None
        self.client.connectionLost(reason)

    def loseConnection(self) -> None:
        self.end = "lose"

    def loseWriteConnection(self) -> None:
        self.end = "half"

    def abortConnection(self) -> None:
        self.end = "abort"


class Set:
    def __init__(self, **changed: Any) -> None:
        self.count = new_counters()
        self.clock = Clock()
        self.recorder = FakeRecorder()
        personas = Personas(
            "plain",
            {"192.0.2.26": "postfix"},
            hostname="mx.example",
            policy_url="",
            max_content_bytes=1000,
            offer_tls=False,
        )
        settings: dict[str, Any] = {
            "rules": Rules(drain=True, max_content_bytes=1000),
            "limits": SourceLimits(per_source=2, per_second=100),
            "deadlines": Deadlines(),
            "targets": {LOCAL: 7},
        }
        self.reception = Reception(
            reactor=self.clock,
            recorder=self.recorder,  # type: ignore[arg-type] # as much of it as is used
            personas=personas,
            count=self.count,
            **(settings | changed),
        )

    def connect(
        self, ip: str = "198.51.100.1", room: int = 1_000_000, local: bytes | None = LOCAL
    ) -> tuple[Connection, FakeTransport]:
        connection = Connection(self.reception, pack_address(ip), local)
        transport = FakeTransport(room)
        transport.client = connection
        connection.makeConnection(transport)
        return connection, transport


def test_reply_to_an_event_waits_for_the_commit_and_others_do_not() -> None:
    parts = Set()
    connection, transport = parts.connect()
    connection.dataReceived(b"NOOP\r\n")
    assert transport.sent.endswith(b"250 2.0.0 OK\r\n")
    before = transport.sent
    connection.dataReceived(b"EHLO c.example.org\r\nNOOP\r\n")
    connection.dataReceived(b"QUIT\r\n")
    assert (transport.sent, transport.end) == (before, "")
    parts.recorder.commit()
    assert transport.sent.endswith(b"221 2.0.0 Bye\r\n")
    assert transport.end == "closed"
    assert parts.recorder.events == [(0, pack_address("198.51.100.1"), Flags.FULL_HOST_NAME, 7)]


def test_client_gone_before_the_commit_still_counts() -> None:
    parts = Set()
    connection, _ = parts.connect()
    connection.dataReceived(b"EHLO x\r\n")
    connection.connectionLost(Failure(ConnectionError()))
    parts.recorder.commit()
    assert len(parts.recorder.events) == 1
    assert not parts.reception.open
    assert parts.reception.limits.sources == 0


def test_wildcard_finds_the_local_address_of_each_connection() -> None:
    parts = Set()
    connection, transport = parts.connect(local=None)
    assert transport.sent == b"220 mx.example ESMTP Postfix\r\n"
    connection.dataReceived(b"EHLO x\r\n")
    assert parts.recorder.events[0][3] == parts.reception.target(pack_address("192.0.2.26"))


def test_client_that_does_not_read_is_dropped_at_the_bound() -> None:
    parts = Set(max_unsent_bytes=200)
    connection, transport = parts.connect(room=30)
    for _ in range(20):
        connection.dataReceived(b"NOOP\r\n")
    assert transport.end == "abort"
    assert len(transport.buffered) <= 200
    assert parts.count["limit_unsent"] == 1


def test_too_much_content_closes_one_side_and_gives_up_after_a_while() -> None:
    parts = Set()
    connection, transport = parts.connect()
    connection.dataReceived(b"EHLO x\r\nMAIL FROM:<>\r\nRCPT TO:<a>\r\nDATA\r\n")
    parts.recorder.commit()
    connection.dataReceived(b"x" * 5000)
    assert transport.end == "half"
    assert b"554 5.7.1" in transport.sent
    connection.dataReceived(b"y" * 5000)
    parts.reception.deadlines.advance(6)
    assert transport.end == "abort"


@pytest.mark.parametrize(
    ("settings", "counter"),
    [
        ({"idle_timeout_s": 5, "session_timeout_s": 9}, "limit_idle"),
        ({"idle_timeout_s": 9, "session_timeout_s": 5}, "limit_session"),
    ],
)
def test_time_bounds(settings: dict[str, int], counter: str) -> None:
    parts = Set(**settings)
    _, transport = parts.connect()
    parts.reception.deadlines.advance(4)
    assert transport.end == ""
    parts.reception.deadlines.advance(1)
    assert transport.end == "closed"
    assert b"421 4.4.2" in transport.sent
    assert parts.count[counter] == 1
    assert not parts.reception.open
    # Nothing is asked of one that is gone.
    parts.reception.deadlines.advance(6)
    assert transport.end == "closed"


def test_client_that_does_not_take_its_last_reply_is_cut_after_a_while() -> None:
    parts = Set(idle_timeout_s=5)
    _, transport = parts.connect(room=40)
    parts.reception.deadlines.advance(5)
    assert (transport.end, transport.buffered[-2:]) == ("lose", b"\r\n")
    parts.reception.deadlines.advance(4)
    assert transport.end == "lose"
    parts.reception.deadlines.advance(2)
    assert transport.end == "abort"


def test_octets_without_a_line_do_not_keep_a_connection() -> None:
    parts = Set(idle_timeout_s=5)
    connection, transport = parts.connect()
    for _ in range(5):
        connection.dataReceived(b"E")
        parts.reception.deadlines.advance(1)
    assert transport.end == "closed"


def test_at_the_bound_in_all_a_newcomer_is_refused_and_nobody_else_cut() -> None:
    parts = Set(max_connections=1)
    _, first = parts.connect("198.51.100.1")
    _, refused = parts.connect("198.51.100.2")
    assert (first.end, refused.end) == ("", "closed")
    assert refused.sent.startswith(b"421 4.7.0")
    assert len(parts.reception.open) == 1


def test_banner_waits_and_an_early_talker_is_noted() -> None:
    parts = Set(banner_delay_s=2.0)
    connection, transport = parts.connect()
    connection.dataReceived(b"EHLO x\r\n")
    parts.recorder.commit()
    assert transport.sent == b""
    assert parts.recorder.events[0][2] == Flags.EARLY_TALKER
    parts.clock.advance(2.0)
    assert transport.sent.startswith(b"220 mx.example ESMTP\r\n250-")


def test_banner_for_one_who_is_gone_is_not_sent() -> None:
    parts = Set(banner_delay_s=2.0)
    connection, transport = parts.connect()
    connection.connectionLost(Failure(ConnectionError()))
    parts.clock.advance(2.0)
    assert transport.sent == b""


def test_early_junk_is_closed_at_once() -> None:
    parts = Set(banner_delay_s=2.0)
    connection, transport = parts.connect()
    connection.dataReceived(b"\x16\x03\x01")
    assert transport.end == "closed"
    assert parts.recorder.events == []


def test_header_of_a_trusted_proxy_says_who_and_where() -> None:
    parts = Set(trusted_proxies=Networks(["198.51.100.0/24"]))
    connection, transport = parts.connect("198.51.100.1")
    assert transport.sent == b""
    connection.dataReceived(b"PROXY TCP4 203.0.113.5 192.0.2.2")
    connection.dataReceived(b"6 1 25\r\nEHLO x\r\n")
    parts.recorder.commit()
    assert transport.sent.startswith(b"220 mx.example ESMTP Postfix\r\n250-")
    target = parts.reception.target(pack_address("192.0.2.26"))
    assert parts.recorder.events == [(0, pack_address("203.0.113.5"), 0, target)]


def test_ignored_network_is_answered_and_not_recorded() -> None:
    parts = Set(ignore=Networks(["198.51.100.0/24"]))
    connection, transport = parts.connect()
    connection.dataReceived(b"EHLO x\r\n")
    assert b"250 ENHANCEDSTATUSCODES\r\n" in transport.sent
    assert parts.recorder.events == []


def test_accept_rate_and_scoped_addresses() -> None:
    parts = Set(limits=SourceLimits(per_source=9, per_second=2))
    listener = Listener(parts.reception, LOCAL)
    made = [
        listener.buildProtocol(cast("IAddress", address))
        for address in (
            IPv4Address("TCP", "198.51.100.1", 1),
            IPv6Address("TCP", "fe80::1%lo", 1),
            IPv4Address("TCP", "198.51.100.1", 1),
        )
    ]
    assert [one is not None for one in made] == [True, True, False]
    assert parts.count["refused_rate"] == 1


def test_shutdown_says_421() -> None:
    parts = Set()
    connection, transport = parts.connect()
    connection.say_and_close("shutting_down")
    connection.say_and_close("shutting_down")
    assert transport.sent.count(b"421 4.3.2 mx.example Service shutting down") == 1
    assert transport.end == "closed"
