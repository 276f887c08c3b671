"""What must hold of a dialogue for every stream of octets, however it is cut into pieces.

Asked by the property tests (hypothesis), by the fuzz target (atheris) and for each file of the
corpus, so that all three mean the same.
"""

import itertools
import re
from dataclasses import dataclass, field

from smtpfeeds_common.behaviours import Flags
from smtpfeeds_sensor.counters import new_counters
from smtpfeeds_sensor.smtp.dialogue import CLOSE, DATA, GREET, LINGER, OPEN, Dialogue, Rules
from smtpfeeds_sensor.smtp.names import SensorNames
from smtpfeeds_sensor.smtp.personas import STYLES, make_persona

PERSONA = make_persona(STYLES["plain"], hostname="mx.example")
AUTH_PERSONA = make_persona(
    STYLES["plain"], hostname="mx.example", offer_auth=True, keywords=("SIZE 1",)
)
NAMES = SensorNames(bytes((192, 0, 2, 1)), "mx.example")
#: What depends on whether a client waited for a reply, which the stream alone does not say.
_IMPATIENCE = Flags.UNHEEDING | Flags.EXTENSION
#: One of these is set with every greet.
_GREET_KINDS = (
    Flags.FULL_HOST_NAME
    | Flags.ADDRESS_LITERAL
    | Flags.NO_ARGUMENT
    | Flags.NAMED_SENSOR
    | Flags.SHORT_NAME
)
#: Small bounds, so that short streams reach them.
ALL_RULES = (
    Rules(drain=False, max_line_bytes=64, max_commands=20, max_unknown_commands=4),
    Rules(drain=True, max_line_bytes=64, max_content_bytes=100, max_commands=20),
    Rules(drain=True, offer_tls=True, max_content_bytes=2000),
)
_LONGEST_REPLY = 300
_REPLY_LINE = re.compile(rb"[2345][0-9][0-9][ -][ -~]{0,500}")
_GREET_LINE = re.compile(rb"(?:\A|\n)[ \t\r]*(?:helo|ehlo)", re.IGNORECASE)
_DATA_LINE = re.compile(rb"(?:\A|\n)[ \t\r]*(?:data|bdat)", re.IGNORECASE)


@dataclass
class Heard:
    """All that came of a stream."""

    replies: bytes = b""
    events: list[tuple[int, int]] = field(default_factory=list)
    flags: int = 0
    closing: int = OPEN
    wants_tls: bool = False
    counters: dict[str, int] = field(default_factory=dict)


def feed(pieces: list[bytes], rules: Rules) -> Heard:
    """Give a dialogue the pieces, and look at it after each."""
    heard = Heard(counters=new_counters())
    dialogue = Dialogue(AUTH_PERSONA if rules.offer_tls else PERSONA, rules, heard.counters, NAMES)
    for piece in pieces:
        was_over = dialogue.closing != OPEN
        reply = dialogue.receive(piece)
        bits = dialogue.take()
        # The greet first: both may come of one piece.
        heard.events += [(bit, dialogue.flags) for bit in (GREET, DATA) if bits & bit]
        heard.replies += reply
        assert dialogue.held_bytes < rules.max_line_bytes
        assert dialogue.flags & heard.flags == heard.flags, "a behaviour was taken back"
        heard.flags = dialogue.flags
        assert not (was_over and (reply or bits)), "something came of what followed the end"
    heard.closing, heard.wants_tls = dialogue.closing, dialogue.wants_tls
    return heard


def check(stream: bytes, cuts: list[int], rules: Rules) -> Heard:
    """Feed a stream whole, cut, and octet by octet; compare; check what came of it."""
    whole = feed([stream], rules)
    places = sorted({0, len(stream), *(cut % (len(stream) + 1) for cut in cuts)})
    pieces = [stream[a:b] for a, b in itertools.pairwise(places)]
    single = [stream[at : at + 1] for at in range(len(stream))]
    for other in (feed(pieces, rules), feed(single, rules)):
        assert other.replies == whole.replies
        assert [bit for bit, _ in other.events] == [bit for bit, _ in whole.events]
        assert (other.closing, other.wants_tls) == (whole.closing, whole.wants_tls)
        assert other.counters == whole.counters
        assert other.flags & ~_IMPATIENCE == whole.flags & ~_IMPATIENCE
        assert not other.flags & ~whole.flags, "more impatient in pieces than at once"
    check_outcome(stream, whole, rules)
    return whole


def check_outcome(stream: bytes, heard: Heard, rules: Rules) -> None:
    """What must hold whatever the stream was."""
    assert [bit for bit, _ in heard.events] in ([], [GREET], [GREET, DATA])
    # Behind the octets of a BDAT a command may begin in the middle of a line.
    by_line = b"bdat" not in stream.lower()
    if heard.events and by_line:
        assert _GREET_LINE.search(stream), "a greet that nobody said"
    if len(heard.events) == 2 and by_line:
        assert _DATA_LINE.search(stream), "a data event that nobody said"
    assert len(heard.replies) <= (rules.max_commands + 1) * _LONGEST_REPLY
    if any(bit == GREET for bit, _ in heard.events):
        assert heard.flags & _GREET_KINDS, "a greet of no kind"
    if heard.replies:
        assert heard.replies.endswith(b"\r\n")
        for line in heard.replies[:-2].split(b"\r\n"):
            assert _REPLY_LINE.fullmatch(line), line
    assert heard.closing in {OPEN, CLOSE, LINGER}
    assert all(number >= 0 for number in heard.counters.values())


def split_input(octets: bytes) -> tuple[Rules, list[int], bytes]:
    """How an input of the fuzz target is read: which rules, where to cut, and the stream."""
    rules = ALL_RULES[octets[0] % len(ALL_RULES)] if octets else ALL_RULES[0]
    step = octets[1] if len(octets) > 1 else 0
    return rules, [step * number for number in range(1, 8)], octets[2:4096]
