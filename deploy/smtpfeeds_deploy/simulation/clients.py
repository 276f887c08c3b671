"""The kinds of SMTP client that a sensor meets, each a short dialogue.

A kind is a coroutine over one connection, which enters its events in the session's ledger. The
rules for events are those of the documented dialogue, not the answers of the sensor: a greet is
the first HELO or EHLO, a data event is the first DATA or BDAT after it, and a connection has at
most one of each.
"""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final

from smtpfeeds_common.feeds import DATA, GREET

from .ledger import Session
from .talk import ClientTrouble, Now, Talk

_MAIL: Final = b"MAIL FROM:<offers@example.net>"
_RCPT: Final = b"RCPT TO:<someone@example.org>"
_BODY: Final = b"Subject: offer\r\n\r\nBuy now.\r\n.\r\n"
#: The start of a TLS 1.2 record with a ClientHello; no sensor reads further.
_CLIENT_HELLO: Final = bytes.fromhex("16030100c8010000c40303") + bytes(32)
_SLOW_PAUSE_S: Final = 0.03


@dataclass(slots=True)
class Client:
    """A client during its connection."""

    talk: Talk
    session: Session
    now_ms: Now
    #: When the connection began: the earliest time of events in its first segment.
    began_ms: int

    async def banner(self) -> None:
        """Read the banner."""
        await self._expect({220})

    async def ask(self, verb: bytes, *codes: int, end: bytes = b"\r\n") -> int:
        """Send a line and read its reply, which must have one of these codes."""
        self.talk.send(verb + end)
        return await self._expect(set(codes))

    async def _expect(self, codes: set[int]) -> int:
        code = await self.talk.reply()
        self.session.replies.append(code)
        if code not in codes:
            expected = " or ".join(map(str, sorted(codes)))
            raise ClientTrouble(f"answered {code}, not {expected}")
        return code

    async def answers(self, *codes: int) -> None:
        """Read replies, which must have these codes in this order."""
        for code in codes:
            await self._expect({code})

    async def greet(self, verb: bytes = b"EHLO client.example.net", end: bytes = b"\r\n") -> None:
        """Send HELO or EHLO, and enter it in the ledger."""
        sent = self.now_ms()
        await self.ask(verb, 250, end=end)
        self.note_greet(verb, end, sent)

    def note_greet(self, verb: bytes, end: bytes, sent_ms: int) -> None:
        """Enter a greet whose reply has just arrived."""
        self.session.heard(GREET.name, sent_ms, self.now_ms())
        self.session.bare_lf |= end == b"\n"
        self.session.full_host_name |= b"." in verb

    async def data(self, end: bytes = b"\r\n", codes: tuple[int, ...] = (354, 554)) -> None:
        """Send DATA, enter it in the ledger, and send a message if the sensor accepts one."""
        sent = self.now_ms()
        code = await self.ask(b"DATA", *codes, end=end)
        self.session.heard(DATA.name, sent, self.now_ms())
        if code == 354:
            self.talk.send(_BODY.replace(b"\r\n", end))
            await self.answers(554)

    async def envelope(self, end: bytes = b"\r\n") -> None:
        """Send MAIL and RCPT."""
        await self.ask(_MAIL, 250, end=end)
        await self.ask(_RCPT, 250, end=end)

    async def quit(self, end: bytes = b"\r\n") -> None:
        """Send QUIT, and wait until the sensor closes."""
        await self.ask(b"QUIT", 221, end=end)
        await self.talk.until_closed()


async def scanner(client: Client) -> None:
    """Greets, reads the offered extensions, quits."""
    await client.banner()
    await client.greet(b"EHLO scanner.example.net")
    await client.quit()


async def banner_grabber(client: Client) -> None:
    """Reads the banner and closes without a command."""
    await client.banner()
    client.talk.close()


async def bare_ehlo(client: Client) -> None:
    """Sends EHLO without an argument, as nmap and zgrab2 do."""
    await client.banner()
    await client.greet(b"EHLO")
    await client.quit()


async def mailer(client: Client) -> None:
    """Delivers a message, one verb at a time."""
    await client.banner()
    await client.greet(b"EHLO mail.example.net")
    await client.envelope()
    await client.data()
    await client.quit()


async def spammer(client: Client) -> None:
    """Sends the whole session in one segment, after the banner."""
    await client.banner()
    await _pipeline(client, b"", client.now_ms())


async def early_spammer(client: Client) -> None:
    """Sends the whole session in the first segment, before the banner."""
    await _pipeline(client, b"", client.began_ms, early=True)


async def _pipeline(client: Client, before: bytes, sent_ms: int, *, early: bool = False) -> None:
    greeting = b"EHLO bulk.example.net"
    verbs = (greeting, _MAIL, _RCPT, b"DATA")
    client.talk.send(before + b"\r\n".join(verbs) + b"\r\n" + _BODY + b"QUIT\r\n")
    if early:
        await client.banner()
    await client.answers(250)
    client.note_greet(greeting, b"\r\n", sent_ms)
    await client.answers(250, 250)
    code = await client.talk.reply()
    client.session.replies.append(code)
    if code not in {354, 554}:
        raise ClientTrouble(f"DATA answered {code}, not 354 or 554")
    client.session.heard(DATA.name, sent_ms, client.now_ms())
    await client.talk.until_closed()


async def bare_lf_bot(client: Client) -> None:
    """Ends its lines with a bare LF, as some bots do."""
    await client.banner()
    await client.greet(b"HELO ylmf-pc", end=b"\n")
    await client.envelope(end=b"\n")
    await client.data(end=b"\n")
    await client.quit(end=b"\n")


async def http_request(client: Client) -> None:
    """Sends an HTTP request to the SMTP port."""
    await client.banner()
    client.talk.send(b"GET / HTTP/1.1\r\nHost: www.example.net\r\nUser-Agent: EHLO\r\n\r\n")
    await client.talk.until_closed()


async def tls_hello(client: Client) -> None:
    """Starts TLS on the plain-text port."""
    await client.banner()
    client.talk.send(_CLIENT_HELLO)
    await client.talk.until_closed()


async def helo_twice(client: Client) -> None:
    """Greets twice in a connection, which counts as one greet."""
    await client.banner()
    await client.greet(b"HELO twice.example.net")
    await client.ask(b"EHLO twice.example.net", 250)
    await client.envelope()
    await client.quit()


async def data_out_of_order(client: Client) -> None:
    """Sends DATA without MAIL and RCPT; the sensor refuses it and counts it."""
    await client.banner()
    await client.greet(b"EHLO hurry.example.net")
    await client.data(codes=(503,))
    await client.envelope()
    await client.quit()


async def data_without_greet(client: Client) -> None:
    """Sends DATA without a greet, which is not an event."""
    await client.banner()
    await client.ask(b"DATA", 503)
    await client.quit()


async def bdat_sender(client: Client) -> None:
    """Sends its message with BDAT (RFC 3030), which the sensor does not offer."""
    await client.banner()
    await client.greet(b"EHLO chunks.example.net")
    await client.envelope()
    sent = client.now_ms()
    client.talk.send(b"BDAT 8 LAST\r\nEHLO x\r\n")
    await client.answers(502)
    client.session.heard(DATA.name, sent, client.now_ms())
    await client.quit()


async def password_guesser(client: Client) -> None:
    """Tries to log in."""
    await client.banner()
    await client.greet(b"EHLO guess.example.net")
    await client.ask(b"AUTH LOGIN", 502)
    await client.quit()


async def slow_one(client: Client) -> None:
    """Sends its greet octet by octet."""
    await client.banner()
    for octet in b"ehlo slow.example.net\r":
        client.talk.send(bytes((octet,)))
        await asyncio.sleep(_SLOW_PAUSE_S)
    sent = client.now_ms()
    await client.ask(b"", 250, end=b"\n")
    client.note_greet(b"ehlo slow.example.net", b"\r\n", sent)
    await client.quit()


async def half_word(client: Client) -> None:
    """Closes in the middle of its greet, which is not an event."""
    await client.banner()
    client.talk.send(b"EHL")
    client.talk.end_of_sending()
    await client.talk.until_closed()


async def hasty(client: Client) -> None:
    """Greets and ends its sending without waiting for the reply."""
    await client.banner()
    sent = client.now_ms()
    client.talk.send(b"HELO hasty.example.net\r\n")
    client.talk.end_of_sending()
    await client.talk.until_closed()
    client.note_greet(b"HELO hasty.example.net", b"\r\n", sent)


async def vanisher(client: Client) -> None:
    """Resets the connection in the middle of a delivery."""
    await client.banner()
    await client.greet(b"EHLO gone.example.net")
    await client.ask(_MAIL, 250)
    client.talk.abort()


Kind = Callable[[Client], Awaitable[None]]

#: Every kind by its name.
KINDS: Final[dict[str, Kind]] = {
    kind.__name__: kind
    for kind in (
        scanner,
        banner_grabber,
        bare_ehlo,
        mailer,
        spammer,
        early_spammer,
        bare_lf_bot,
        http_request,
        tls_hello,
        helo_twice,
        data_out_of_order,
        data_without_greet,
        bdat_sender,
        password_guesser,
        slow_one,
        half_word,
        hasty,
        vanisher,
    )
}
