"""The reply to each verb, and the behaviours that it shows.

Each verb has one short method, which takes the argument and returns the reply. This module keeps
events, envelope and behaviours; ``dialogue`` splits octets into commands and handles other input.
It follows RFC 5321 section 4.1.1, RFC 3030 (BDAT), RFC 3207 (STARTTLS) and RFC 4954 (AUTH).

No sender, recipient, argument or content outlives the call that read it; the
argument is the dialogue's copy, which the dialogue erases after the call.
"""

import re
from collections.abc import Callable, MutableMapping
from dataclasses import dataclass
from typing import ClassVar, Final

from smtpfeeds_common.behaviours import Flags

from .auth import OFFERED, Attempt, Responses, read_attempt
from .behaviours import greet_behaviours, mail_behaviours, rcpt_behaviours
from .content import Content
from .names import SensorNames
from .personas import AUTH, STARTTLS, Persona

# Plain integers: arithmetic on an IntFlag costs a microsecond.
_AUTH: Final = int(Flags.AUTH)
_AUTH_AGAIN: Final = int(Flags.AUTH_AGAIN)
_AUTH_RESPONSE: Final = int(Flags.AUTH_RESPONSE)
_HELO: Final = int(Flags.HELO)
_MANY_ENVELOPES: Final = int(Flags.MANY_ENVELOPES)
_MANY_RECIPIENTS: Final = int(Flags.MANY_RECIPIENTS)
_MESSAGE: Final = int(Flags.MESSAGE)
_NULL_SENDER: Final = int(Flags.NULL_SENDER)
_PROBED_USERS: Final = int(Flags.PROBED_USERS)
_QUIT: Final = int(Flags.QUIT)
_RECIPIENT: Final = int(Flags.RECIPIENT)
_RELAY_PROBE: Final = int(Flags.RELAY_PROBE)
_STARTTLS_EXTENSION: Final = int(Flags.STARTTLS | Flags.EXTENSION)
_STARTTLS_UNOFFERED: Final = int(Flags.STARTTLS | Flags.UNOFFERED)
_UNOFFERED: Final = int(Flags.UNOFFERED)

#: Bits of ``Commands.heard``.
GREET: Final = 1
DATA: Final = 2

#: Values of ``Commands.closing``: the connection goes on; ends once the reply
#: is sent; ends after the reply, but the client is still sending, and must not
#: lose the reply to a reset.
OPEN, CLOSE, LINGER = range(3)

#: The kind of the octets that arrive now.
COMMAND, CONTENT, RESPONSE, LONG_LINE, CHUNK, WAIT_TLS, CLOSED = range(7)

#: Bits of the envelope: both first ones make DATA in order.
_MAIL, _RCPT, _NULL = 1, 2, 4
_COMPLETE: Final = _MAIL | _RCPT
#: Represents an argument that is not examined: neither a name, nor an address, nor empty.
_UNREADABLE: Final = bytearray(b"?")
#: BDAT's size, as a word of its own.
_SIZE: Final = re.compile(rb"([0-9]{1,20})[0-9]*(?: |\Z)")
#: The last refusal; a line after it that is not a verb shows that the client ignores replies.
NO_REFUSAL, DATA_REFUSED, AUTH_REFUSED = range(3)

#: From this number on they are a behaviour: RCPT for one MAIL, MAIL without DATA.
MANY_RECIPIENTS_FROM: Final = 5
MANY_ENVELOPES_FROM: Final = 3


@dataclass(frozen=True, slots=True)
class Rules:
    """The rules that all dialogues of a sensor share."""

    #: Whether DATA is answered 354 and its content discarded; otherwise DATA is refused.
    drain: bool = False
    offer_tls: bool = False
    #: Whether the banner is delayed, so that early talk shows.
    banner_delayed: bool = False
    max_line_bytes: int = 2048
    max_content_bytes: int = 10 * 1024 * 1024
    max_commands: int = 500
    max_unknown_commands: int = 10


class Commands:
    """The commands of one connection."""

    __slots__ = (
        "_content_left",
        "_count",
        "_data_heard",
        "_envelope",
        "_envelopes",
        "_greeted",
        "_in_tls",
        "_left",
        "_line_by_lf",
        "_mechanisms",
        "_mode",
        "_names",
        "_offered",
        "_reading",
        "_recipients",
        "_refused",
        "_rules",
        "_tls_free",
        "closing",
        "flags",
        "heard",
        "persona",
        "wants_tls",
    )

    def __init__(
        self,
        persona: Persona,
        rules: Rules,
        count: MutableMapping[str, int],
        names: SensorNames,
        tls_free: Callable[[], bool],
    ) -> None:
        self.persona, self._rules, self._count = persona, rules, count
        self._names, self._tls_free = names, tls_free
        self._mode = COMMAND
        #: The content or responses to AUTH that are being read.
        self._reading: Content | Responses | None = None
        #: Octets of content, by DATA and BDAT together, that are still allowed.
        self._content_left = rules.max_content_bytes
        #: Extensions that the last EHLO was offered.
        self._offered = 0
        #: MAIL since the last DATA; RCPT since the last MAIL; mechanisms of AUTH that were tried.
        self._envelopes = self._recipients = self._mechanisms = 0
        self._envelope = self._left = 0
        self._refused = NO_REFUSAL
        self._greeted = self._data_heard = self._in_tls = self._line_by_lf = False
        #: Events that were not taken yet: GREET and DATA at most once each.
        self.heard = 0
        #: Behaviours so far, as in ``smtpfeeds_common.behaviours.Flags``.
        self.flags = int(Flags.BANNER_DELAYED) if rules.banner_delayed else 0
        self.closing = OPEN
        #: After the reply, go to TLS and call ``tls_started``.
        self.wants_tls = False

    # Events

    def hear_greet(self, argument: bytearray) -> None:
        """Handle a HELO or EHLO: the first is the event, and each argument shows a behaviour."""
        self.flags |= greet_behaviours(argument, self._names)
        if self._greeted:
            self._count["greet_again"] += 1
        else:
            self._greeted = True
            self.heard |= GREET

    def hear_data(self) -> None:
        """Handle a DATA or BDAT: the first one after a greet is the event."""
        if not self._greeted:
            self._count["data_before_greet"] += 1
        elif not self._data_heard:
            self._data_heard = True
            self.heard |= DATA

    def hear_unreadable(self, handler: "Handler") -> None:
        """Count a verb whose argument is too long, or has NUL or 8-bit octets."""
        verbs = self.VERBS
        if handler is verbs[b"HELO"] or handler is verbs[b"EHLO"]:
            if handler is verbs[b"HELO"]:
                self.flags |= _HELO
            self.hear_greet(_UNREADABLE)
        elif handler is verbs[b"DATA"] or handler is verbs[b"BDAT"]:
            self.hear_data()
        elif handler is verbs[b"AUTH"]:
            self.flags |= _AUTH if self._offered & AUTH else _AUTH | _UNOFFERED
        elif handler is verbs[b"VRFY"] or handler is verbs[b"EXPN"]:
            self.flags |= _PROBED_USERS

    # Commands

    def _helo(self, argument: bytearray) -> bytes:
        self._count["verb_helo"] += 1
        self.flags |= _HELO
        self.hear_greet(argument)
        self._reset()
        self._offered = 0
        return self.persona.helo

    def _ehlo(self, argument: bytearray) -> bytes:
        self._count["verb_ehlo"] += 1
        self.hear_greet(argument)
        self._reset()
        persona = self.persona
        if self._in_tls:
            self._offered = persona.offers_in_tls
            return persona.ehlo_in_tls
        self._offered = persona.offers
        return persona.ehlo

    def _reset(self) -> None:
        self._envelope = 0
        self._refused = NO_REFUSAL

    def _mail(self, argument: bytearray) -> bytes:
        self._count["verb_mail"] += 1
        bits = mail_behaviours(argument, self._names, self._offered)
        self._envelope = _MAIL | _NULL if bits & _NULL_SENDER else _MAIL
        self._envelopes += 1
        if self._envelopes >= MANY_ENVELOPES_FROM:
            bits |= _MANY_ENVELOPES
        self.flags |= bits
        self._recipients = 0
        self._refused = NO_REFUSAL
        return self.persona.mail_ok

    def _rcpt(self, argument: bytearray) -> bytes:
        self._count["verb_rcpt"] += 1
        bits = rcpt_behaviours(argument, self._names)
        self._envelope |= _RCPT
        if self._envelope & _MAIL:
            bits |= _RECIPIENT
            self._recipients += 1
            if self._recipients >= MANY_RECIPIENTS_FROM:
                bits |= _MANY_RECIPIENTS
        self.flags |= bits
        return self.persona.rcpt_ok

    def _data(self, _argument: bytearray) -> bytes:
        self._count["verb_data"] += 1
        self.hear_data()
        envelope, self._envelopes = self._envelope, 0
        in_order = envelope & _COMPLETE == _COMPLETE
        if in_order:
            self.flags |= _MESSAGE
        else:
            self._count["data_out_of_order"] += 1
        if not in_order or not self._greeted:
            self._refused = DATA_REFUSED
            return self.persona.bad_order
        self._envelope = 0
        if not self._rules.drain:
            self._refused = DATA_REFUSED
            return self.persona.refused
        self._mode = CONTENT
        # A bounce quotes the address that failed, so the sensor's names in it do not show a relay
        # test.
        searched = not envelope & _NULL and not self.flags & _RELAY_PROBE
        self._reading = Content(
            self._content_left,
            by_lf=self._line_by_lf,
            names=self._names if searched else None,
        )
        return self.persona.go_ahead

    def _bdat(self, argument: bytearray) -> bytes:
        self._count["verb_bdat"] += 1
        self.hear_data()
        self._envelopes = 0
        self.flags |= _UNOFFERED
        if self._envelope & _COMPLETE == _COMPLETE:
            self.flags |= _MESSAGE
        # Twenty digits exceed every bound; Python would be slow with a thousand.
        size = _SIZE.match(argument)
        announced = int(size[1]) if size else 0
        if announced > self._content_left:
            return self.end("limit_content", self.persona.not_implemented, LINGER)
        self._content_left -= announced
        if announced:
            self._mode, self._left = CHUNK, announced
        return self.persona.not_implemented

    def _rset(self, _argument: bytearray) -> bytes:
        self._count["verb_rset"] += 1
        self._reset()
        return self.persona.ok

    def _noop(self, _argument: bytearray) -> bytes:
        self._count["verb_noop"] += 1
        return self.persona.ok

    def _help(self, _argument: bytearray) -> bytes:
        self._count["verb_help"] += 1
        return self.persona.help

    def _vrfy(self, _argument: bytearray) -> bytes:
        self._count["verb_vrfy"] += 1
        self.flags |= _PROBED_USERS
        return self.persona.vrfy

    def _expn(self, _argument: bytearray) -> bytes:
        self._count["verb_expn"] += 1
        self.flags |= _PROBED_USERS
        return self.persona.not_implemented

    def _auth(self, argument: bytearray) -> bytes:
        """Handle AUTH; only the mechanism matters, and whether something follows it."""
        self._count["verb_auth"] += 1
        attempt = read_attempt(argument)
        persona = self.persona
        if not self._offered & AUTH:
            self.flags |= _UNOFFERED
        if attempt is None:
            self.flags |= _AUTH
        else:
            self._note_attempt(attempt)
        if not persona.offers & AUTH:
            self._refused = AUTH_REFUSED
            return persona.not_implemented
        if attempt is None:
            return persona.auth_syntax
        return self._begin_auth(attempt.mechanism, given=int(attempt.given))

    def _note_attempt(self, attempt: Attempt) -> None:
        if not attempt.asks_for_the_host:
            self.flags |= _AUTH
            if attempt.responds:
                self.flags |= _AUTH_RESPONSE
        if self._mechanisms & attempt.bit:
            self.flags |= _AUTH_AGAIN
        self._mechanisms |= attempt.bit

    def _begin_auth(self, mechanism: bytes, *, given: int) -> bytes:
        awaited = OFFERED.get(mechanism, 0) - given
        if mechanism not in OFFERED:
            self._refused = AUTH_REFUSED
            return self.persona.auth_unknown
        if awaited <= 0:
            return self.fail_auth()
        self._mode, self._reading = RESPONSE, Responses(mechanism, awaited)
        return self.challenge(mechanism, awaited)

    def challenge(self, mechanism: bytes, awaited: int) -> bytes:
        """Return the reply to a client whose response is expected."""
        if mechanism == b"LOGIN":
            return self.persona.auth_challenges[awaited]
        return self.persona.auth_go_on

    def fail_auth(self) -> bytes:
        """Return the reply to a failed attempt; every attempt fails."""
        self._refused = AUTH_REFUSED
        return self.persona.auth_failed

    def _starttls(self, _argument: bytearray) -> bytes:
        self._count["verb_starttls"] += 1
        self.flags |= _STARTTLS_EXTENSION if self._offered & STARTTLS else _STARTTLS_UNOFFERED
        if not self._rules.offer_tls:
            return self.persona.not_implemented
        if self._in_tls:
            return self.persona.bad_order
        if not self._tls_free():
            self._count["limit_tls"] += 1
            return self.persona.tls_busy
        self.wants_tls = True
        self._mode = WAIT_TLS
        return self.persona.tls_ready

    def tls_started(self) -> None:
        """Reset the state as at connect, but keep the events (RFC 3207 4.2)."""
        self.wants_tls = False
        self._in_tls = True
        self._mode = COMMAND
        self._offered = 0
        self._reset()

    def _quit(self, _argument: bytearray) -> bytes:
        self.flags |= _QUIT
        return self.end("verb_quit", self.persona.quit)

    def end(self, counter: str, reply: bytes, how: int = CLOSE) -> bytes:
        """End the session; later input is ignored."""
        self._count[counter] += 1
        self._mode, self.closing, self._reading = CLOSED, how, None
        return reply

    VERBS: ClassVar["dict[bytes, Handler]"] = {
        b"HELO": _helo,
        b"EHLO": _ehlo,
        b"MAIL": _mail,
        b"RCPT": _rcpt,
        b"DATA": _data,
        b"BDAT": _bdat,
        b"RSET": _rset,
        b"NOOP": _noop,
        b"HELP": _help,
        b"VRFY": _vrfy,
        b"EXPN": _expn,
        b"AUTH": _auth,
        b"STARTTLS": _starttls,
        b"QUIT": _quit,
    }


Handler = Callable[[Commands, bytearray], bytes]

GREETS: Final = frozenset(Commands.VERBS[verb] for verb in (b"HELO", b"EHLO"))
#: Verbs that others may follow in one group (RFC 2920 section 3.1).
MAY_BE_FOLLOWED: Final = frozenset(Commands.VERBS[verb] for verb in (b"MAIL", b"RCPT", b"RSET"))
