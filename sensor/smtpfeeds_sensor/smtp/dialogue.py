"""The SMTP dialogue of a sensor: octets in; replies, events and behaviours out.

Pure: no clock, no socket, no reactor. It splits octets into lines and content, handles lines that
are not commands, and enforces the bounds; ``commands`` handles the verbs. It follows RFC 5321
(reply order, 4.3; sizes, 4.5.3) and RFC 2920 (pipelining), and is separate so that a test can feed
octets for every row of the table of replies.

All results depend only on the stream of octets, never on how it was split into pieces, with one
exception: whether a client waited for a reply. It did not wait if octets after a command arrive
with it, or while its reply is held (``owes_reply``); only ``UNHEEDING`` and ``EXTENSION`` depend on
that.

It holds at most one line, and of content only the octets that may begin its end or one of the
sensor's names; ``max_commands`` times the longest reply bounds the replies. No sender, recipient,
argument or content outlives the call that read it: the dialogue works on a copy of the octets, and
overwrites it and every copy of a part with zeros.
"""

import re
from collections.abc import Callable, MutableMapping
from typing import Final

from smtpfeeds_common.behaviours import Flags

from .auth import CANCELLED, GIVEN, MORE, TOO_LONG, Responses
from .commands import (
    AUTH_REFUSED,
    CHUNK,
    CLOSE,
    COMMAND,
    CONTENT,
    DATA,
    DATA_REFUSED,
    GREET,
    GREETS,
    LINGER,
    LONG_LINE,
    MAY_BE_FOLLOWED,
    NO_REFUSAL,
    OPEN,
    RESPONSE,
    Commands,
    Handler,
    Rules,
)
from .content import ENDED, TOO_MUCH, Content
from .erase import Octets, erase
from .lines import TLS_HELLO, begins_junk, is_clean, is_junk
from .names import SensorNames
from .personas import PIPELINING, Persona

__all__ = ["CLOSE", "DATA", "GREET", "LINGER", "OPEN", "Dialogue", "Rules"]

# Plain integers: arithmetic on an IntFlag costs a microsecond.
_AUTH_RESPONSE: Final = int(Flags.AUTH_RESPONSE)
_BARE_LF: Final = int(Flags.BARE_LF)
_EARLY: Final = int(Flags.EARLY_TALKER)
_EXTENSION: Final = int(Flags.EXTENSION)
_LOWER_CASE: Final = int(Flags.LOWER_CASE)
_NOT_SMTP_AFTER: Final = int(Flags.NOT_SMTP_AFTER)
_RELAY_PROBE: Final = int(Flags.RELAY_PROBE)
_UNHEEDING: Final = int(Flags.UNHEEDING)

#: Lines too long or with NUL or 8-bit octets, until the connection ends.
_MAX_BAD_LINES: Final = 3
#: Octets of one line over the limit that are skipped, until the connection ends.
_MAX_SKIPPED_LINE: Final = 65_536
_CR: Final = ord(b"\r")
_VERBS: Final = b"|".join(Commands.VERBS)
#: A command as nearly all clients write it, without NUL and 8-bit octets; only the name of the verb
#: is copied.
_COMMAND: Final = re.compile(rb"(%s)(?: |\Z)([\x01-\x7f]*)\Z" % _VERBS)
#: A command in any case, and its argument without the blanks around it. Real clients send blanks,
#: tabs and CR (from lines that end by LF CR) before the verb, blanks and tabs behind it.
_ODD_COMMAND: Final = re.compile(
    rb"[ \t\r]*(%s)(?!\S)\s*((?:.*\S)?)" % _VERBS, re.IGNORECASE | re.DOTALL
)


class Dialogue(Commands):
    """One connection's dialogue."""

    __slots__ = ("_bad", "_commands", "_previous", "_rest", "_unknown", "owes_reply")

    def __init__(
        self,
        persona: Persona,
        rules: Rules,
        count: MutableMapping[str, int],
        names: SensorNames,
        tls_free: Callable[[], bool] = lambda: True,
    ) -> None:
        """Begin. The persona has the banner; the sender decides when to send it.

        Args:
            persona: the replies.
            rules: the bounds and the answer to DATA.
            count: the sensor's counters, added to.
            names: the address that the client connected to, and the banner's name.
            tls_free: whether one more connection may go to TLS now.
        """
        super().__init__(persona, rules, count, names, tls_free)
        #: A line, or an end of content, that is not complete yet.
        self._rest = bytearray()
        self._commands = self._unknown = self._bad = 0
        #: The last command, or None where the last line was not one.
        self._previous: Handler | None = None
        #: Set by the sender of replies: an earlier one is not sent yet.
        self.owes_reply = False

    @property
    def reads_content(self) -> bool:
        """Return whether content is expected now, not commands."""
        return self._mode == CONTENT or self._mode == CHUNK  # noqa: PLR1714 - a hot path

    @property
    def held_bytes(self) -> int:
        """Return the number of octets that are held."""
        responses = self._reading
        return len(self._rest) + (responses.held_bytes if isinstance(responses, Responses) else 0)

    def note_early(self) -> None:
        """Note that the next octets were sent before the banner."""
        if not self.flags & _EARLY and self.closing == OPEN:
            self.flags |= _EARLY
            self._count["early_talkers"] += 1

    def take(self) -> int:
        """Return the events since the last call."""
        heard, self.heard = self.heard, 0
        return heard

    def receive(self, arrived: Octets) -> bytes:
        """Handle octets; return the replies.

        Check ``heard``, ``closing`` and ``wants_tls`` afterwards.
        """
        if self._rest:
            octets = self._rest + arrived
            self.forget()
        else:
            octets = bytearray(arrived)
        replies = self._read(octets)
        erase(octets)
        return replies

    def forget(self) -> None:
        """Erase the octets that are held."""
        if self._rest:
            erase(self._rest)
            self._rest = bytearray()

    def _read(self, octets: bytearray) -> bytes:
        replies = b""
        at, end = 0, len(octets)
        while at < end:
            if self._mode == COMMAND:
                stop = octets.find(b"\n", at, at + self._rules.max_line_bytes)
                if stop >= 0:
                    if replies or self.owes_reply:
                        self._note_impatience()
                    replies += self._command_line(octets, at, stop)
                    at = stop + 1
                    continue
                reply, at = self._without_line_end(octets, at, end)
            else:
                if replies or self.owes_reply:
                    is_rest_of_lf_cr = end - at == 1 and octets[at] == _CR
                    if not is_rest_of_lf_cr:
                        self._note_impatience()
                reply, at = self._other_octets(octets, at, end)
            replies += reply
        return replies

    def _note_impatience(self) -> None:
        """Octets came before the reply to an earlier command had left."""
        if self._mode == COMMAND:
            if not self._offered & PIPELINING or self._previous in GREETS:
                self.flags |= _UNHEEDING
            elif self._previous in MAY_BE_FOLLOWED:
                self.flags |= _EXTENSION
        elif self._mode in {CONTENT, RESPONSE}:
            self.flags |= _UNHEEDING

    def _other_octets(self, octets: bytearray, at: int, end: int) -> tuple[bytes, int]:
        """Handle octets that are not commands."""
        if self._mode == CONTENT:
            return self._skip_content(octets, at)
        if self._mode == RESPONSE:
            return self._skip_response(octets, at)
        if self._mode == LONG_LINE:
            return self._skip_line(octets, at, end)
        if self._mode == CHUNK:
            return b"", self._skip_chunk(at, end)
        # Octets after STARTTLS, or after the end, are discarded.
        return b"", end

    def tls_started(self) -> None:
        """Reset the state as at connect, but keep the events (RFC 3207 4.2)."""
        super().tls_started()
        self.forget()
        self._previous = None

    def end(self, counter: str, reply: bytes, how: int = CLOSE) -> bytes:
        """End the session; later input is ignored."""
        self.forget()
        return super().end(counter, reply, how)

    # One line in command state

    def _command_line(self, octets: bytearray, at: int, stop: int) -> bytes:
        bare_lf = stop == at or octets[stop - 1] != _CR
        if not bare_lf:
            stop -= 1
        self._line_by_lf = bare_lf
        if self._commands >= self._rules.max_commands:
            return self._too_many_commands()
        self._commands += 1
        command = _COMMAND.match(octets, at, stop)
        if command is not None:
            return self._run(self.VERBS[command[1]], octets[command.start(2) : stop])
        line = octets[at:stop]
        reply = self._odd_line(line)
        erase(line)
        return reply

    def _run(self, handler: Handler, argument: bytearray) -> bytes:
        """Run a command, then erase its argument, which is a copy."""
        if self._line_by_lf:
            self._note_bare_lf()
        self._previous = handler
        if self._refused == AUTH_REFUSED:
            self._refused = NO_REFUSAL
        reply = handler(self, argument)
        if argument:
            erase(argument)
        return reply

    def _odd_line(self, line: bytearray) -> bytes:
        """Handle a line that is not a plain command."""
        self._previous = None
        command = _ODD_COMMAND.match(line)
        if command is None:
            return self._no_command(line)
        handler = self._odd_handler(command)
        if is_clean(line):
            return self._run(handler, line[command.start(2) : command.end(2)])
        if self._line_by_lf:
            self._note_bare_lf()
        return self._bad_line(handler)

    def _odd_handler(self, command: re.Match[bytes]) -> Handler:
        verb = command[1]
        if not verb.isupper():
            self.flags |= _LOWER_CASE
        return self.VERBS[verb.upper()]

    def _note_bare_lf(self) -> None:
        if not self.flags & _BARE_LF:
            self.flags |= _BARE_LF
            self._count["bare_lf"] += 1

    def _without_line_end(self, octets: bytearray, at: int, end: int) -> tuple[bytes, int]:
        """Handle a long line without its end: wait for the end, or decide now if possible."""
        if self._commands >= self._rules.max_commands:
            return self._too_many_commands(), end
        longest = self._rules.max_line_bytes
        if end - at >= longest:
            return self._begin_long_line(octets[at : at + longest]), at + longest
        begins = octets[at:]
        if begins_junk(begins):
            reply = self._junk(begins)
            erase(begins)
            return reply, end
        self._rest = begins
        return b"", end

    def _begin_long_line(self, begins: bytearray) -> bytes:
        self._commands += 1
        self._previous = None
        command = _ODD_COMMAND.match(begins)
        if command is None and is_junk(begins):
            reply = self._junk(begins)
        else:
            self._mode, self._left = LONG_LINE, _MAX_SKIPPED_LINE
            reply = self._bad_line(None if command is None else self._odd_handler(command))
        erase(begins)
        return reply

    # Lines that are not commands

    def _too_many_commands(self) -> bytes:
        return self.end("limit_commands", self.persona.too_many_errors)

    def _no_command(self, line: bytearray) -> bytes:
        if is_junk(line):
            return self._junk(line)
        if not is_clean(line):
            return self._bad_line(None)
        return self._unknown_line()

    def _note_unheeding(self) -> bool:
        """Note whether a line that is not a verb is content sent despite a refusal."""
        if self._refused:
            self.flags |= _UNHEEDING
        return self._refused == DATA_REFUSED

    def _junk(self, line: bytearray) -> bytes:
        """End the session of a client that does not speak SMTP."""
        if self._note_unheeding():
            return self._unheeded_content()
        if self._greeted:
            self.flags |= _NOT_SMTP_AFTER
        if line.startswith(TLS_HELLO):
            return self.end("junk_tls", b"")
        return self.end("junk", self.persona.not_smtp)

    def _unknown_line(self) -> bytes:
        if self._note_unheeding():
            return self._unheeded_content()
        self._count["unknown_commands"] += 1
        self._unknown += 1
        if self._unknown >= self._rules.max_unknown_commands:
            return self.end("limit_errors", self.persona.too_many_errors)
        return self.persona.unknown

    def _unheeded_content(self) -> bytes:
        """End the session of a client that sends content despite the refusal."""
        return self.end("body_after_refusal", b"")

    def _bad_line(self, handler: "Handler | None") -> bytes:
        """Handle a line that is too long, or has NUL or 8-bit octets; its verb still counts."""
        if handler is None and self._note_unheeding():
            return self._unheeded_content()
        self._count["bad_lines"] += 1
        self._bad += 1
        if handler is not None:
            self.hear_unreadable(handler)
        if self._bad >= _MAX_BAD_LINES:
            return self.end("limit_errors", self.persona.bad_line)
        return self.persona.bad_line

    # Octets that are skipped

    def _skip_content(self, octets: bytearray, at: int) -> tuple[bytes, int]:
        content = self._reading
        assert isinstance(content, Content)
        outcome, at = content.skip(octets, at)
        if content.names_sensor:
            self.flags |= _RELAY_PROBE
        if outcome == TOO_MUCH:
            return self.end("limit_content", self.persona.content_too_big, LINGER), at
        if outcome == ENDED:
            self._content_left = content.left
            self._mode, self._reading = COMMAND, None
            return self.persona.refused, at
        self._rest = content.held
        return b"", at

    def _skip_response(self, octets: bytearray, at: int) -> tuple[bytes, int]:
        responses = self._reading
        assert isinstance(responses, Responses)
        outcome, at = responses.skip(octets, at)
        if outcome == MORE:
            return b"", at
        if outcome == TOO_LONG:
            return self.end("limit_errors", self.persona.too_many_errors, LINGER), at
        if self._commands >= self._rules.max_commands:
            return self._too_many_commands(), at
        self._commands += 1
        if outcome == GIVEN:
            self.flags |= _AUTH_RESPONSE
        if responses.awaited and outcome != CANCELLED:
            return self.challenge(responses.mechanism, responses.awaited), at
        self._mode, self._reading = COMMAND, None
        return self.persona.auth_cancelled if outcome == CANCELLED else self.fail_auth(), at

    def _skip_line(self, octets: bytearray, at: int, end: int) -> tuple[bytes, int]:
        stop = octets.find(b"\n", at) + 1
        self._left -= (stop or end) - at
        if self._left < 0:
            return self.end("limit_errors", self.persona.too_many_errors, LINGER), end
        if stop:
            self._mode = COMMAND
        return b"", stop or end

    def _skip_chunk(self, at: int, end: int) -> int:
        skipped = min(self._left, end - at)
        self._left -= skipped
        if not self._left:
            self._mode = COMMAND
        return at + skipped
