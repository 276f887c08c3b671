"""The SMTP dialogue of a sensor: octets in; replies and events out.

Pure: no clock, no socket, no reactor. It follows RFC 5321 (commands, 4.1.1;
reply order, 4.3; sizes, 4.5.3), RFC 2920 (pipelining), RFC 3030 (BDAT), RFC
3207 (STARTTLS) and RFC 4954 (AUTH, never offered), and stands alone so that
every row of the table in ``docs/`` is a test that feeds octets.

What is decided depends on the stream of octets only, never on how it was cut
into pieces. What is held is at most one line, or four octets of content; what
is answered is bounded by ``max_commands`` times the longest reply.

No sender, recipient, argument or content outlives the call that read it.
"""

import re
from collections.abc import Callable, MutableMapping
from dataclasses import dataclass
from typing import Final

from smtpfeeds_common.wire import Flags

from .personas import Persona

#: Bits of ``Dialogue.heard``.
GREET: Final = 1
DATA: Final = 2

#: Values of ``Dialogue.closing``: the connection goes on; ends once the reply
#: is sent; ends after the reply, but the client is still sending, and must not
#: lose the reply to a reset.
OPEN: Final = 0
CLOSE: Final = 1
LINGER: Final = 2

_COMMAND, _CONTENT, _LONG_LINE, _CHUNK, _WAIT_TLS, _CLOSED = range(6)

_BARE_LF: Final = int(Flags.BARE_LF)
_EARLY: Final = int(Flags.EARLY_TALKER)
_FULL_NAME: Final = int(Flags.FULL_HOST_NAME)

_LETTERS: Final = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz")
#: What a command line may begin with before it is judged as a whole.
_LINE_STARTS: Final = _LETTERS | frozenset(b"\r\n \t")
_TLS_HELLO: Final = b"\x16\x03"
_HTTP_VERBS: Final = frozenset(
    b"GET POST HEAD PUT DELETE OPTIONS CONNECT PATCH TRACE PRI PROPFIND".split()
)
_HEADER_LINE: Final = re.compile(rb"[A-Za-z][A-Za-z0-9_-]*[ \t]*:")
#: RFC 1035 labels, at least two, the last not a number; RFC 5321 4.1.2 `Domain`.
_HOST_NAME: Final = re.compile(
    rb"(?=.{4,255}\Z)(?:[A-Za-z0-9_](?:[A-Za-z0-9_-]{0,61}[A-Za-z0-9])?\.)+"
    rb"[A-Za-z](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])\.?\Z"
)
_END_CRLF: Final = b"\r\n.\r\n"
_MAIL, _RCPT = 1, 2
#: For clients that end their DATA command by LF alone; others would have
#: content taken for commands (RFC 5321 2.3.8).
_END_LF: Final = re.compile(rb"\n\.\r?\n")
#: Octets of an unfinished end of content that are held back.
_TAIL: Final = len(_END_CRLF) - 1
#: Lines too long or with NUL or 8-bit octets, until the connection ends.
_BAD_LINES: Final = 3
#: Octets of one over-long line that are skipped, until the connection ends.
_MAX_SKIPPED_LINE: Final = 65_536


@dataclass(frozen=True, slots=True)
class Rules:
    """What all dialogues of a sensor share."""

    #: DATA is answered 354 and its content thrown away; else it is refused.
    drain: bool = False
    offer_tls: bool = False
    max_line_bytes: int = 2048
    max_content_bytes: int = 10 * 1024 * 1024
    max_commands: int = 500
    max_unknown_commands: int = 10


class Dialogue:
    """One connection's dialogue."""

    __slots__ = (
        "_at_content_start",
        "_bad",
        "_commands",
        "_count",
        "_data_heard",
        "_early_replies",
        "_envelope",
        "_greeted",
        "_in_tls",
        "_left",
        "_line_by_lf",
        "_mode",
        "_opened",
        "_persona",
        "_refused",
        "_rest",
        "_rules",
        "_tls_free",
        "_unknown",
        "closing",
        "flags",
        "heard",
        "wants_tls",
    )

    def __init__(
        self,
        persona: Persona,
        rules: Rules,
        count: MutableMapping[str, int],
        tls_free: Callable[[], bool] = lambda: True,
    ) -> None:
        """Begin; nothing is said before ``open``.

        Args:
            persona: the replies.
            rules: the bounds and what DATA is answered.
            count: the sensor's counters, added to.
            tls_free: whether one more connection may go to TLS now.
        """
        self._persona, self._rules, self._count = persona, rules, count
        self._tls_free = tls_free
        self._mode = _COMMAND
        self._rest = b""
        self._early_replies = b""
        #: 1: MAIL was heard, 2: RCPT was.
        self._envelope = 0
        self._commands = self._unknown = self._bad = self._left = 0
        self._greeted = self._data_heard = self._refused = self._opened = self._in_tls = False
        #: Whether the last command was ended by LF alone; whether its content is yet to begin.
        self._line_by_lf = self._at_content_start = False
        #: Events heard and not yet taken: GREET and DATA at most once each.
        self.heard = 0
        #: What was notable so far, as in ``wire.Flags``.
        self.flags = 0
        self.closing = OPEN
        #: After the reply, go to TLS and call ``tls_started``.
        self.wants_tls = False

    def open(self) -> bytes:
        """The banner, and the replies to what a client said before it."""
        self._opened = True
        early, self._early_replies = self._early_replies, b""
        return self._persona.banner + early

    @property
    def persona(self) -> Persona:
        """The replies of this connection."""
        return self._persona

    @property
    def greeted(self) -> bool:
        """Whether a greet was heard in this connection."""
        return self._greeted

    @property
    def reads_content(self) -> bool:
        """Whether what arrives now is content, not commands."""
        return self._mode in {_CONTENT, _CHUNK}

    @property
    def held_bytes(self) -> int:
        """Octets held of what arrived; for the test of the bound."""
        return len(self._rest)

    def take(self) -> int:
        """The events heard since the last call."""
        heard, self.heard = self.heard, 0
        return heard

    def receive(self, octets: bytes) -> bytes:
        """Take what arrived; give the replies.

        Look at ``heard``, ``closing`` and ``wants_tls`` afterwards.
        """
        if not self._opened and not self.flags & _EARLY and self._mode != _CLOSED:
            self.flags |= _EARLY
            self._count["early_talkers"] += 1
        if self._rest:
            octets, self._rest = self._rest + octets, b""
        replies = b""
        at, end = 0, len(octets)
        while at < end:
            mode = self._mode
            if mode == _COMMAND:
                stop = octets.find(b"\n", at, at + self._rules.max_line_bytes)
                if stop < 0:
                    reply, at = self._without_line_end(octets, at, end)
                else:
                    reply = self._command_line(octets[at:stop])
                    at = stop + 1
                if reply:
                    replies += reply
            elif mode == _CONTENT:
                reply, at = self._content(octets, at, end)
                replies += reply
            elif mode == _LONG_LINE:
                reply, at = self._skip_line(octets, at, end)
                replies += reply
            elif mode == _CHUNK:
                at = self._skip_chunk(at, end)
            else:
                break
        if self._opened:
            return replies
        self._early_replies += replies
        return b""

    def tls_started(self) -> None:
        """The state is as at connect, but what was heard stays heard (RFC 3207 4.2)."""
        self.wants_tls = False
        self._in_tls = True
        self._mode = _COMMAND
        self._rest = b""
        self._envelope = 0
        self._refused = False

    # One line in command state

    def _command_line(self, line: bytes) -> bytes:
        bare_lf = line[-1:] != b"\r"
        if not bare_lf:
            line = line[:-1]
        self._commands += 1
        if self._commands > self._rules.max_commands:
            return self._end("limit_commands", self._persona.too_many_errors)
        word, _, argument = line.partition(b" ")
        handler = _VERBS.get(word)
        if handler is None or not line.isascii() or b"\0" in line:
            return self._odd_line(line, bare_lf)
        if bare_lf:
            self._note_bare_lf()
        self._line_by_lf = bare_lf
        return handler(self, argument)

    def _odd_line(self, line: bytes, bare_lf: bool) -> bytes:  # noqa: FBT001 - private, one caller
        """Any line that is not plainly a command."""
        words = line.split(None, 1)
        if not words:
            return self._unknown_line()
        if _is_junk(line, words[0]):
            return self._junk(line)
        handler = _VERBS.get(words[0].upper())
        if handler is not None and bare_lf:
            self._note_bare_lf()
        if b"\0" in line or not line.isascii():
            return self._bad_line(handler)
        if handler is None:
            return self._unknown_line()
        self._line_by_lf = bare_lf
        return handler(self, words[1].rstrip() if len(words) > 1 else b"")

    def _without_line_end(self, octets: bytes, at: int, end: int) -> tuple[bytes, int]:
        """No line end within the longest line: wait for it, or judge at once what can be."""
        longest = self._rules.max_line_bytes
        if end - at >= longest:
            return self._begin_long_line(octets[at : at + longest]), at + longest
        begins = octets[at : at + 2]
        if begins[0] not in _LINE_STARTS and begins != _TLS_HELLO[:1]:
            return self._junk(begins), end
        self._rest = octets[at:]
        return b"", end

    def _begin_long_line(self, begins: bytes) -> bytes:
        self._commands += 1
        words = begins.split(None, 1)
        if words and _is_junk(begins, words[0]):
            return self._junk(begins)
        self._mode, self._left = _LONG_LINE, _MAX_SKIPPED_LINE
        return self._bad_line(_VERBS.get(words[0].upper()) if words else None)

    def _skip_line(self, octets: bytes, at: int, end: int) -> tuple[bytes, int]:
        stop = octets.find(b"\n", at) + 1
        self._left -= (stop or end) - at
        if self._left < 0:
            return self._end("limit_errors", self._persona.too_many_errors, LINGER), end
        if stop:
            self._mode = _COMMAND
        return b"", stop or end

    def _note_bare_lf(self) -> None:
        if not self.flags & _BARE_LF:
            self.flags |= _BARE_LF
            self._count["bare_lf"] += 1

    # Lines that are no commands

    def _junk(self, line: bytes) -> bytes:
        """Not SMTP: nothing from here on is looked at."""
        if self._refused:
            return self._unheeded_content()
        if line.startswith(_TLS_HELLO):
            return self._end("junk_tls", b"")
        return self._end("junk", self._persona.not_smtp)

    def _unknown_line(self) -> bytes:
        if self._refused:
            return self._unheeded_content()
        self._count["unknown_commands"] += 1
        self._unknown += 1
        if self._unknown >= self._rules.max_unknown_commands:
            return self._end("limit_errors", self._persona.too_many_errors)
        return self._persona.unknown

    def _unheeded_content(self) -> bytes:
        """Content from a client that does not listen to the refusal."""
        return self._end("body_after_refusal", b"")

    def _bad_line(self, handler: "Handler | None") -> bytes:
        if handler is None and self._refused:
            return self._unheeded_content()
        self._count["bad_lines"] += 1
        self._bad += 1
        if handler in _GREETS:
            self._hear_greet()
        elif handler in _DATAS:
            self._hear_data()
        if self._bad >= _BAD_LINES:
            return self._end("limit_errors", self._persona.bad_line)
        return self._persona.bad_line

    def _end(self, counter: str, reply: bytes, how: int = CLOSE) -> bytes:
        self._count[counter] += 1
        self._mode, self.closing, self._rest = _CLOSED, how, b""
        return reply

    # Events

    def _hear_greet(self, argument: bytes = b"") -> None:
        if self._greeted:
            self._count["greet_again"] += 1
            return
        self._greeted = True
        self.heard |= GREET
        if b"." in argument and _HOST_NAME.match(argument):
            self.flags |= _FULL_NAME

    def _hear_data(self) -> None:
        if not self._greeted:
            self._count["data_before_greet"] += 1
        elif not self._data_heard:
            self._data_heard = True
            self.heard |= DATA

    # Commands

    def _helo(self, argument: bytes) -> bytes:
        self._count["verb_helo"] += 1
        self._hear_greet(argument)
        self._reset()
        return self._persona.helo

    def _ehlo(self, argument: bytes) -> bytes:
        self._count["verb_ehlo"] += 1
        self._hear_greet(argument)
        self._reset()
        return self._persona.ehlo_in_tls if self._in_tls else self._persona.ehlo

    def _reset(self) -> None:
        self._envelope = 0
        self._refused = False

    def _mail(self, argument: bytes) -> bytes:  # noqa: ARG002 - never looked at
        self._count["verb_mail"] += 1
        self._envelope = _MAIL
        self._refused = False
        return self._persona.mail_ok

    def _rcpt(self, argument: bytes) -> bytes:  # noqa: ARG002
        self._count["verb_rcpt"] += 1
        self._envelope |= _RCPT
        return self._persona.rcpt_ok

    def _data(self, argument: bytes) -> bytes:  # noqa: ARG002
        self._count["verb_data"] += 1
        self._hear_data()
        in_order = self._envelope == _MAIL | _RCPT
        if not in_order:
            self._count["data_out_of_order"] += 1
        if not in_order or not self._greeted:
            self._refused = True
            return self._persona.bad_order
        self._envelope = 0
        if not self._rules.drain:
            self._refused = True
            return self._persona.refused
        self._mode, self._left = _CONTENT, self._rules.max_content_bytes
        self._at_content_start = True
        return self._persona.go_ahead

    def _bdat(self, argument: bytes) -> bytes:
        self._count["verb_bdat"] += 1
        self._hear_data()
        size = argument.split(b" ", 1)[0]
        announced = int(size) if size.isdigit() and len(size) < 20 else 0
        if announced > self._rules.max_content_bytes:
            return self._end("limit_content", self._persona.not_implemented, LINGER)
        if announced:
            self._mode, self._left = _CHUNK, announced
        return self._persona.not_implemented

    def _rset(self, argument: bytes) -> bytes:  # noqa: ARG002
        self._count["verb_rset"] += 1
        self._reset()
        return self._persona.ok

    def _noop(self, argument: bytes) -> bytes:  # noqa: ARG002
        self._count["verb_noop"] += 1
        return self._persona.ok

    def _help(self, argument: bytes) -> bytes:  # noqa: ARG002
        self._count["verb_help"] += 1
        return self._persona.help

    def _vrfy(self, argument: bytes) -> bytes:  # noqa: ARG002
        self._count["verb_vrfy"] += 1
        return self._persona.vrfy

    def _expn(self, argument: bytes) -> bytes:  # noqa: ARG002
        self._count["verb_expn"] += 1
        return self._persona.not_implemented

    def _auth(self, argument: bytes) -> bytes:  # noqa: ARG002 - a password: never looked at
        self._count["verb_auth"] += 1
        return self._persona.not_implemented

    def _starttls(self, argument: bytes) -> bytes:  # noqa: ARG002
        self._count["verb_starttls"] += 1
        if not self._rules.offer_tls:
            return self._persona.not_implemented
        if self._in_tls:
            return self._persona.bad_order
        if not self._tls_free():
            self._count["limit_tls"] += 1
            return self._persona.tls_busy
        self.wants_tls = True
        self._mode = _WAIT_TLS
        return self._persona.tls_ready

    def _quit(self, argument: bytes) -> bytes:  # noqa: ARG002
        return self._end("verb_quit", self._persona.quit)

    # Content

    def _content(self, octets: bytes, at: int, end: int) -> tuple[bytes, int]:
        """Throw content away up to the dot; a few octets are held where it may have begun."""
        if self._at_content_start:
            # The dot may be the first line: the line end before it is the command's own.
            for dot in (b".\r\n", b".\n") if self._line_by_lf else (b".\r\n",):
                if octets.startswith(dot, at):
                    return self._content_ended(), at + len(dot)
                if dot.startswith(octets[at:end]):
                    self._rest = octets[at:]
                    return b"", end
            self._at_content_start = False
        starts, stops = self._find_dot(octets, at)
        before = (starts if starts >= 0 else max(at, end - _TAIL)) - at
        if before > self._left:
            return self._end("limit_content", self._persona.content_too_big, LINGER), end
        if starts >= 0:
            return self._content_ended(), stops
        self._left -= before
        self._rest = octets[at + before :]
        return b"", end

    def _find_dot(self, octets: bytes, at: int) -> tuple[int, int]:
        if not self._line_by_lf:
            starts = octets.find(_END_CRLF, at)
            return starts, starts + len(_END_CRLF)
        found = _END_LF.search(octets, at)
        return (found.start(), found.end()) if found else (-1, -1)

    def _content_ended(self) -> bytes:
        self._mode = _COMMAND
        return self._persona.refused

    def _skip_chunk(self, at: int, end: int) -> int:
        skipped = min(self._left, end - at)
        self._left -= skipped
        if not self._left:
            self._mode = _COMMAND
        return at + skipped


Handler = Callable[[Dialogue, bytes], bytes]


def _is_junk(line: bytes, word: bytes) -> bool:
    """Whether a line shows that its sender does not speak SMTP."""
    return (
        line[0] not in _LETTERS
        or word.upper() in _HTTP_VERBS
        or _HEADER_LINE.match(line) is not None
    )


def _in_common_case(verbs: "dict[bytes, Handler]") -> "dict[bytes, Handler]":
    """The same in lower and mixed case: what is seen in the wild needs no second look."""
    return {
        spelt: handler
        for verb, handler in verbs.items()
        for spelt in (verb, verb.lower(), verb.capitalize())
    }


_VERBS: Final = _in_common_case(
    {
        b"HELO": Dialogue._helo,
        b"EHLO": Dialogue._ehlo,
        b"MAIL": Dialogue._mail,
        b"RCPT": Dialogue._rcpt,
        b"DATA": Dialogue._data,
        b"BDAT": Dialogue._bdat,
        b"RSET": Dialogue._rset,
        b"NOOP": Dialogue._noop,
        b"HELP": Dialogue._help,
        b"VRFY": Dialogue._vrfy,
        b"EXPN": Dialogue._expn,
        b"AUTH": Dialogue._auth,
        b"STARTTLS": Dialogue._starttls,
        b"QUIT": Dialogue._quit,
    }
)
_GREETS: Final = {Dialogue._helo, Dialogue._ehlo}
_DATAS: Final = {Dialogue._data, Dialogue._bdat}
