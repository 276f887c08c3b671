"""Simulated clients, from transcripts that honeypots and researchers published.

Each function is one visit. What varies in the wild (names, number of messages, pace) varies here by
the visit's own random numbers.
"""

from __future__ import annotations

import base64
import contextlib
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from .kinds import Visit
from .real import domain

_LIMIT_S = 30


class _Line:
    """A connection that sends lines and reads whole replies; ends quietly when it is refused."""

    def __init__(self, visit: Visit) -> None:
        self._socket = socket.create_connection(visit.place, _LIMIT_S)
        self._stream = self._socket.makefile("rb")

    def reply(self) -> int:
        line = self._stream.readline()
        while line[3:4] == b"-":
            line = self._stream.readline()
        if not line:
            raise ConnectionError("closed")
        return int(line[:3])

    def say(self, text: str, end: str = "\r\n") -> int:
        self.send(text, end)
        return self.reply()

    def send(self, text: str, end: str = "\r\n") -> None:
        self._socket.sendall((text + end).encode())

    def close(self) -> None:
        self._stream.close()
        self._socket.close()


@contextmanager
def _line(visit: Visit) -> Iterator[_Line]:
    line = _Line(visit)
    try:
        with contextlib.suppress(OSError):
            yield line
    finally:
        line.close()


def _word(visit: Visit, letters: int = 8) -> str:
    return "".join(visit.random.choices("abcdefghijklmnopqrstuvwxyz", k=letters))


def _host(visit: Visit) -> str:
    return f"{_word(visit)}.{_word(visit, 5)}.example"


def _body(line: _Line, code: int) -> None:
    if code == 354:
        line.say("Subject: watches\r\n\r\nAll brands.\r\n.")


def survey(
    verb: str = "EHLO", *, starttls: bool = False, more: str = ""
) -> Callable[[Visit], None]:
    """Greets, perhaps asks for TLS, leaves."""

    def visit_once(visit: Visit) -> None:
        with _line(visit) as line:
            line.reply()
            line.say(f"{verb} scan-{visit.number}.survey.example")
            if more:
                line.say(more)
            if starttls:
                line.say("STARTTLS")
                return
            line.say("QUIT")

    return visit_once


def bare_greet(visit: Visit) -> None:
    """EHLO without a name, and away."""
    with _line(visit) as line:
        line.reply()
        line.say("EHLO")


def short_helo_bot(visit: Visit) -> None:
    """HELO with a workstation's name, one message after the other, no QUIT."""
    with _line(visit) as line:
        line.reply()
        line.say(f"HELO {_word(visit)}")
        for _ in range(visit.random.randint(1, 3)):
            line.say(f"MAIL FROM:<{_word(visit)}@{_host(visit)}>")
            line.say(f"RCPT TO:<{_word(visit)}@stray.example>")
            _body(line, line.say("DATA"))


def blaster(visit: Visit) -> None:
    """The whole session in one segment, whatever is answered."""
    with _line(visit) as line:
        line.reply()
        recipients = "".join(
            f"RCPT TO:<{_word(visit)}@stray.example>\r\n" for _ in range(visit.random.randint(1, 9))
        )
        line.send(
            f"EHLO {_host(visit)}\r\nMAIL FROM:<{_word(visit)}@{_host(visit)}>\r\n"
            f"{recipients}DATA\r\n"
            "Subject: pills\r\n\r\ncheap\r\n.\r\nQUIT"
        )
        while line.reply():
            pass


def bare_lf_bot(visit: Visit) -> None:
    """A session whose lines end in a bare LF."""
    with _line(visit) as line:
        line.reply()
        line.say(f"EHLO {_host(visit)}", "\n")
        line.say(f"MAIL FROM:<{_word(visit)}@{_host(visit)}>", "\n")
        line.say(f"RCPT TO:<{_word(visit)}@stray.example>", "\n")
        _body(line, line.say("DATA", "\n"))
        line.say("QUIT", "\n")


def literal_bot(visit: Visit) -> None:
    """EHLO with an address literal, one message, QUIT."""
    with _line(visit) as line:
        line.reply()
        line.say("EHLO [198.51.100.7]")
        line.say(f"MAIL FROM:<{_word(visit)}@{_host(visit)}>")
        line.say(f"RCPT TO:<{_word(visit)}@stray.example>")
        _body(line, line.say("DATA"))
        line.say("QUIT")


def loose_bot(visit: Visit) -> None:
    """HELO with a host name, blanks before its paths, verbs in lower case."""
    with _line(visit) as line:
        line.reply()
        line.say(f"helo {_host(visit)}")
        line.say(f"mail from: <{_word(visit)}@{_host(visit)}>")
        line.say(f"rcpt to: <{_word(visit)}@stray.example>")
        _body(line, line.say("data"))
        line.say("quit")


def imitator(visit: Visit) -> None:
    """Every octet as Postfix sends it."""
    with _line(visit) as line:
        line.reply()
        line.say(f"EHLO mail.{domain(visit)}")
        line.send(f"MAIL FROM:<{_word(visit)}@{domain(visit)}> SIZE=2048")
        line.send(f"RCPT TO:<{_word(visit)}@stray.example>")
        line.send("DATA")
        line.reply()
        line.reply()
        _body(line, line.reply())
        line.say("QUIT")


def imitator_without_quit(visit: Visit) -> None:
    """As Postfix, one verb at a time, but it hangs up when it is refused."""
    with _line(visit) as line:
        line.reply()
        line.say(f"EHLO mail.{domain(visit)}")
        line.say(f"MAIL FROM:<{_word(visit)}@{domain(visit)}> SIZE=900")
        line.say(f"RCPT TO:<{_word(visit)}@stray.example>")
        _body(line, line.say("DATA"))


def relay_tester(visit: Visit) -> None:
    """A sender that names the tested server, so that the tester knows which one relayed."""
    banner = visit.banner
    sender = visit.random.choice(
        [f"antispam@[{visit.dialled}]", f"spameri@{banner}", f"{visit.dialled}@relay.example"]
    )
    with _line(visit) as line:
        line.reply()
        line.say(f"{visit.random.choice(['HELO', 'EHLO'])} {_host(visit)}")
        line.say(f"MAIL FROM:<{sender}>")
        line.say(f"RCPT TO:<{_word(visit)}@webmail.example>")
        _body(line, line.say("DATA"))
        line.say("QUIT")


def relay_forms(visit: Visit) -> None:
    """The catalogue of an open-relay checker: many envelopes and routed recipients."""
    here = visit.banner
    forms = ["relaytest@checker.example", f"relaytest%checker.example@{here}",
             "@checker.example:relaytest@checker.example", "checker.example!relaytest"]  # fmt: skip
    with _line(visit) as line:
        line.reply()
        line.say("HELO checker.example")
        for form in forms:
            line.say(f"MAIL FROM:<relaytest@{here}>")
            line.say(f"RCPT TO:<{form}>")
            line.say("RSET")
        line.say("QUIT")


def login_guesser(visit: Visit) -> None:
    """EHLO User, AUTH LOGIN, one name and one password; tried whether or not AUTH is offered."""
    with _line(visit) as line:
        line.reply()
        line.say("EHLO User")
        for text in ("AUTH LOGIN", _b64("info"), _b64(_word(visit))):
            if line.say(text) not in {334, 535}:
                break


def plain_guesser(visit: Visit) -> None:
    """AUTH PLAIN with an initial response, several times in a connection."""
    with _line(visit) as line:
        line.reply()
        line.say(f"EHLO {_host(visit)}")
        for _ in range(visit.random.randint(2, 5)):
            line.say(f"AUTH PLAIN {_b64(chr(0) + 'admin' + chr(0) + _word(visit))}")
        line.say("QUIT")


def user_enumerator(visit: Visit) -> None:
    """VRFY and EXPN of common names."""
    with _line(visit) as line:
        line.reply()
        line.say(f"HELO {_host(visit)}")
        for name in ("root", "admin", "postmaster", "test"):
            line.say(f"{visit.random.choice(['VRFY', 'EXPN'])} {name}")
        line.say("QUIT")


def recipient_enumerator(visit: Visit) -> None:
    """Many recipients for one sender, and no message."""
    with _line(visit) as line:
        line.reply()
        line.say(f"EHLO {_host(visit)}")
        line.say(f"MAIL FROM:<{_word(visit)}@{_host(visit)}>")
        for _ in range(visit.random.randint(6, 12)):
            line.say(f"RCPT TO:<{_word(visit)}@stray.example>")
        line.say("RSET")
        line.say("QUIT")


def callout(visit: Visit) -> None:
    """A mail server verifies an address before it accepts mail from it (as Exim's callout)."""
    with _line(visit) as line:
        line.reply()
        line.say(f"EHLO mx.{domain(visit)}")
        line.say("MAIL FROM:<> SIZE=1024")
        line.say("RCPT TO:<two@stray.example>")
        line.say("QUIT")


def bounce(visit: Visit) -> None:
    """A mail server returns what it could not deliver: backscatter."""
    with _line(visit) as line:
        line.reply()
        line.say(f"EHLO mx.{domain(visit)}")
        line.say("MAIL FROM:<> SIZE=4096")
        line.say("RCPT TO:<two@stray.example>")
        _body(line, line.say("DATA"))
        line.say("QUIT")


def half_probe(visit: Visit) -> None:
    """MAIL and RCPT from a script that looks who answers, and no more."""
    with _line(visit) as line:
        line.reply()
        line.say(f"HELO {_word(visit)}")
        line.say("MAIL FROM:<test@test.example>")
        line.say("RCPT TO:<test@test.example>")


def web_after_greet(visit: Visit) -> None:
    """A scanner of many protocols: greets, then sends what is not SMTP."""
    with _line(visit) as line:
        line.reply()
        line.say("EHLO masscan")
        line.send("GET / HTTP/1.1\r\nHost: x\r\n")
        line.reply()


def _b64(text: str) -> str:
    return base64.b64encode(text.encode()).decode()
