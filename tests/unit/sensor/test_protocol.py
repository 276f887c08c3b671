"""A connection between a transport, the dialogue and the recorder: order, bounds, the end."""

from typing import Any, cast
from unittest.mock import Mock

import pytest
from twisted.internet.abstract import FileDescriptor
from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.interfaces import IAddress
from twisted.internet.main import CONNECTION_LOST
from twisted.internet.task import Clock
from twisted.python.failure import Failure

from smtpfeeds_common.addresses import pack_address
from smtpfeeds_common.behaviours import Flags
from smtpfeeds_common.spool import Event
from smtpfeeds_sensor.counters import new_counters
from smtpfeeds_sensor.edge.connection import Connection
from smtpfeeds_sensor.edge.initiation import NEW, Listener
from smtpfeeds_sensor.edge.limits import Deadlines, Networks, SourceLimits
from smtpfeeds_sensor.edge.listen import target_bit
from smtpfeeds_sensor.edge.reception import Reception
from smtpfeeds_sensor.edge.sender import unsent_bytes
from smtpfeeds_sensor.smtp.dialogue import Rules
from smtpfeeds_sensor.smtp.personas import Personas

LOCAL = pack_address("192.0.2.25")


def codes(replies: bytes) -> list[int]:
    return [int(line[:3]) for line in replies.split(b"\r\n")[:-1] if line[3:4] == b" "]


class FakeRecorder:
    """Holds replies until the test releases them."""

    def __init__(self) -> None:
        self.events: list[tuple[int, bytes, int, int]] = []
        self.notes: list[tuple[int, int]] = []
        self.holders: list[Any] = []
        self.holds_replies = True

    def hear(self, holder: Any, feed: int, ip: bytes, flags: int, target: int) -> Event:
        self.events.append((feed, ip, flags, target))
        self.holders.append(holder)
        return Event(feed, ip, 1_795_000_000_000, flags, target)

    def note(self, event: Event, flags: int) -> None:
        self.notes.append((event.feed, flags))

    def commit(self) -> None:
        holders, self.holders = self.holders, []
        for holder in holders:
            holder.release()


class FakeSocket:
    """A fake kernel socket, which accepts so many octets until the client reads."""

    def __init__(self, room: int) -> None:
        self.room = room
        self.taken = b""
        self.broken = False

    def send(self, octets: bytes) -> int:
        if self.broken:
            raise ConnectionResetError
        if not self.room:
            raise BlockingIOError
        taken = bytes(octets[: self.room])
        self.room -= len(taken)
        self.taken += taken
        return len(taken)

    def getsockname(self) -> tuple[str, int]:
        return ("192.0.2.26", 25)


class Transport(FileDescriptor):
    """Twisted's own buffer, above a fake kernel and a reactor that never turns."""

    connected = 1

    def __init__(self, client: Connection, room: int) -> None:
        super().__init__(Mock())
        self.client, self.kernel = client, FakeSocket(room)
        self.end = ""

    @property
    def sent(self) -> bytes:
        """The octets that have left the program."""
        return self.kernel.taken

    @property
    def unsent(self) -> int:
        return unsent_bytes(self)

    def client_reads(self, octets: int) -> None:
        self.kernel.room += octets

    def kernel_is_ready(self) -> None:
        assert FileDescriptor.doWrite(self) is None

    def getHandle(self) -> FakeSocket:
        return self.kernel

    def writeSomeData(self, data: bytes) -> int | BaseException:
        try:
            return self.kernel.send(data)
        except BlockingIOError:
            return 0
        except ConnectionError:
            return CONNECTION_LOST

    def connectionLost(self, reason: Failure) -> None:
        self.end = "closed"
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
    ) -> tuple[Connection, Transport]:
        connection = Connection(self.reception, pack_address(ip), local, NEW)
        transport = Transport(connection, room)
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
    flags = Flags.FULL_HOST_NAME | Flags.UNHEEDING
    assert parts.recorder.events == [(0, pack_address("198.51.100.1"), flags, target_bit(LOCAL))]


def test_client_that_disconnects_before_the_commit_counts() -> None:
    parts = Set()
    connection, _ = parts.connect()
    connection.dataReceived(b"EHLO x\r\n")
    connection.connectionLost(Failure(ConnectionError()))
    parts.recorder.commit()
    assert len(parts.recorder.events) == 1
    assert not parts.reception.open
    assert parts.reception.limits.sources == 0


def test_wildcard_uses_the_local_address_of_each_connection() -> None:
    parts = Set()
    connection, transport = parts.connect(local=None)
    assert transport.sent == b"220 mx.example ESMTP Postfix\r\n"
    connection.dataReceived(b"EHLO x\r\n")
    assert parts.recorder.events[0][3] == parts.reception.target(pack_address("192.0.2.26"))


def test_client_that_does_not_read_is_dropped_at_the_bound() -> None:
    parts = Set(max_unsent_bytes=200)
    connection, transport = parts.connect(room=30)
    while not transport.end:
        assert transport.unsent <= 200
        connection.dataReceived(b"NOOP\r\n")
    assert transport.end == "abort"
    assert parts.count["limit_unsent"] == 1


def test_octets_that_a_client_has_read_do_not_count_as_unsent() -> None:
    """A slow client that reads everything is never dropped, even past the bound in total."""
    parts = Set(max_unsent_bytes=200)
    connection, transport = parts.connect(room=30)
    for _ in range(90):
        connection.dataReceived(b"NOOP\r\n" * 5)
        transport.client_reads(70)
    assert transport.end == ""
    assert len(transport.sent) + transport.unsent == 22 + 450 * len(b"250 2.0.0 OK\r\n")
    # In order; after it has read all, replies leave at once again.
    transport.client_reads(10_000)
    connection.dataReceived(b"VRFY x\r\n")
    transport.kernel_is_ready()
    connection.dataReceived(b"HELP\r\n")
    assert transport.unsent == 0
    assert transport.sent.endswith(b"find out\r\n214 2.0.0 See RFC 5321\r\n")


def test_client_that_disconnects_before_its_reply_is_not_an_error() -> None:
    parts = Set()
    connection, transport = parts.connect(room=25)
    transport.kernel.broken = True
    connection.dataReceived(b"NOOP\r\n")
    assert transport.end == "abort"
    assert parts.count["limit_unsent"] == 0


def test_replies_that_wait_for_a_commit_are_bounded() -> None:
    parts = Set(rules=Rules(max_commands=100_000))
    connection, transport = parts.connect()
    connection.dataReceived(b"EHLO x\r\n")
    for _ in range(100):
        connection.dataReceived(b"EHLO x\r\n" * 10)
    assert (transport.end, parts.count["limit_unsent"]) == ("abort", 1)
    assert len(connection.held) < 20_000
    parts.recorder.commit()
    assert len(parts.recorder.events) == 1


def test_content_over_the_bound_closes_one_side_and_later_the_connection() -> None:
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
    # A closed connection is not queried.
    parts.reception.deadlines.advance(6)
    assert transport.end == "closed"


def test_client_that_does_not_read_its_last_reply_is_disconnected() -> None:
    parts = Set(idle_timeout_s=5)
    _, transport = parts.connect(room=40)
    parts.reception.deadlines.advance(5)
    assert (transport.end, transport.unsent > 0) == ("lose", True)
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


def test_new_client_over_the_total_bound_is_refused_and_others_stay() -> None:
    parts = Set(max_connections=1)
    _, first = parts.connect("198.51.100.1")
    _, refused = parts.connect("198.51.100.2")
    assert (first.end, refused.end) == ("", "closed")
    assert refused.sent.startswith(b"421 4.7.0")
    assert len(parts.reception.open) == 1


def test_client_that_sends_before_the_delayed_banner_is_recorded_as_early() -> None:
    parts = Set(banner_delay_s=2.0)
    connection, transport = parts.connect()
    connection.dataReceived(b"EHLO x\r\n")
    parts.recorder.commit()
    assert transport.sent == b""
    assert parts.recorder.events[0][2] & Flags.EARLY_TALKER
    parts.clock.advance(2.0)
    assert transport.sent.startswith(b"220 mx.example ESMTP\r\n250-")


@pytest.mark.parametrize("commit_first", [True, False])
def test_early_session_is_answered_in_order_and_ends_after_its_last_reply(
    *, commit_first: bool
) -> None:
    """Its end waits for the banner, and both are sent."""
    parts = Set(banner_delay_s=2.0)
    connection, transport = parts.connect()
    connection.dataReceived(b"EHLO x\r\nQUIT\r\n")
    connection.dataReceived(b"NOOP\r\n")
    if commit_first:
        parts.recorder.commit()
    assert (transport.sent, transport.end) == (b"", "")
    parts.clock.advance(2.0)
    if not commit_first:
        assert (transport.sent, transport.end) == (b"", "")
        parts.recorder.commit()
    assert codes(transport.sent) == [220, 250, 221]
    assert transport.end == "closed"
    assert [event[0] for event in parts.recorder.events] == [0]


@pytest.mark.parametrize(
    ("octets", "replies"),
    [
        (b"QUIT\r\n", [220, 221]),
        (b"NOOP\r\nGET / HTTP/1.1\r\n", [220, 250, 221]),
        (b"GET / HTTP/1.1\r\n", [220, 221]),
        (b"NOOP\r\n\x16\x03\x01", [220, 250]),
        (b"BDAT 5000\r\n", [220, 502]),
    ],
)
def test_banner_and_replies_to_early_commands_come_in_order(
    octets: bytes, replies: list[int]
) -> None:
    parts = Set(banner_delay_s=2.0)
    connection, transport = parts.connect()
    for at in range(len(octets)):
        connection.dataReceived(octets[at : at + 1])
    assert (transport.sent, transport.end) == (b"", "")
    parts.clock.advance(2.0)
    assert codes(transport.sent) == replies
    assert transport.end in {"closed", "half"}


def test_early_replies_are_bounded() -> None:
    parts = Set(banner_delay_s=2.0, rules=Rules(max_commands=100_000))
    connection, transport = parts.connect()
    for _ in range(100):
        connection.dataReceived(b"EHLO x\r\n" * 10)
    assert (transport.end, parts.count["limit_unsent"]) == ("abort", 1)


def test_time_limit_applies_before_the_banner() -> None:
    parts = Set(banner_delay_s=9.0, idle_timeout_s=5)
    _, transport = parts.connect()
    parts.reception.deadlines.advance(5)
    assert (codes(transport.sent), transport.end) == ([421], "closed")
    parts.clock.advance(9.0)
    assert codes(transport.sent) == [421]


def test_no_banner_is_sent_to_a_disconnected_client() -> None:
    parts = Set(banner_delay_s=2.0)
    connection, transport = parts.connect()
    connection.connectionLost(Failure(ConnectionError()))
    parts.clock.advance(2.0)
    assert transport.sent == b""


def test_early_garbage_is_closed_at_once() -> None:
    parts = Set(banner_delay_s=2.0)
    connection, transport = parts.connect()
    connection.dataReceived(b"\x16\x03\x01")
    assert transport.end == "closed"
    assert parts.recorder.events == []


def test_header_of_a_trusted_proxy_gives_both_addresses() -> None:
    parts = Set(trusted_proxies=Networks(["198.51.100.0/24"]))
    connection, transport = parts.connect("198.51.100.1")
    assert transport.sent == b""
    connection.dataReceived(b"PROXY TCP4 203.0.113.5 192.0.2.2")
    connection.dataReceived(b"6 1 25\r\nEHLO x\r\n")
    parts.recorder.commit()
    assert transport.sent.startswith(b"220 mx.example ESMTP Postfix\r\n250-")
    target = parts.reception.target(pack_address("192.0.2.26"))
    flags = Flags.SHORT_NAME
    assert parts.recorder.events == [(0, pack_address("203.0.113.5"), flags, target)]


HEALTH_CHECKS = [
    b"PROXY UNKNOWN\r\n",
    b"\r\n\r\n\0\r\nQUIT\n\x20\x00\0\0",
    b"\r\n\r\n\0\r\nQUIT\n\x20\x11\0\x0c" + b"\xc0\0\2\1\xc0\0\2\2\0\1\0\x19",
]
SESSION = b"EHLO x\r\nMAIL FROM:<>\r\nRCPT TO:<a>\r\nDATA\r\n.\r\nxyzzy\r\nGET / HTTP/1.1\r\n"


@pytest.mark.parametrize("header", HEALTH_CHECKS)
def test_health_check_of_a_proxy_is_answered_and_not_counted(header: bytes) -> None:
    """It is a whole session, and only the check itself is noted."""
    parts = Set(trusted_proxies=Networks(["198.51.100.0/24"]))
    connection, transport = parts.connect("198.51.100.1")
    connection.dataReceived(header + SESSION)
    assert codes(transport.sent) == [220, 250, 250, 250, 354, 554, 500, 221]
    assert (transport.end, parts.recorder.events) == ("closed", [])
    assert {name for name, number in parts.count.items() if number} == {"proxy_unnamed"}


def test_long_health_check_is_closed_and_not_counted() -> None:
    parts = Set(trusted_proxies=Networks(["198.51.100.0/24"]), idle_timeout_s=5)
    connection, transport = parts.connect("198.51.100.1")
    connection.dataReceived(HEALTH_CHECKS[0])
    parts.reception.deadlines.advance(6)
    assert transport.end == "closed"
    assert {name for name, number in parts.count.items() if number} == {"proxy_unnamed"}


def test_proxy_without_a_header_is_counted_separately() -> None:
    """It sends its header with the client's first octets, and the client waits for the banner."""
    parts = Set(trusted_proxies=Networks(["198.51.100.0/24"]), idle_timeout_s=5)
    _, idle = parts.connect("198.51.100.1")
    given_up, _ = parts.connect("198.51.100.1")
    parts.reception.deadlines.advance(4)
    given_up.connectionLost(Failure(ConnectionError()))
    assert parts.count["proxy_silent"] == 1
    # A check of the port alone is not counted.
    checked, _ = parts.connect("198.51.100.1")
    checked.connectionLost(Failure(ConnectionError()))
    parts.reception.deadlines.advance(1)
    assert (idle.sent, idle.end) == (b"", "closed")
    assert (parts.count["proxy_silent"], parts.count["proxy_invalid"]) == (2, 0)


def test_incomplete_header_of_a_proxy_is_invalid() -> None:
    parts = Set(trusted_proxies=Networks(["198.51.100.0/24"]), idle_timeout_s=5)
    connection, transport = parts.connect("198.51.100.1")
    connection.dataReceived(b"PROXY TCP4 203.0")
    parts.reception.deadlines.advance(6)
    assert (transport.sent, transport.end) == (b"", "closed")
    assert (parts.count["proxy_silent"], parts.count["proxy_invalid"]) == (0, 1)


def test_ignored_network_is_answered_and_not_recorded() -> None:
    parts = Set(ignore=Networks(["198.51.100.0/24"]))
    connection, transport = parts.connect()
    connection.dataReceived(SESSION)
    assert codes(transport.sent) == [220, 250, 250, 250, 354, 554, 500, 221]
    assert parts.recorder.events == []
    assert {name for name, number in parts.count.items() if number} == {"connections_ignored"}


def test_accept_rate_and_scoped_addresses() -> None:
    parts = Set(limits=SourceLimits(per_source=9, per_second=2))
    listener = Listener(parts.reception, LOCAL)
    connections = [
        listener.buildProtocol(cast("IAddress", address))
        for address in (
            IPv4Address("TCP", "198.51.100.1", 1),
            IPv6Address("TCP", "fe80::1%lo", 1),
            IPv4Address("TCP", "198.51.100.1", 1),
        )
    ]
    assert [one is not None for one in connections] == [True, True, False]
    assert parts.count["refused_rate"] == 1


def test_shutdown_replies_421() -> None:
    parts = Set()
    connection, transport = parts.connect()
    connection.stop()
    connection.stop()
    assert transport.sent.count(b"421 4.3.2 mx.example Service shutting down") == 1
    assert transport.end == "closed"


def test_behaviours_after_an_event_are_recorded_at_the_disconnect() -> None:
    parts = Set()
    connection, _ = parts.connect()
    for line in (b"EHLO x\r\n", b"MAIL FROM:<>\r\n", b"RCPT TO:<a>\r\n", b"DATA\r\n", b".\r\n"):
        connection.dataReceived(line)
        parts.recorder.commit()
    connection.dataReceived(b"QUIT\r\n")
    sent = Flags.SHORT_NAME | Flags.NULL_SENDER | Flags.RECIPIENT | Flags.MESSAGE
    assert [event[2] for event in parts.recorder.events] == [Flags.SHORT_NAME, sent]
    assert parts.recorder.notes == [(0, sent | Flags.QUIT), (1, sent | Flags.QUIT)]


def test_client_without_new_behaviours_gets_no_note() -> None:
    parts = Set()
    connection, _ = parts.connect()
    connection.dataReceived(b"EHLO x\r\n")
    parts.recorder.commit()
    connection.connectionLost(Failure(ConnectionError()))
    silent, _ = parts.connect()
    silent.dataReceived(b"QUIT\r\n")
    assert parts.recorder.notes == []
