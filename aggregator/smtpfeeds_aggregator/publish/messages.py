"""The messages between the aggregator and its publishing process.

The job is one JSON object in an unnamed file, because the settings in it may hold passwords, which
arguments and environment would show to others. Then both send one JSON object in each line: the
child sends its log, its questions about the clock and its result on standard output; the aggregator
sends its answers about the clock on the child's standard input.
"""

from datetime import datetime
from typing import Any, Final

import msgspec

from ..clock.database import Reading
from ..settings import AggregatorSettings
from .once import Published

#: The program sends no longer line; the aggregator drops longer lines.
MAX_LINE_BYTES: Final = 1 << 20


class Job(msgspec.Struct, frozen=True):
    """The job of one publication."""

    #: The aggregator's version; a process of another version refuses the job.
    version: str
    settings: AggregatorSettings
    #: Publish nothing if an edition was made since then.
    unless_made_since: datetime
    #: The lists in use, in the form of their generation's file.
    lists: list[dict[str, Any]]
    lists_generation: str
    #: Descriptor of the index of the origin table in use; None: there is no table.
    origin_index: int | None


class JobVersion(msgspec.Struct, frozen=True):
    """The part of a job that every version has."""

    version: str


class Logged(msgspec.Struct, frozen=True, tag="log"):
    """A line of the child's log."""

    logger: str
    level: int
    created: float
    event: str
    fields: dict[str, Any]
    traceback: str = ""


class ClockQuestion(msgspec.Struct, frozen=True, tag="clock"):
    """Asks whether a publication may use this reading of the database's clock."""

    reading: Reading


class Done(msgspec.Struct, frozen=True, tag="done"):
    """The result: what was published; None if another process publishes or has published."""

    published: Published | None


class Failed(msgspec.Struct, frozen=True, tag="failed"):
    """The error, as `failures` names it; one that is not a `SmtpfeedsError` has no name."""

    name: str
    message: str


FromChild = Logged | ClockQuestion | Done | Failed


class ClockAnswer(msgspec.Struct, frozen=True):
    """The time to use, or why the clock is in doubt."""

    now: datetime | None = None
    doubt: str = ""


def _from_text(kind: type[Any], value: Any) -> Any:
    """Convert a value of a type that JSON lacks, from `encode`'s form: a path."""
    return kind(value)


_FROM_CHILD: Final[msgspec.json.Decoder[FromChild]] = msgspec.json.Decoder(
    FromChild, dec_hook=_from_text
)


def encode(message: msgspec.Struct) -> bytes:
    """Encode a message as one line."""
    return msgspec.json.encode(message, enc_hook=str) + b"\n"


def decode_from_child(line: bytes) -> FromChild:
    """Decode a line of the child.

    Raises:
        msgspec.MsgspecError: it is not a message that this program knows.
    """
    return _FROM_CHILD.decode(line)
