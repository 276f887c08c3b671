"""Behaviours: what a client did, one bit each, ORed over its visits.

The sensor sets the bits, the message and the database carry them as one integer,
and the aggregator derives a class from them. A bit never gets another meaning.
Readers ignore bits that they do not know.
"""

from enum import IntFlag
from typing import Final


class Flags(IntFlag):
    """The behaviours by bit; a lower-case name is what the feeds' `flags` column shows."""

    BARE_LF = 1 << 0
    EARLY_TALKER = 1 << 1
    FULL_HOST_NAME = 1 << 2
    ADDRESS_LITERAL = 1 << 3
    NO_ARGUMENT = 1 << 4
    NAMED_SENSOR = 1 << 5
    AUTH = 1 << 6
    STARTTLS = 1 << 7
    PROBED_USERS = 1 << 8
    NULL_SENDER = 1 << 9
    MESSAGE = 1 << 10
    MANY_RECIPIENTS = 1 << 11
    RELAY_PROBE = 1 << 12
    UNHEEDING = 1 << 13
    QUIT = 1 << 14
    NOT_SMTP_AFTER = 1 << 15
    SHORT_NAME = 1 << 16
    HELO = 1 << 17
    LOWER_CASE = 1 << 18
    LOOSE_PATH = 1 << 19
    EXTENSION = 1 << 20
    UNOFFERED = 1 << 21
    RECIPIENT = 1 << 22
    SENDER = 1 << 23
    MANY_ENVELOPES = 1 << 24
    AUTH_RESPONSE = 1 << 25
    AUTH_AGAIN = 1 << 26
    BANNER_DELAYED = 1 << 27
    ROUTED_RECIPIENT = 1 << 28


MEANINGS: Final[dict[Flags, str]] = {
    Flags.BARE_LF: "a line ended by a bare LF",
    Flags.EARLY_TALKER: "spoke before the banner; measured only if `banner_delayed` is set",
    Flags.FULL_HOST_NAME: "greeted with a full host name",
    Flags.ADDRESS_LITERAL: "greeted with an address literal such as `[192.0.2.1]`",
    Flags.NO_ARGUMENT: "greeted without an argument",
    Flags.NAMED_SENSOR: "greeted with the sensor's own address or banner name",
    Flags.AUTH: "tried AUTH; NTLM's first message alone does not count, because it contains no "
    "login",
    Flags.STARTTLS: "asked for STARTTLS",
    Flags.PROBED_USERS: "sent VRFY or EXPN",
    Flags.NULL_SENDER: "sent `MAIL FROM:<>`",
    Flags.MESSAGE: "sent DATA or BDAT after MAIL and RCPT were accepted",
    Flags.MANY_RECIPIENTS: "five or more RCPT for one MAIL",
    Flags.RELAY_PROBE: "named the sensor where only a test for an open relay does",
    Flags.UNHEEDING: "continued after a refusal, or did not wait for a reply",
    Flags.QUIT: "ended with QUIT",
    Flags.NOT_SMTP_AFTER: "sent something that is not SMTP after its greet",
    Flags.SHORT_NAME: "greeted with one label or with anything else",
    Flags.HELO: "said HELO",
    Flags.LOWER_CASE: "sent a verb in lower or mixed case",
    Flags.LOOSE_PATH: "sent a path with a space before it or without brackets",
    Flags.EXTENSION: "used an extension that was offered",
    Flags.UNOFFERED: "used an extension that was not offered",
    Flags.RECIPIENT: "MAIL and RCPT were accepted",
    Flags.SENDER: "sent a MAIL whose sender is not null",
    Flags.MANY_ENVELOPES: "three or more MAIL without DATA",
    Flags.AUTH_RESPONSE: "sent a response to an AUTH challenge, or an initial one",
    Flags.AUTH_AGAIN: "tried the same AUTH mechanism twice in a connection",
    Flags.BANNER_DELAYED: "met a sensor that delays its banner, so early talk was measured",
    Flags.ROUTED_RECIPIENT: "sent a RCPT with a source route, `%` or `!`",
}
