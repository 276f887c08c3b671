"""The table of behaviours: what a client sends, and exactly which bits it sets.

A client sends each row line by line and waits for each reply, unless the test says otherwise. Every
session of the table sets the bits in ``BASE``.
"""

import itertools
from collections.abc import Callable
from ipaddress import IPv6Address

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sensor_support.dialogue import ENVELOPE, GREETED, PERSONA, Talk
from smtpfeeds_common.behaviours import Flags
from smtpfeeds_sensor.smtp.names import SensorNames
from smtpfeeds_sensor.smtp.personas import STYLES, make_persona

#: A greet with a full host name, as ``GREETED`` is one.
BASE = Flags.FULL_HOST_NAME
NO = Flags(0)
MAIL = b"MAIL FROM:<a@example.org>\r\n"
RCPT = b"RCPT TO:<b@example.net>\r\n"
SENT = Flags.SENDER | Flags.RECIPIENT
AUTH_PERSONA = make_persona(STYLES["plain"], hostname="mx.example", offer_auth=True, offer_tls=True)
#: Offers nothing that a client can be seen to use.
BARE_PERSONA = make_persona(STYLES["plain"], hostname="mx.example", keywords=())


def flags_of(octets: bytes, **changed: object) -> Flags:
    talk = Talk(**changed)  # type: ignore[arg-type]
    talk.say_in_turn(octets)
    return Flags(talk.dialogue.flags)


GREETS = [
    # A full host name.
    (b"EHLO mail.example.org\r\n", Flags.FULL_HOST_NAME),
    (b"EHLO xn--bcher-kva.example.\r\n", Flags.FULL_HOST_NAME),
    (b"EHLO \t mail.example.org \r\n", Flags.FULL_HOST_NAME),
    (b"HELO mail.example.org\r\n", Flags.FULL_HOST_NAME | Flags.HELO),
    # An address literal.
    (b"EHLO [192.0.2.1]\r\n", Flags.ADDRESS_LITERAL),
    (b"EHLO [IPv6:2001:db8::1]\r\n", Flags.ADDRESS_LITERAL),
    (b"EHLO [::1]\r\n", Flags.ADDRESS_LITERAL),
    # Nothing.
    (b"EHLO\r\n", Flags.NO_ARGUMENT),
    (b"EHLO  \r\n", Flags.NO_ARGUMENT),
    # The sensor itself: its address, or its banner's full name.
    (b"EHLO [192.0.2.25]\r\n", Flags.NAMED_SENSOR | Flags.ADDRESS_LITERAL),
    (b"EHLO 192.0.2.25\r\n", Flags.NAMED_SENSOR),
    (b"EHLO MX.Example\r\n", Flags.NAMED_SENSOR | Flags.FULL_HOST_NAME),
    (b"EHLO mx.example.\r\n", Flags.NAMED_SENSOR | Flags.FULL_HOST_NAME),
    # One label, or anything else.
    (b"EHLO localhost\r\n", Flags.SHORT_NAME),
    (b"EHLO 192.0.2.1\r\n", Flags.SHORT_NAME),
    (b"EHLO [192.0.2.256]\r\n", Flags.SHORT_NAME),
    (b"EHLO [x]\r\n", Flags.SHORT_NAME),
    (b"EHLO a..example\r\n", Flags.SHORT_NAME),
    (b"EHLO -a.example.org\r\n", Flags.SHORT_NAME),
    (b"EHLO ::1\r\n", Flags.SHORT_NAME),
    (b"EHLO \xff\r\n", Flags.SHORT_NAME),
    (b"HELO " + b"a" * 3000 + b"\r\n", Flags.SHORT_NAME | Flags.HELO),
    # Each greet's argument counts.
    (GREETED + b"EHLO localhost\r\n", BASE | Flags.SHORT_NAME),
]


@pytest.mark.parametrize(("octets", "bits"), GREETS)
def test_greet(octets: bytes, bits: Flags) -> None:
    assert flags_of(octets) == bits


def test_short_banner_name_is_not_a_name_of_the_sensor() -> None:
    names = SensorNames(bytes((192, 0, 2, 25)), "localhost")
    assert flags_of(b"EHLO localhost\r\n", names=names) == Flags.SHORT_NAME
    assert flags_of(GREETED + b"MAIL FROM:<a@localhost>\r\n", names=names) == BASE | Flags.SENDER


TABLE = [
    # 0: a line ended by a bare LF; behind what is not a command it says nothing of an SMTP client.
    (b"NOOP\n", Flags.BARE_LF),
    (b"NOOP\n\r", Flags.BARE_LF),
    (b"\nxyzzy\n", NO),
    # 6, 25, 26: AUTH, a response with it, the same mechanism again. 21: it is not offered here.
    (b"AUTH\r\n", Flags.AUTH | Flags.UNOFFERED),
    (b"AUTH LOGIN\r\n", Flags.AUTH | Flags.UNOFFERED),
    (b"AUTH PLAIN AGEAYg==\r\n", Flags.AUTH | Flags.UNOFFERED | Flags.AUTH_RESPONSE),
    (b"AUTH PLAIN =\r\n", Flags.AUTH | Flags.UNOFFERED),
    (b"AUTH LOGIN\r\nAUTH PLAIN\r\nAUTH X1\r\n", Flags.AUTH | Flags.UNOFFERED),
    (b"AUTH LOGIN\r\nAUTH login\r\n", Flags.AUTH | Flags.UNOFFERED | Flags.AUTH_AGAIN),
    (b"AUTH X1\r\nAUTH X1\r\n", Flags.AUTH | Flags.UNOFFERED | Flags.AUTH_AGAIN),
    (b"AUTH \xff\r\n", Flags.AUTH | Flags.UNOFFERED),
    # 7: STARTTLS, which is not offered here; used where it is (20), in another test.
    (b"STARTTLS\r\n", Flags.STARTTLS | Flags.EXTENSION),
    # 8: VRFY or EXPN.
    (b"VRFY root\r\n", Flags.PROBED_USERS),
    (b"EXPN \xff\r\n", Flags.PROBED_USERS),
    # 9, 23: the null sender, and one that is not null; neither where there is none.
    (b"MAIL FROM:<>\r\n", Flags.NULL_SENDER),
    (MAIL, Flags.SENDER),
    (b"MAIL FROM:<a>\r\n", Flags.SENDER),
    (b"MAIL\r\n", NO),
    # 22: MAIL and RCPT.
    (b"RCPT TO:<b@example.net>\r\n", NO),
    (ENVELOPE, SENT),
    (MAIL + b"RSET\r\n" + RCPT, Flags.SENDER),
    # 10: DATA or BDAT in order.
    (ENVELOPE + b"DATA\r\n", SENT | Flags.MESSAGE),
    (ENVELOPE + b"BDAT 0 LAST\r\n", SENT | Flags.MESSAGE | Flags.UNOFFERED),
    (MAIL + b"DATA\r\n", Flags.SENDER),
    (b"DATA\r\n", NO),
    (b"BDAT 0\r\n", Flags.UNOFFERED),
    (ENVELOPE + b"RSET\r\nDATA\r\n", SENT),
    # 11: five RCPT for one MAIL.
    (MAIL + RCPT * 4, SENT),
    (MAIL + RCPT * 5, SENT | Flags.MANY_RECIPIENTS),
    (MAIL + RCPT * 4 + MAIL + RCPT, SENT),
    (RCPT * 5, NO),
    # 24: three MAIL without DATA.
    ((MAIL + b"RSET\r\n") * 2, Flags.SENDER),
    ((MAIL + b"RSET\r\n") * 3, Flags.SENDER | Flags.MANY_ENVELOPES),
    ((ENVELOPE + b"DATA\r\n") * 4, SENT | Flags.MESSAGE),
    (MAIL * 2 + b"DATA\r\n" + MAIL * 2, Flags.SENDER),
    # 13: a line that is not a verb, after DATA or AUTH was refused; RSET and QUIT are manners.
    (ENVELOPE + b"DATA\r\nSubject: x\r\n", SENT | Flags.MESSAGE | Flags.UNHEEDING),
    (b"DATA\r\nhello\r\n", Flags.UNHEEDING),
    (b"DATA\r\n\xff\r\n", Flags.UNHEEDING),
    (b"DATA\r\nRSET\r\nhello\r\n", NO),
    (b"DATA\r\nQUIT\r\n", Flags.QUIT),
    (b"AUTH LOGIN\r\nYQ==\r\n", Flags.AUTH | Flags.UNOFFERED | Flags.UNHEEDING),
    (b"AUTH LOGIN\r\nNOOP\r\nxyzzy\r\n", Flags.AUTH | Flags.UNOFFERED),
    (b"xyzzy\r\n", NO),
    # 14: QUIT.
    (b"QUIT\r\n", Flags.QUIT),
    (b"quit\r\n", Flags.QUIT | Flags.LOWER_CASE),
    # 15: what is not SMTP, after a greet.
    (b"GET / HTTP/1.1\r\n", Flags.NOT_SMTP_AFTER),
    (b"\x16\x03\x01", Flags.NOT_SMTP_AFTER),
    (b"Host: x\r\n", Flags.NOT_SMTP_AFTER),
    # 18: a verb in lower or mixed case; what is not a verb is not looked at.
    (b"noop\r\n", Flags.LOWER_CASE),
    (b"\tNoop\r\n", Flags.LOWER_CASE),
    (b"hELP\r\n", Flags.LOWER_CASE),
    (b"noop \xff\r\n", Flags.LOWER_CASE),
    (b"xyzzy\r\nNOOP lower\r\n", NO),
    # 19: a blank before the path, or no brackets.
    (b"MAIL FROM: <a@example.org>\r\n", Flags.SENDER | Flags.LOOSE_PATH),
    (b"MAIL FROM :<a@example.org>\r\n", Flags.SENDER | Flags.LOOSE_PATH),
    (b"MAIL FROM <a@example.org>\r\n", Flags.SENDER | Flags.LOOSE_PATH),
    (b"MAIL <a@example.org>\r\n", Flags.SENDER | Flags.LOOSE_PATH),
    (b"MAIL FROM:a@example.org\r\n", Flags.SENDER | Flags.LOOSE_PATH),
    (b"MAIL FROM:<a@example.org\r\n", Flags.SENDER | Flags.LOOSE_PATH),
    (b"MAIL FROM: <>\r\n", Flags.NULL_SENDER | Flags.LOOSE_PATH),
    (b"MAIL FROM:\r\n", Flags.LOOSE_PATH),
    (b"MAIL a@example.org\r\n", Flags.SENDER | Flags.LOOSE_PATH),
    (b"MAIL from:<a@example.org>\r\n", Flags.SENDER),
    (b"MAIL  FROM:<a@example.org>\r\n", Flags.SENDER),
    (b"RCPT TO: <a@example.org>\r\n", Flags.LOOSE_PATH),
    (b"RCPT TO:a@example.org\r\n", Flags.LOOSE_PATH),
    # 20: what was offered.
    (b"MAIL FROM:<a@example.org> SIZE=1024\r\n", Flags.SENDER | Flags.EXTENSION),
    (b"MAIL FROM:<> body=8bitmime\r\n", Flags.NULL_SENDER | Flags.EXTENSION),
    (b"MAIL FROM:<a@example.org> XSIZE=1\r\n", Flags.SENDER),
    # 28: a route in RCPT.
    (b"RCPT TO:<a%example.org@mx.example>\r\n", Flags.ROUTED_RECIPIENT),
    (b"RCPT TO:<example.org!a>\r\n", Flags.ROUTED_RECIPIENT),
    (b"RCPT TO:<@mx.example:a@example.org>\r\n", Flags.ROUTED_RECIPIENT | Flags.RELAY_PROBE),
    (b"RCPT TO:<a@example.org@mx.example>\r\n", Flags.ROUTED_RECIPIENT),
    (b'RCPT TO:<"a@example.org"@mx.example>\r\n', Flags.ROUTED_RECIPIENT),
    (b"RCPT TO:<a+b=c@example.org>\r\n", NO),
    # 12: the sensor's address or name in MAIL, anywhere.
    (b"MAIL FROM:<a@192.0.2.25>\r\n", Flags.SENDER | Flags.RELAY_PROBE),
    (b"MAIL FROM:<a@[192.0.2.25]>\r\n", Flags.SENDER | Flags.RELAY_PROBE),
    (b"MAIL FROM:<spam-192-0-2-25@x.example>\r\n", Flags.SENDER | Flags.RELAY_PROBE),
    (b"MAIL FROM:<a@MX.EXAMPLE>\r\n", Flags.SENDER | Flags.RELAY_PROBE),
    (b"MAIL FROM:<> ENVID=192.0.2.25\r\n", Flags.NULL_SENDER | Flags.RELAY_PROBE),
    (b"MAIL FROM:<a@192.0.2.250>\r\n", Flags.SENDER),
    (b"MAIL FROM:<a@mx.example.org>\r\n", Flags.SENDER),
    (b"MAIL FROM:<a@smtp.mx.example>\r\n", Flags.SENDER),
    # ... in RCPT only outside the domain of the last mailbox.
    (b"RCPT TO:<postmaster@[192.0.2.25]>\r\n", NO),
    (b"RCPT TO:<root@mx.example> ORCPT=rfc822;root@mx.example\r\n", NO),
    (b"RCPT TO:<192.0.2.25@example.org>\r\n", Flags.RELAY_PROBE),
    (b"RCPT TO:<a%mx.example@b.example>\r\n", Flags.RELAY_PROBE | Flags.ROUTED_RECIPIENT),
    (b"RCPT TO:<mx.example!a@b.example>\r\n", Flags.RELAY_PROBE | Flags.ROUTED_RECIPIENT),
    (b"RCPT TO:<192.0.2.25>\r\n", Flags.RELAY_PROBE),
]  # fmt: skip


@pytest.mark.parametrize(("octets", "bits"), TABLE)
def test_session(octets: bytes, bits: Flags) -> None:
    assert flags_of(GREETED + octets) == BASE | bits


@pytest.mark.parametrize(("octets", "bits"), TABLE)
def test_bits_do_not_depend_on_how_octets_are_split(octets: bytes, bits: Flags) -> None:
    """Octet by octet, a client sets the bits of the table."""
    talk = Talk()
    talk.say_in_turn(GREETED)
    for octet in octets:
        talk.say(bytes((octet,)))
    assert Flags(talk.dialogue.flags) == BASE | bits


@pytest.mark.parametrize(
    ("octets", "bits"),
    [
        (b"STARTTLS\r\n", Flags.STARTTLS | Flags.UNOFFERED),
        (b"MAIL FROM:<a> SIZE=1 BODY=7BIT\r\n", Flags.SENDER),
    ],
)
def test_use_of_an_extension_that_was_not_offered_has_its_bits(octets: bytes, bits: Flags) -> None:
    assert flags_of(GREETED + octets, persona=BARE_PERSONA) == BASE | bits


@pytest.mark.parametrize("octets", [b"STARTTLS\r\n", b"AUTH LOGIN\r\n"])
def test_nothing_is_offered_without_ehlo(octets: bytes) -> None:
    """After HELO, or without a greet."""
    for before in (b"", b"HELO mail.example.org\r\n", GREETED + b"HELO a.example\r\n"):
        assert flags_of(before + octets, persona=AUTH_PERSONA) & Flags.UNOFFERED


def test_use_of_an_offered_extension_is_not_unoffered() -> None:
    """After STARTTLS it is not offered again."""
    talk = Talk(persona=AUTH_PERSONA, offer_tls=True)
    talk.say_in_turn(GREETED + b"STARTTLS\r\n")
    assert talk.dialogue.flags == BASE | Flags.STARTTLS | Flags.EXTENSION
    talk.say_in_turn(GREETED + b"AUTH LOGIN\r\nYQ==\r\n")
    assert talk.dialogue.flags & (Flags.AUTH | Flags.UNOFFERED) == Flags.AUTH
    talk.say_in_turn(b"*\r\nSTARTTLS\r\n")
    assert talk.dialogue.flags & Flags.UNOFFERED


@pytest.mark.parametrize(
    ("octets", "bits"),
    [
        (b"AUTH LOGIN\r\n*\r\n", Flags.AUTH),
        (b"AUTH LOGIN\r\n\r\n\r\n", Flags.AUTH),
        (b"AUTH LOGIN\r\nYQ==\r\n", Flags.AUTH | Flags.AUTH_RESPONSE),
        (b"AUTH PLAIN AA==\r\n", Flags.AUTH | Flags.AUTH_RESPONSE),
        # NTLM's first message asks for the host's name; it carries no login.
        (b"AUTH NTLM\r\n", Flags(0)),
        (b"auth ntlm TlRMTVNTUAABAAAAB4IIogAAAAA=\r\n", Flags.LOWER_CASE),
        (b"AUTH NTLM TlRMTVNTUAADAAAAGAAY\r\n", Flags.AUTH | Flags.AUTH_RESPONSE),
        (b"AUTH PLAIN AA==\r\nAUTH PLAIN AA==\r\n",
         Flags.AUTH | Flags.AUTH_RESPONSE | Flags.AUTH_AGAIN),
        (b"AUTH PLAIN AA==\r\nAA==\r\n", Flags.AUTH | Flags.AUTH_RESPONSE | Flags.UNHEEDING),
        # A line of its response is not a command.
        (b"AUTH LOGIN\r\nmail from\r\nGET /\r\nNOOP\r\n", Flags.AUTH | Flags.AUTH_RESPONSE),
    ],
)  # fmt: skip
def test_attempts_of_an_offered_auth_set_their_bits(octets: bytes, bits: Flags) -> None:
    assert flags_of(GREETED + octets, persona=AUTH_PERSONA) == BASE | bits


@pytest.mark.parametrize(
    ("octets", "bits"),
    [
        # Offered, and behind a command that another may follow.
        (GREETED + b"|" + ENVELOPE + b"DATA\r\n", SENT | Flags.MESSAGE | Flags.EXTENSION),
        (GREETED + b"|RSET\r\nNOOP\r\n", Flags.EXTENSION),
        # Behind HELO or EHLO.
        (GREETED + b"NOOP\r\n", Flags.UNHEEDING),
        (GREETED + b"xyzzy\r\n", Flags.UNHEEDING),
        # Not offered: behind HELO, without a greet.
        (b"HELO c.example.org\r\n|NOOP\r\nNOOP\r\n", Flags.HELO | Flags.UNHEEDING),
        (b"NOOP\r\nNOOP\r\n|" + GREETED, Flags.UNHEEDING),
        # Behind a command that should be the last of a group: neither.
        (GREETED + b"|NOOP\r\nQUIT\r\n", Flags.QUIT),
        # LF CR: no octets of a next command.
        (b"EHLO c.example.org\n\r", Flags.BARE_LF),
        (GREETED + b"|" + ENVELOPE[:27] + b"|RCPT TO:<b>\r\n|DATA\n\r|QUIT\r\n",
         SENT | Flags.MESSAGE | Flags.BARE_LF | Flags.QUIT),
    ],
)  # fmt: skip
def test_client_that_does_not_wait_for_a_reply_is_unheeding(octets: bytes, bits: Flags) -> None:
    """``|`` means that the client waits for a reply."""
    talk = Talk()
    for piece in octets.split(b"|"):
        talk.say(piece)
    assert Flags(talk.dialogue.flags) == BASE | bits


def test_content_and_responses_before_their_reply_are_unheeding() -> None:
    talk = Talk(drain=True)
    talk.say_in_turn(GREETED + ENVELOPE)
    talk.say(b"DATA\r\nhello\r\n.\r\n")
    assert talk.dialogue.flags & Flags.UNHEEDING
    waits = Talk(drain=True)
    waits.say_in_turn(GREETED + ENVELOPE + b"DATA\r\n")
    waits.say(b"hello\r\n.\r\n")
    assert not waits.dialogue.flags & Flags.UNHEEDING
    talk = Talk(persona=AUTH_PERSONA)
    talk.say_in_turn(GREETED)
    talk.say(b"AUTH PLAIN\r\nAA==\r\n")
    assert talk.dialogue.flags & Flags.UNHEEDING


def test_command_while_a_reply_is_held_did_not_wait_for_it() -> None:
    talk = Talk()
    talk.say(GREETED)
    talk.dialogue.owes_reply = True
    talk.say(b"NOOP\r\n")
    assert talk.dialogue.flags & Flags.UNHEEDING


def test_early_talk_and_a_delayed_banner_set_their_bits() -> None:
    """1, 27."""
    talk = Talk(banner_delayed=True)
    talk.say(GREETED)
    assert talk.dialogue.flags == BASE | Flags.BANNER_DELAYED
    talk.dialogue.note_early()
    assert talk.dialogue.flags == BASE | Flags.BANNER_DELAYED | Flags.EARLY_TALKER


V4 = bytes((192, 0, 2, 25))
V6 = IPv6Address("2001:db8::10:25").packed
FORMS = [
    (V4, b"192.0.2.25"),
    (V4, b"192-0-2-25"),
    (V4, b"25.2.0.192"),
    (V4, b"25-2-0-192"),
    (V4, b"c0000219"),
    (V4, b"0xC0000219"),
    (V4, b"3221226009"),
    (V6, b"2001:db8::10:25"),
    (V6, b"2001:DB8:0:0:0:0:10:25"),
    (V6, b"2001:0db8:0000:0000:0000:0000:0010:0025"),
    (V6, b"2001-db8--10-25"),
    (V6, b"2001-0db8-0000-0000-0000-0000-0010-0025"),
    (V6, b"20010db8000000000000000000100025"),
    (V6, b"0x20010db8000000000000000000100025"),
    (V6, str(int.from_bytes(V6)).encode()),
    (V6, b".".join(bytes((d,)) for d in b"20010db8000000000000000000100025"[::-1])),
    (V4, b"MX.Example"),
]
#: What may stand around a name, and what makes it part of another.
AROUND = [(b"", b""), (b"<", b">"), (b"[", b"]"), (b" ", b"."), (b"=", b", "), (b"(", b"):")]
BESIDE = [(b"1", b""), (b"", b"7")]


@pytest.mark.parametrize(("address", "form"), FORMS)
def test_form_of_a_name_is_recognised_between_boundaries(address: bytes, form: bytes) -> None:
    names = SensorNames(address, "mx.example")
    for before, behind in AROUND:
        assert names.occur_in(before + form + behind), (before, behind)
        assert names.occur_in(b"test " + before + form + behind + b" test"), (before, behind)
    for before, behind in BESIDE:
        assert not names.occur_in(before + form + behind), (before, behind)


@pytest.mark.parametrize(
    "text",
    [
        b"192.0.2.250",
        b"1.192.0.2.25",
        b"192.0.2.25.1",
        b"192-0-2-25-1",
        b"192.0.2",
        b"ac0000219",
        b"c0000219a",
        b"32212259970",
        b"mx.example.org",
        b"a.mx.example",
        b"mx.example-1",
        b"my-mx.example",
    ],
)
def test_part_of_a_longer_name_is_not_a_name(text: bytes) -> None:
    assert not SensorNames(V4, "mx.example").occur_in(b"x " + text + b" y")


@pytest.mark.parametrize("text", [b"2001:db8::10:25:1", b"1:2001:db8::10:25", b"2001:db8::10:2"])
def test_part_of_a_longer_ipv6_address_is_not_an_address(text: bytes) -> None:
    assert not SensorNames(V6, "mx.example").occur_in(b"x " + text + b" y")


def test_ipv6_literal_with_its_tag_is_recognised() -> None:
    assert SensorNames(V6, "mx.example").occur_in(b"<a@[IPv6:2001:db8::10:25]>")
    assert flags_of(b"EHLO [IPv6:2001:DB8:0::10:25]\r\n", names=SensorNames(V6, "x.example")) == (
        Flags.NAMED_SENSOR | Flags.ADDRESS_LITERAL
    )


CONTENTS = [
    (b"Subject: test of 192.0.2.25\r\n\r\nx", True),
    (b"192.0.2.25", True),
    (b"X: 25.2.0.192.in-addr.arpa\r\n\r\nx\r\n", True),
    (b"the host (mx.example) relays\r\n", True),
    (b"ends with c0000219", True),
    # Before and behind one that does not count.
    (b"192.0.2.25 tests root@192.0.2.25\r\n", True),
    (b"192.0.2.250, 192.0.2.25, root@192.0.2.25\r\n", True),
    (b"To: root@192.0.2.25\r\n\r\nat 192.0.2.25\r\n", True),
    # Where an honest stray names its recipient.
    (b"To: <postmaster@[192.0.2.25]>, root@mx.example\r\n\r\nhello\r\n", False),
    (b"To: root@192.0.2.25\r\n", False),
    # Another address, another name.
    (b"192.0.2.250 and 192.0.2.25.7 and mx.example.org\r\n", False),
    (b"MTkyLjAuMi4yNQ==\r\n", False),
]


def drained(content: bytes, pieces: Callable[[bytes], list[bytes]], mail: bytes = MAIL) -> Flags:
    talk = Talk(drain=True)
    talk.say_in_turn(GREETED + mail + RCPT + b"DATA\r\n")
    for piece in pieces(content + b"\r\n.\r\n"):
        talk.say(piece)
        assert talk.dialogue.held_bytes < 100
    assert not talk.dialogue.reads_content
    return Flags(talk.dialogue.flags)


def whole(octets: bytes) -> list[bytes]:
    return [octets]


def singly(octets: bytes) -> list[bytes]:
    return [bytes((octet,)) for octet in octets]


@pytest.mark.parametrize(("content", "probe"), CONTENTS)
@pytest.mark.parametrize("pieces", [whole, singly])
def test_relay_probe_in_content_is_recognised(
    content: bytes, pieces: Callable[[bytes], list[bytes]], *, probe: bool
) -> None:
    assert bool(drained(content, pieces) & Flags.RELAY_PROBE) == probe


@pytest.mark.parametrize(("content", "probe"), CONTENTS)
def test_relay_probe_is_recognised_across_segments(content: bytes, *, probe: bool) -> None:
    padded = b"y" * 300 + b" " + content
    for cut in range(len(padded) + 5):
        flags = drained(padded, lambda octets, cut=cut: [octets[:cut], octets[cut:]])  # type: ignore[misc]
        assert bool(flags & Flags.RELAY_PROBE) == probe, cut


def test_content_of_a_bounce_is_not_searched() -> None:
    """A bounce quotes another message."""
    flags = drained(CONTENTS[0][0], whole, b"MAIL FROM:<>\r\n")
    assert not flags & Flags.RELAY_PROBE


#: Pieces of names and what stands around them.
BITS_OF_TEXT = st.sampled_from(
    [
        b"192.0.2.25",
        b"192.0",
        b".2.25",
        b"1",
        b".",
        b"-",
        b"@",
        b"[",
        b"mx.",
        b"example",
        b" ",
        b":",
    ]
)


@settings(max_examples=300, deadline=None, derandomize=True)
@given(
    text=st.lists(BITS_OF_TEXT, max_size=20).map(b"".join),
    cuts=st.lists(st.integers(0, 120), max_size=6),
)
def test_search_of_content_does_not_depend_on_segments(text: bytes, cuts: list[int]) -> None:
    places = sorted({0, len(text) + 5, *(cut % (len(text) + 5) for cut in cuts)})

    def cut_up(octets: bytes) -> list[bytes]:
        return [octets[a:b] for a, b in itertools.pairwise(places)]

    assert drained(text, cut_up) == drained(text, whole) == drained(text, singly)


def test_banner_of_the_plain_persona_offers_what_the_table_assumes() -> None:
    assert b"PIPELINING" in PERSONA.ehlo
    assert b"SIZE" in PERSONA.ehlo
    assert b"STARTTLS" in PERSONA.ehlo
