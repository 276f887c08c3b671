"""What a client sends, what the sensor answers and what counts: a test for each row of the table.

Sources: RFC 5321, 2920, 3030, 3207, 4954, and observations of scanners and bots.
"""

from typing import Any

import pytest

from sensor_support.dialogue import ENVELOPE, GREETED, NAMES, PERSONA, Talk, codes
from smtpfeeds_common.behaviours import Flags
from smtpfeeds_sensor.counters import new_counters
from smtpfeeds_sensor.smtp.dialogue import CLOSE, DATA, GREET, LINGER, OPEN, Dialogue, Rules
from smtpfeeds_sensor.smtp.personas import STYLES, make_persona

TABLE = [
    # HELO and EHLO in any case, ended by CRLF or by LF alone: 250, greet.
    (b"HELO host\r\n", [250], GREET),
    (b"EHLO host\r\n", [250], GREET),
    (b"eHlO host\r\n", [250], GREET),
    (b"helo host\n", [250], GREET),
    (b"EHLO\thost\r\n", [250], GREET),
    # EHLO without an argument, as nmap and zgrab2 send it: 250, greet.
    (b"EHLO\r\n", [250], GREET),
    (b"HELO \r\n", [250], GREET),
    # Blanks or tabs before a verb, a tab after it: as the verb.
    (b" EHLO host\r\n", [250], GREET),
    (b"\t \tehlo\thost\r\n", [250], GREET),
    (b"EHLO \t host\r\n\tDATA\t\r\n", [250, 503], GREET | DATA),
    (b"  " + GREETED + b" MAIL FROM:<a>\r\n\tRCPT TO:<b>\r\n DATA\r\n", [250] * 3 + [554], 3),
    (b"  \tNOOP\r\n \txyzzy\r\n", [250, 500], 0),
    # Lines ended by LF CR: as the verb.
    (b"EHLO host\n\rMAIL FROM:<>\n\rRCPT TO:<a>\n\rDATA\n\rQUIT\n\r", [250] * 3 + [554, 221], 3),
    (b"HELO\n\r", [250], GREET),
    # CR twice before LF.
    (b"EHLO host\r\r\nDATA\r\r\n", [250, 503], GREET | DATA),
    # A known verb whose argument holds a colon is not a header line, in any spelling.
    (b"EHLO ::1\r\n", [250], GREET),
    (b"eHLo ::1\r\n", [250], GREET),
    (b"EHLO\t::1\r\n", [250], GREET),
    (b"\thElO\t :: 1\r\n", [250], GREET),
    (b"EHLO\t[IPv6:::1]\r\nDATA\t: x\r\n", [250, 503], GREET | DATA),
    (b"EHLO\t:" + b"a" * 3000 + b"\r\nNOOP\r\n", [500, 250], GREET),
    (b"ehLO : \xff\r\n", [500], GREET),
    # HELO or EHLO again: 250, and no second greet.
    (b"EHLO a\r\nHELO b\r\n", [250, 250], GREET),
    # MAIL and RCPT, with or without HELO: 250, no event.
    (ENVELOPE, [250, 250], 0),
    (b"MAIL\r\n", [250], 0),
    # DATA after MAIL and RCPT: by policy (reject here); data.
    (GREETED + ENVELOPE + b"DATA\r\n", [250, 250, 250, 554], GREET | DATA),
    # DATA after a greet, without MAIL or RCPT: 503; data.
    (GREETED + b"DATA\r\n", [250, 503], GREET | DATA),
    (GREETED + b"MAIL FROM:<>\r\nDATA\r\n", [250, 250, 503], GREET | DATA),
    (GREETED + b"RCPT TO:<a>\r\nDATA\r\n", [250, 250, 503], GREET | DATA),
    # DATA without a greet: 503, no event, even in an envelope.
    (b"DATA\r\n", [503], 0),
    (ENVELOPE + b"DATA\r\n", [250, 250, 503], 0),
    # A greet after that is one, and DATA then is data.
    (b"DATA\r\nEHLO x\r\nDATA\r\n", [503, 250, 503], GREET | DATA),
    # A whole session in one segment: replies in order, greet and data.
    (GREETED + ENVELOPE + b"DATA\r\nQUIT\r\n", [250, 250, 250, 554, 221], GREET | DATA),
    # BDAT n: 502, its octets skipped; data, if after a greet.
    (GREETED + b"BDAT 6\r\nEHLO\r\nNOOP\r\n", [250, 502, 250], GREET | DATA),
    (b"BDAT 3 LAST\r\nabcNOOP\r\n", [502, 250], 0),
    (GREETED + b"BDAT 0 LAST\r\nNOOP\r\n", [250, 502, 250], GREET | DATA),
    (GREETED + b"BDAT\r\nNOOP\r\n", [250, 502, 250], GREET | DATA),
    # STARTTLS and AUTH not offered: 502.
    (b"STARTTLS\r\n", [502], 0),
    (b"AUTH\r\nAUTH LOGIN c2VjcmV0\r\n", [502, 502], 0),
    # VRFY, EXPN, NOOP, HELP, RSET, QUIT.
    (b"VRFY a\r\nEXPN b\r\nNOOP\r\nHELP\r\nRSET\r\n", [252, 502, 250, 214, 250], 0),
    (b"QUIT\r\n", [221], 0),
    # An unknown verb; an empty line: 500.
    (b"XYZZY\r\n", [500], 0),
    (b"\r\n", [500], 0),
    (b"  \r\n", [500], 0),
    # A line over the bound, NUL, 8-bit: 500; a valid verb with a bad argument still counts.
    (b"EHLO " + b"a" * 3000 + b"\r\nNOOP\r\n", [500, 250], GREET),
    (b"EHLO a\0b\r\n", [500], GREET),
    (b"HELO \xff\r\n", [500], GREET),
    (b"NOOP \xff\r\n", [500], 0),
    (GREETED + b"DATA \xff\r\n", [250, 500], GREET | DATA),
    (b"x" * 5000 + b"\r\nEHLO x\r\n", [500, 250], GREET),
]


@pytest.mark.parametrize(("octets", "replies", "events"), TABLE)
def test_row(octets: bytes, replies: list[int], events: int) -> None:
    talk = Talk()
    assert talk.say(octets) == replies
    assert talk.events == events


def test_banner_says_esmtp() -> None:
    """zgrab2 sends EHLO only after a banner with this word."""
    assert PERSONA.banner == b"220 mx.example ESMTP\r\n"


def test_second_greet_resets_the_envelope_and_counts() -> None:
    talk = Talk()
    talk.say(GREETED + ENVELOPE + b"EHLO again\r\n")
    assert talk.say(b"DATA\r\n") == [503]
    assert talk.count["greet_again"] == 1


def test_rset_resets_the_envelope() -> None:
    talk = Talk()
    talk.say(GREETED + ENVELOPE + b"RSET\r\n")
    assert talk.say(b"DATA\r\n") == [503]


def test_early_talker_is_noted_and_answered_in_turn() -> None:
    """A verb before the banner counts when it is received."""
    talk = Talk()
    talk.dialogue.note_early()
    assert talk.say(b"EHLO x\r\nNOOP\r\n") == [250, 250]
    assert talk.dialogue.take() == GREET
    assert talk.dialogue.flags & Flags.EARLY_TALKER
    talk.dialogue.note_early()
    assert talk.say(b"NOOP\r\n") == [250]
    assert talk.count["early_talkers"] == 1


@pytest.mark.parametrize(
    "octets",
    [
        b"GET / HTTP/1.1\r\n",
        b"POST /x HTTP/1.0\r\n",
        b"CONNECT a:25 HTTP/1.1\r\n",
        b"options * HTTP/1.1\r\n",
        b"Host: mx.example\r\n",
        b"User-Agent : x\r\n",
        b"EHLO: x\r\n",
        b"\x03\x00\x00\x13\x0e",
        b"\0",
        b"1\r\n",
        # The same behind blanks.
        b" GET / HTTP/1.1\r\n",
        b"\tSubject: x\r\n",
        b"\rHost : x\r\n",
        b" \t\r1",
        b" \x16\x03",
        b" \x0bEHLO",
        b"\x0bEHLO x\r\n",
        b"Data: x\r\n",
        b"\x16\x02",
        b"\xff",
    ],
)
def test_other_protocols_get_221_and_are_closed(octets: bytes) -> None:
    """GET, POST, CONNECT, `Label:` lines, first octet not a letter: 221, close, counted as junk."""
    talk = Talk()
    assert talk.say(octets + b"EHLO x\r\n") == [221]
    assert (talk.events, talk.dialogue.closing, talk.count["junk"]) == (0, CLOSE, 1)
    assert talk.say(b"EHLO x\r\n") == []


def test_junk_after_a_greet_does_not_remove_the_greet() -> None:
    talk = Talk()
    assert talk.say(GREETED + b"GET / HTTP/1.1\r\n") == [250, 221]
    assert talk.events == GREET


def test_tls_hello_is_closed_at_once_without_a_line_end() -> None:
    talk = Talk()
    assert talk.say(b"\x16") == []
    assert talk.dialogue.closing == OPEN
    assert talk.say(b"\x03") == []
    assert (talk.dialogue.closing, talk.count["junk_tls"], talk.events) == (CLOSE, 1, 0)


def test_three_bad_lines_end_the_session() -> None:
    talk = Talk()
    assert talk.say(b"NOOP \0\r\nNOOP \xff\r\n") == [500, 500]
    assert talk.dialogue.closing == OPEN
    assert talk.say(b"N" * 4000) == [500]
    assert (talk.dialogue.closing, talk.count["limit_errors"]) == (CLOSE, 1)


def test_many_unknown_lines_end_the_session() -> None:
    talk = Talk(max_unknown_commands=4)
    assert talk.say(b"X\r\n\r\nY\r\nZ\r\nEHLO x\r\n") == [500, 500, 500, 421]
    assert (talk.dialogue.closing, talk.events) == (CLOSE, 0)


@pytest.mark.parametrize(
    "body",
    [
        b"Received: from x\r\n",
        b"some words\r\n",
        b"\r\n",
        b"=?utf-8\r\n",
        b"caf\xc3\xa9\r\n",
        b"-----\r\n",
    ],
)
def test_content_sent_despite_the_refusal_closes_the_session(body: bytes) -> None:
    """Unknown or header-like lines after a refused DATA close the session and do not count."""
    talk = Talk()
    talk.say(b"MAIL FROM:<>\r\nRCPT TO:<a>\r\n")
    assert talk.say(b"DATA\r\n" + body + b"EHLO forged\r\n.\r\n") == [503]
    assert (talk.events, talk.dialogue.closing) == (0, CLOSE)
    assert talk.count["body_after_refusal"] == 1


def test_refused_client_that_waits_can_continue() -> None:
    talk = Talk()
    assert talk.say(GREETED + ENVELOPE + b"DATA\r\n") == [250, 250, 250, 554]
    assert talk.say(b"RSET\r\nQUIT\r\n") == [250, 221]


def test_refusal_names_the_policy_page() -> None:
    talk = Talk()
    replies = talk.dialogue.receive(GREETED + ENVELOPE + b"DATA\r\n")
    assert replies.endswith(b"554 5.7.1 This host takes no mail; see https://example.org/why\r\n")


def drained(content: bytes, line_end: bytes = b"\r\n", **rules: Any) -> Talk:
    talk = Talk(drain=True, **rules)
    octets = (GREETED + ENVELOPE + b"DATA\r\n").replace(b"\r\n", line_end)
    assert talk.say(octets) == [250, 250, 250, 354]
    talk.replies = talk.say(content)  # type: ignore[attr-defined]
    return talk


@pytest.mark.parametrize(
    ("content", "replies"),
    [
        # Read and thrown away, 554 at the dot; never 250.
        (b"Subject: x\r\n\r\nhello\r\n.\r\n", [554]),
        # No content at all.
        (b".\r\n", [554]),
        # A dot that is stuffed, or not alone, does not end it.
        (b"..\r\n.x\r\nx.\r\n.\r\n", [554]),
        # LF alone does not end a line of content for a client that ends its commands by CRLF.
        (b"\n.\nEHLO forged\r\n\r.\r\n\n.\r\n.\n", []),
        # What follows the dot is a command again.
        (b"x\r\n.\r\nNOOP\r\nQUIT\r\n", [554, 250, 221]),
    ],
)
def test_drained_content(content: bytes, replies: list[int]) -> None:
    assert drained(content).replies == replies  # type: ignore[attr-defined]


def test_content_with_lf_line_ends_ends_with_lf() -> None:
    talk = drained(b"hello\n.\nQUIT\n", b"\n")
    assert talk.replies == [554, 221]  # type: ignore[attr-defined]
    assert drained(b".\nNOOP\n", b"\n").replies == [554, 250]  # type: ignore[attr-defined]


def test_content_with_lf_cr_line_ends_ends_with_lf_cr() -> None:
    talk = Talk(drain=True)
    sent = (GREETED + ENVELOPE + b"DATA\r\n").replace(b"\r\n", b"\n\r")
    assert talk.say(sent + b".\n\rNOOP\n\r") == [250, 250, 250, 354, 554, 250]
    assert talk.say(sent + b"hello\n\r.x\n\r.\n\rQUIT\n\r") == [250, 250, 250, 354, 554, 221]


def test_content_up_to_the_bound_is_refused_at_its_dot() -> None:
    talk = drained(b"x" * 98 + b"\r\n.\r\n", max_content_bytes=98)
    assert talk.replies == [554]  # type: ignore[attr-defined]
    assert talk.dialogue.closing == OPEN


def test_content_over_the_bound_is_refused_before_its_dot() -> None:
    """The client is still sending: a reset must not destroy the reply."""
    talk = drained(b"x" * 104, max_content_bytes=98)
    assert talk.replies == [554]  # type: ignore[attr-defined]
    assert (talk.dialogue.closing, talk.count["limit_content"]) == (LINGER, 1)


def test_bound_of_content_is_for_a_whole_connection() -> None:
    """DATA and BDAT count together: many small messages are like one large message."""
    message = ENVELOPE + b"DATA\r\n" + b"x" * 40 + b"\r\n.\r\n"
    talk = Talk(drain=True, max_content_bytes=100)
    assert talk.say(GREETED + message + message) == [250, 250, 250, 354, 554, 250, 250, 354, 554]
    assert talk.say(b"BDAT 20\r\n" + b"y" * 20 + b"NOOP\r\n") == [502, 250]
    assert talk.dialogue.closing == OPEN
    assert talk.say(b"BDAT 1\r\n") == [502]
    assert (talk.dialogue.closing, talk.count["limit_content"]) == (LINGER, 1)
    again = Talk(drain=True, max_content_bytes=50)
    assert again.say(GREETED + message) == [250, 250, 250, 354, 554]
    assert again.say(message) == [250, 250, 354, 554]
    assert (again.dialogue.closing, again.count["limit_content"]) == (LINGER, 1)


def test_bdat_over_the_bound_ends_the_session() -> None:
    talk = Talk(max_content_bytes=1000)
    assert talk.say(GREETED + b"BDAT 1001\r\n") == [250, 502]
    assert (talk.events, talk.dialogue.closing) == (GREET | DATA, LINGER)
    huge = Talk()
    assert huge.say(b"BDAT " + b"9" * 1500 + b"\r\n") == [502]
    assert huge.dialogue.closing == LINGER


AUTH_PERSONA = make_persona(STYLES["plain"], hostname="mx.example", offer_auth=True)


@pytest.mark.parametrize(
    ("octets", "replies"),
    [
        # Every attempt is refused, once its response is there.
        (b"AUTH PLAIN AGEAYg==\r\n", [535]),
        (b"AUTH PLAIN\r\nAGEAYg==\r\n", [334, 535]),
        (b"AUTH LOGIN\r\nYQ==\r\nYg==\r\n", [334, 334, 535]),
        (b"auth login YQ==\nYg==\n", [334, 535]),
        (b"AUTH PLAIN =\r\nNOOP\r\n", [535, 250]),
        # A response may be empty, and looks like no command.
        (b"AUTH LOGIN\r\n\r\nQUIT\r\nNOOP\r\n", [334, 334, 535, 250]),
        (b"AUTH PLAIN\r\nEHLO x\r\n", [334, 535]),
        # It may be cancelled.
        (b"AUTH LOGIN\r\n*\r\nNOOP\r\n", [334, 501, 250]),
        (b"AUTH PLAIN\n*\nNOOP\n", [334, 501, 250]),
        (b"AUTH PLAIN\r\n**\r\n", [334, 535]),
        # Not offered, or not complete.
        (b"AUTH CRAM-MD5\r\nAUTH\r\n", [504, 501]),
        # Long, and too long.
        (b"AUTH PLAIN\r\n" + b"A" * 12_000 + b"\r\nNOOP\r\n", [334, 535, 250]),
        (b"AUTH PLAIN\r\n" + b"A" * 13_000 + b"\r\nNOOP\r\n", [334, 421]),
    ],
)
def test_auth_gets_the_documented_replies_if_offered(octets: bytes, replies: list[int]) -> None:
    talk = Talk(persona=AUTH_PERSONA)
    assert b"250 AUTH PLAIN LOGIN\r\n" in talk.dialogue.receive(GREETED)
    assert talk.say(octets) == replies
    single = Talk(persona=AUTH_PERSONA)
    assert [code for octet in octets for code in single.say(bytes((octet,)))] == replies
    assert single.dialogue.held_bytes == 0


def test_auth_response_is_not_kept() -> None:
    talk = Talk(persona=AUTH_PERSONA)
    talk.say(b"AUTH PLAIN\r\n")
    for _ in range(10_000):
        talk.say(b"A")
        assert talk.dialogue.held_bytes <= 2


def test_responses_count_as_commands() -> None:
    talk = Talk(persona=AUTH_PERSONA, max_commands=5)
    assert talk.say(b"AUTH PLAIN\r\nAA==\r\n" * 2) == [334, 535, 334, 535]
    assert talk.say(b"AUTH PLAIN\r\n") == [334]
    assert talk.say(b"AA==\r\n") == [421]


def test_many_commands_end_the_session() -> None:
    talk = Talk(max_commands=3)
    assert talk.say(b"NOOP\r\n" * 3) == [250, 250, 250]
    assert talk.dialogue.closing == OPEN
    assert talk.say(b"NOOP\r\n") == [421]
    assert (talk.dialogue.closing, talk.count["limit_commands"]) == (CLOSE, 1)


class TestStarttls:
    """STARTTLS gets 220, and buffered plaintext is discarded (RFC 3207)."""

    def test_starttls_is_offered_and_accepted(self) -> None:
        talk = Talk(offer_tls=True)
        assert b"STARTTLS" in talk.dialogue.receive(GREETED)
        assert talk.say(b"STARTTLS\r\n") == [220]
        assert talk.dialogue.wants_tls

    def test_plaintext_after_starttls_is_discarded(self) -> None:
        talk = Talk(offer_tls=True)
        assert talk.say(b"STARTTLS\r\nEHLO injected\r\nMAIL FROM:<>\r\n") == [220]
        assert talk.say(b"NOOP\r\n") == []
        talk.dialogue.tls_started()
        assert talk.events == 0
        assert talk.say(b"NOOP\r\n") == [250]

    def test_state_is_reset_and_starttls_is_not_offered_again(self) -> None:
        talk = Talk(offer_tls=True)
        talk.say(GREETED + ENVELOPE + b"STARTTLS\r\n")
        talk.dialogue.tls_started()
        assert talk.say(b"DATA\r\n") == [503]
        assert b"STARTTLS" not in talk.dialogue.receive(GREETED)
        assert talk.say(b"STARTTLS\r\n") == [503]

    def test_greet_before_starttls_still_counts(self) -> None:
        """DATA without a new EHLO is a data event; a new EHLO is not a second greet."""
        talk = Talk(offer_tls=True)
        talk.say(GREETED + b"STARTTLS\r\n")
        assert talk.dialogue.take() == GREET
        talk.dialogue.tls_started()
        assert talk.say(b"DATA\r\nEHLO again\r\n") == [503, 250]
        assert talk.events == DATA

    def test_too_many_tls_sessions_get_454(self) -> None:
        count = new_counters()
        dialogue = Dialogue(PERSONA, Rules(offer_tls=True), count, NAMES, lambda: False)
        assert codes(dialogue.receive(b"STARTTLS\r\nNOOP\r\n")) == [454, 250]
        assert count["limit_tls"] == 1


def test_no_reply_names_the_software_of_the_sensor() -> None:
    for style in STYLES.values():
        persona = make_persona(style, hostname="mx.example", offer_tls=True)
        replies = b"".join(
            value
            for name in type(persona).__dataclass_fields__
            if isinstance(value := getattr(persona, name), bytes)
        ).lower()
        for word in (b"twisted", b"python", b"smtpfeeds", b"sensor", b"honeypot"):
            assert word not in replies
