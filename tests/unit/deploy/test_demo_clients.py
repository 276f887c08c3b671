"""The simulated clients: their plan, their PROXY headers, and their entries in the ledger."""

from __future__ import annotations

import asyncio
from ipaddress import ip_address, ip_network
from typing import Final

import pytest

from smtpfeeds_deploy.simulation import proxy_header, synthetic
from smtpfeeds_deploy.simulation.clients import KINDS, Client
from smtpfeeds_deploy.simulation.ledger import Session
from smtpfeeds_deploy.simulation.simulate import Target, Visit
from smtpfeeds_deploy.simulation.talk import Talk

TARGETS = [Target("127.0.0.1", 25, "one"), Target("::1", 25, "two")]
DOCUMENTATION = ["192.0.2.0/24", "198.51.100.0/24", "203.0.113.0/24", "2001:db8::/32"]

#: The expected events of each kind, independent of the code of the kinds.
CAUSES = {
    "scanner": {"smtpgreet"},
    "banner_grabber": set(),
    "bare_ehlo": {"smtpgreet"},
    "mailer": {"smtpgreet", "smtpdata"},
    "spammer": {"smtpgreet", "smtpdata"},
    "early_spammer": {"smtpgreet", "smtpdata"},
    "bare_lf_bot": {"smtpgreet", "smtpdata"},
    "http_request": set(),
    "tls_hello": set(),
    "helo_twice": {"smtpgreet"},
    "data_out_of_order": {"smtpgreet", "smtpdata"},
    "data_without_greet": set(),
    "bdat_sender": {"smtpgreet", "smtpdata"},
    "password_guesser": {"smtpgreet"},
    "slow_one": {"smtpgreet"},
    "half_word": set(),
    "hasty": {"smtpgreet"},
    "vanisher": {"smtpgreet"},
}


def test_plan_has_every_kind_both_families_both_proxy_versions_and_repeats() -> None:
    plan = synthetic.visits(300, TARGETS, seed=7)
    assert len(plan) == 300
    assert {visit.kind for visit in plan} == set(KINDS)
    assert {":" in visit.source for visit in plan} == {True, False}
    assert {visit.proxy_version for visit in plan} == {1, 2}
    assert {visit.target for visit in plan} == set(TARGETS)
    assert len({visit.source for visit in plan}) < 200
    assert any(visit.source.startswith("::ffff:") for visit in plan)


def test_plan_depends_on_the_seed_alone() -> None:
    plan: list[Visit] = synthetic.visits(100, TARGETS, seed=7)
    assert plan == synthetic.visits(100, TARGETS, seed=7)
    assert plan != synthetic.visits(100, TARGETS, seed=8)


def test_every_source_is_a_documentation_address_within_the_bound_of_a_prefix() -> None:
    networks = [ip_network(text) for text in DOCUMENTATION]
    by_prefix: dict[str, set[str]] = {}
    for visit in synthetic.visits(5_000, TARGETS, seed=7):
        address = ip_address(visit.source.removeprefix("::ffff:"))
        assert any(address in network for network in networks)
        if address.version == 6:
            prefix = str(ip_network((address, 64), strict=False))
            by_prefix.setdefault(prefix, set()).add(str(address))
    assert max(map(len, by_prefix.values())) < 64


@pytest.mark.parametrize(
    ("address", "asn"),
    [
        ("192.0.2.1", 64496),
        ("192.0.2.200", 64497),  # the longer prefix wins
        ("198.51.100.70", 65537),
        ("203.0.113.200", None),  # without an origin
        ("2001:db8:2000::1", 64511),
        ("2001:db8:2001::1", 65551),
        ("2001:db8:f000::1", None),
    ],
)
def test_longest_prefix_is_an_addresss_origin(address: str, asn: int | None) -> None:
    assert synthetic.origin_of(address) == asn


def test_proxy_header_version_1_is_the_line_of_the_specification() -> None:
    header = proxy_header.version_1("192.0.2.7", "192.0.2.1", 1024, 25)
    assert header == b"PROXY TCP4 192.0.2.7 192.0.2.1 1024 25\r\n"
    header = proxy_header.version_1("2001:db8::7", "2001:db8::1", 1024, 25)
    assert header == b"PROXY TCP6 2001:db8::7 2001:db8::1 1024 25\r\n"


def test_proxy_header_version_2_is_the_specifications_octets() -> None:
    signature = bytes.fromhex("0d0a0d0a000d0a515549540a")
    header = proxy_header.version_2("192.0.2.7", "192.0.2.1", 1024, 25)
    assert header == signature + bytes.fromhex("2111000c c0000207 c0000201 0400 0019")
    header = proxy_header.version_2("2001:db8::7", "2001:db8::1", 1024, 25)
    assert header[12:16] == bytes.fromhex("21210024")
    assert len(header) == 16 + 36


class Sensor(asyncio.Protocol):
    """Answers these clients as the documented dialogue says."""

    REPLIES: Final = {b"QUIT": 221, b"AUTH": 502, b"BDAT": 502}

    def __init__(self) -> None:
        self.unread = b""
        self.enveloped = False
        self.over = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        self.reply(220)

    def reply(self, code: int) -> None:
        self.transport.write(b"%d-hello\r\n%d well\r\n" % (code, code))

    def end(self) -> None:
        self.over = True
        self.transport.close()

    def data_received(self, data: bytes) -> None:
        self.unread += data
        if self.unread[:1] == b"\x16":
            self.end()
        while b"\n" in self.unread and not self.over:
            line, _, self.unread = self.unread.partition(b"\n")
            self.take(line.rstrip(b"\r")[:4].upper())

    def take(self, verb: bytes) -> None:
        if verb in {b"GET ", b"SUBJ"}:
            self.end()
        elif verb == b"DATA":
            self.reply(554 if self.enveloped else 503)
        else:
            self.enveloped |= verb == b"RCPT"
            self.reply(self.REPLIES.get(verb, 250))
            if verb == b"BDAT":
                self.unread = self.unread[8:]
            if verb == b"QUIT":
                self.end()


async def visit(kind: str) -> Session:
    loop = asyncio.get_running_loop()
    server = await loop.create_server(Sensor, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    session = Session(kind, "192.0.2.7", "one", "a:25")
    _, talk = await loop.create_connection(Talk, "127.0.0.1", port)
    ticks = iter(range(1_000))
    await KINDS[kind](Client(talk, session, lambda: next(ticks), -1))
    talk.close()
    server.close()
    await server.wait_closed()
    return session


def test_every_kind_is_in_the_table() -> None:
    assert set(CAUSES) == set(KINDS)


@pytest.mark.parametrize("kind", sorted(CAUSES))
def test_kind_records_its_events_with_the_times_before_and_after(kind: str) -> None:
    session = asyncio.run(visit(kind))
    assert {event.feed for event in session.events} == CAUSES[kind]
    for event in session.events:
        assert event.when.lowest < event.when.highest
    assert session.bare_lf == (kind == "bare_lf_bot")
