"""The SMTP dialogue of a sensor: octets in; replies and events out.

Pure: no clock, no socket, no reactor. It follows RFC 5321 (commands, 4.1.1;
reply order, 4.3; sizes, 4.5.3), RFC 2920 (pipelining), RFC 3030 (BDAT), RFC
3207 (STARTTLS) and RFC 4954 (AUTH, never offered), and stands alone so that
every row of the table of what a sensor answers is a test that feeds octets.

What is decided depends on the stream of octets only, never on how it was cut
into pieces. What is held is at most one line, or four octets of content; what
is answered is bounded by ``max_commands`` times the longest reply.

No sender, recipient, argument or content outlives the call that read it.

Longer than a module should be: the rows of the table are one short method each,
and to part them from the state they change would hide both.
"""

from collections.abc import Callable, MutableMapping
from dataclasses import dataclass
from typing import ClassVar, Final

from smtpfeeds_common.behaviours import Flags

from .content import ENDED, TOO_MUCH, Content
from .lines import TLS_HELLO, begins_junk, is_clean, is_full_host_name, is_junk, split_verb
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
_MAIL, _RCPT = 1, 2

# Plain integers: arithmetic on an IntFlag costs a microsecond.
_BARE_LF: Final = int(Flags.BARE_LF)
_EARLY: Final = int(Flags.EARLY_TALKER)
_FULL_NAME: Final = int(Flags.FULL_HOST_NAME)

#: Lines too long or with NUL or 8-bit octets, until the connection ends.
_MAX_BAD_LINES: Final = 3
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
        "_bad",
        "_commands",
        "_content",
        "_content_left",
        "_count",
        "_data_heard",
        "_envelope",
        "_greeted",
        "_in_tls",
        "_left",
        "_line_by_lf",
        "_mode",
        "_refused",
        "_rest",
        "_rules",
        "_tls_free",
        "_unknown",
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
        tls_free: Callable[[], bool] = lambda: True,
    ) -> None:
        """Begin. The banner is the persona's: who sends it decides when.

        Args:
            persona: the replies.
            rules: the bounds and what DATA is answered.
            count: the sensor's counters, added to.
            tls_free: whether one more connection may go to TLS now.
        """
        self.persona, self._rules, self._count = persona, rules, count
        self._tls_free = tls_free
        self._mode = _COMMAND
        #: A line, or an end of content, that is not whole yet.
        self._rest = b""
        self._content: Content | None = None
        #: Octets of content, by DATA and BDAT together, that may still come.
        self._content_left = rules.max_content_bytes
        self._envelope = self._commands = self._unknown = self._bad = self._left = 0
        self._greeted = self._data_heard = self._refused = self._in_tls = False
        self._line_by_lf = False
        #: Events heard and not yet taken: GREET and DATA at most once each.
        self.heard = 0
        #: What was notable so far, as in ``behaviours.Flags``.
        self.flags = 0
        self.closing = OPEN
        #: After the reply, go to TLS and call ``tls_started``.
        self.wants_tls = False

    @property
    def reads_content(self) -> bool:
        """Whether what arrives now is content, not commands."""
        return self._mode == _CONTENT or self._mode == _CHUNK  # noqa: PLR1714 - a hot path

    @property
    def held_bytes(self) -> int:
        """Octets held of what arrived."""
        return len(self._rest)

    def take(self) -> int:
        """The events heard since the last call."""
        heard, self.heard = self.heard, 0
        return heard

    def receive(self, octets: bytes) -> bytes:
        """Take what arrived; give the replies.

        Look at ``heard``, ``closing`` and ``wants_tls`` afterwards.
        """
        if self._rest:
            octets, self._rest = self._rest + octets, b""
        replies = b""
        at, end = 0, len(octets)
        while at < end:
            if self._mode == _COMMAND:
                stop = octets.find(b"\n", at, at + self._rules.max_line_bytes)
                if stop >= 0:
                    replies += self._command_line(octets[at:stop])
                    at = stop + 1
                    continue
                reply, at = self._without_line_end(octets, at, end)
            else:
                reply, at = self._other_octets(octets, at, end)
            replies += reply
        return replies

    def note_early(self) -> None:
        """What arrives next was sent before the banner."""
        if not self.flags & _EARLY and self.closing == OPEN:
            self.flags |= _EARLY
            self._count["early_talkers"] += 1

    def _other_octets(self, octets: bytes, at: int, end: int) -> tuple[bytes, int]:
        """Octets that are no commands."""
        if self._mode == _CONTENT:
            return self._skip_content(octets, at)
        if self._mode == _LONG_LINE:
            return self._skip_line(octets, at, end)
        if self._mode == _CHUNK:
            return b"", self._skip_chunk(at, end)
        # What was sent behind STARTTLS, or behind the end, is thrown away.
        return b"", end

    def tls_started(self) -> None:
        """The state is as at connect, but what was heard stays heard (RFC 3207 4.2)."""
        self.wants_tls = False
        self._in_tls = True
        self._mode = _COMMAND
        self._rest = b""
        self._reset()

    # One line in command state

    def _command_line(self, line: bytes) -> bytes:
        bare_lf = line[-1:] != b"\r"
        if not bare_lf:
            line = line[:-1]
        if self._commands >= self._rules.max_commands:
            return self._too_many_commands()
        self._commands += 1
        word, _, argument = line.partition(b" ")
        handler = self._VERBS.get(word)
        if handler is None or not is_clean(line):
            return self._odd_line(line, bare_lf=bare_lf)
        self._note_line_end(bare_lf=bare_lf)
        return handler(self, argument)

    def _odd_line(self, line: bytes, *, bare_lf: bool) -> bytes:
        """Any line that is not plainly a command."""
        verb, argument = split_verb(line)
        handler = self._VERBS.get(verb)
        if handler is None and is_junk(line):
            return self._junk(line)
        if not verb:
            return self._unknown_line()
        if handler is not None:
            self._note_line_end(bare_lf=bare_lf)
        if not is_clean(line):
            return self._bad_line(handler)
        if handler is None:
            return self._unknown_line()
        return handler(self, argument)

    def _note_line_end(self, *, bare_lf: bool) -> None:
        self._line_by_lf = bare_lf
        if bare_lf and not self.flags & _BARE_LF:
            self.flags |= _BARE_LF
            self._count["bare_lf"] += 1

    def _without_line_end(self, octets: bytes, at: int, end: int) -> tuple[bytes, int]:
        """No line end within the longest line: wait for it, or judge at once what can be."""
        if self._commands >= self._rules.max_commands:
            return self._too_many_commands(), end
        longest = self._rules.max_line_bytes
        if end - at >= longest:
            return self._begin_long_line(octets[at : at + longest]), at + longest
        begins = octets[at:]
        if begins_junk(begins):
            return self._junk(begins), end
        self._rest = begins
        return b"", end

    def _begin_long_line(self, begins: bytes) -> bytes:
        self._commands += 1
        handler = self._VERBS.get(split_verb(begins)[0])
        if handler is None and is_junk(begins):
            return self._junk(begins)
        self._mode, self._left = _LONG_LINE, _MAX_SKIPPED_LINE
        return self._bad_line(handler)

    # Lines that are no commands

    def _too_many_commands(self) -> bytes:
        return self._end("limit_commands", self.persona.too_many_errors)

    def _junk(self, line: bytes) -> bytes:
        """Not SMTP: nothing from here on is looked at."""
        if self._refused:
            return self._unheeded_content()
        if line.startswith(TLS_HELLO):
            return self._end("junk_tls", b"")
        return self._end("junk", self.persona.not_smtp)

    def _unknown_line(self) -> bytes:
        if self._refused:
            return self._unheeded_content()
        self._count["unknown_commands"] += 1
        self._unknown += 1
        if self._unknown >= self._rules.max_unknown_commands:
            return self._end("limit_errors", self.persona.too_many_errors)
        return self.persona.unknown

    def _unheeded_content(self) -> bytes:
        """Content from a client that does not listen to the refusal."""
        return self._end("body_after_refusal", b"")

    def _bad_line(self, handler: "Handler | None") -> bytes:
        """A line that is too long, or has NUL or 8-bit octets; its verb counts all the same."""
        if handler is None and self._refused:
            return self._unheeded_content()
        self._count["bad_lines"] += 1
        self._bad += 1
        if handler in {Dialogue._helo, Dialogue._ehlo}:
            self._hear_greet(b"")
        elif handler in {Dialogue._data, Dialogue._bdat}:
            self._hear_data()
        if self._bad >= _MAX_BAD_LINES:
            return self._end("limit_errors", self.persona.bad_line)
        return self.persona.bad_line

    def _end(self, counter: str, reply: bytes, how: int = CLOSE) -> bytes:
        self._count[counter] += 1
        self._mode, self.closing, self._rest = _CLOSED, how, b""
        return reply

    # Events

    def _hear_greet(self, argument: bytes) -> None:
        if self._greeted:
            self._count["greet_again"] += 1
            return
        self._greeted = True
        self.heard |= GREET
        if is_full_host_name(argument.strip()):
            self.flags |= _FULL_NAME

    def _hear_data(self) -> None:
        if not self._greeted:
            self._count["data_before_greet"] += 1
        elif not self._data_heard:
            self._data_heard = True
            self.heard |= DATA

    # Commands: each takes its argument, and gives the reply

    def _helo(self, argument: bytes) -> bytes:
        self._count["verb_helo"] += 1
        self._hear_greet(argument)
        self._reset()
        return self.persona.helo

    def _ehlo(self, argument: bytes) -> bytes:
        self._count["verb_ehlo"] += 1
        self._hear_greet(argument)
        self._reset()
        return self.persona.ehlo_in_tls if self._in_tls else self.persona.ehlo

    def _reset(self) -> None:
        self._envelope = 0
        self._refused = False

    def _mail(self, _argument: bytes) -> bytes:
        self._count["verb_mail"] += 1
        self._envelope = _MAIL
        self._refused = False
        return self.persona.mail_ok

    def _rcpt(self, _argument: bytes) -> bytes:
        self._count["verb_rcpt"] += 1
        self._envelope |= _RCPT
        return self.persona.rcpt_ok

    def _data(self, _argument: bytes) -> bytes:
        self._count["verb_data"] += 1
        self._hear_data()
        in_order = self._envelope == _MAIL | _RCPT
        if not in_order:
            self._count["data_out_of_order"] += 1
        if not in_order or not self._greeted:
            self._refused = True
            return self.persona.bad_order
        self._envelope = 0
        if not self._rules.drain:
            self._refused = True
            return self.persona.refused
        self._mode = _CONTENT
        self._content = Content(self._content_left, by_lf=self._line_by_lf)
        return self.persona.go_ahead

    def _bdat(self, argument: bytes) -> bytes:
        self._count["verb_bdat"] += 1
        self._hear_data()
        size = argument.split(b" ", 1)[0]
        # Twenty digits are past every bound; Python would take its time over a thousand.
        announced = int(size[:20]) if size.isdigit() else 0
        if announced > self._content_left:
            return self._end("limit_content", self.persona.not_implemented, LINGER)
        self._content_left -= announced
        if announced:
            self._mode, self._left = _CHUNK, announced
        return self.persona.not_implemented

    def _rset(self, _argument: bytes) -> bytes:
        self._count["verb_rset"] += 1
        self._reset()
        return self.persona.ok

    def _noop(self, _argument: bytes) -> bytes:
        self._count["verb_noop"] += 1
        return self.persona.ok

    def _help(self, _argument: bytes) -> bytes:
        self._count["verb_help"] += 1
        return self.persona.help

    def _vrfy(self, _argument: bytes) -> bytes:
        self._count["verb_vrfy"] += 1
        return self.persona.vrfy

    def _expn(self, _argument: bytes) -> bytes:
        self._count["verb_expn"] += 1
        return self.persona.not_implemented

    def _auth(self, _argument: bytes) -> bytes:
        # The argument may be a password: it is never looked at.
        self._count["verb_auth"] += 1
        return self.persona.not_implemented

    def _starttls(self, _argument: bytes) -> bytes:
        self._count["verb_starttls"] += 1
        if not self._rules.offer_tls:
            return self.persona.not_implemented
        if self._in_tls:
            return self.persona.bad_order
        if not self._tls_free():
            self._count["limit_tls"] += 1
            return self.persona.tls_busy
        self.wants_tls = True
        self._mode = _WAIT_TLS
        return self.persona.tls_ready

    def _quit(self, _argument: bytes) -> bytes:
        return self._end("verb_quit", self.persona.quit)

    # Octets that are skipped

    def _skip_content(self, octets: bytes, at: int) -> tuple[bytes, int]:
        content = self._content
        assert content is not None
        outcome, at = content.skip(octets, at)
        if outcome == TOO_MUCH:
            return self._end("limit_content", self.persona.content_too_big, LINGER), at
        if outcome == ENDED:
            self._content_left = content.left
            self._mode, self._content = _COMMAND, None
            return self.persona.refused, at
        self._rest = content.held
        return b"", at

    def _skip_line(self, octets: bytes, at: int, end: int) -> tuple[bytes, int]:
        stop = octets.find(b"\n", at) + 1
        self._left -= (stop or end) - at
        if self._left < 0:
            return self._end("limit_errors", self.persona.too_many_errors, LINGER), end
        if stop:
            self._mode = _COMMAND
        return b"", stop or end

    def _skip_chunk(self, at: int, end: int) -> int:
        skipped = min(self._left, end - at)
        self._left -= skipped
        if not self._left:
            self._mode = _COMMAND
        return at + skipped

    #: In upper, lower and mixed case: what is seen in the wild needs no second look.
    _VERBS: ClassVar["dict[bytes, Handler]"] = {
        spelt: handler
        for verb, handler in (
            (b"HELO", _helo),
            (b"EHLO", _ehlo),
            (b"MAIL", _mail),
            (b"RCPT", _rcpt),
            (b"DATA", _data),
            (b"BDAT", _bdat),
            (b"RSET", _rset),
            (b"NOOP", _noop),
            (b"HELP", _help),
            (b"VRFY", _vrfy),
            (b"EXPN", _expn),
            (b"AUTH", _auth),
            (b"STARTTLS", _starttls),
            (b"QUIT", _quit),
        )
        for spelt in (verb, verb.lower(), verb.capitalize())
    }


Handler = Callable[[Dialogue, bytes], bytes]
