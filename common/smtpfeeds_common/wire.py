"""The message from a sensor to the aggregator: a batch of observations, as JSON.

JSON is readable in the broker's management page; the aggregator checks it against the schema.
Times are integer milliseconds since 1970-01-01 UTC. A reader of version 1 ignores unknown fields,
so a later program may add fields. A change of meaning needs a new version.

One invalid row must not cost the others. If a batch is invalid as a whole, its rows are decoded
one by one, and those that fail are returned beside the batch.
"""

import uuid
from typing import Annotated, Final, NamedTuple, TypeVar

import msgspec

from .errors import WireError
from .feeds import FeedName
from .topology import SENSOR_NAME_PATTERN

VERSION: Final = 1
#: Rows a sensor seals into one batch.
MAX_ROWS: Final = 5_000
#: The most that the aggregator accepts: rows in a batch, octets in a message.
MAX_ROWS_READ: Final = 20_000
MAX_BODY_BYTES: Final = 8 * 1024 * 1024

_INT64_MAX: Final = 2**63 - 1
#: The highest number of a batch.
SEQ_MAX: Final = _INT64_MAX - 1
#: Characters of a reason that are kept; it may quote hostile input.
_REASON_MAX: Final = 300
#: The forms of a UUID that msgspec accepts, for the published schema. ``$(?!\n)`` is the end of the
#: text in Python and in ECMAScript.
_UUID_PATTERN: Final = (
    r"^([0-9a-fA-F]{32}|[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12})$(?!\n)"
)
Row = TypeVar("Row")
#: 2000-01-01 to 9999-01-01, which PostgreSQL and Python can both represent. Ingest clamps a wrong
#: time within this range; the schema accepts it.
MS_MIN: Final = 946_684_800_000
MS_MAX: Final = 253_370_764_800_000

Millis = Annotated[int, msgspec.Meta(ge=MS_MIN, le=MS_MAX)]
COUNT_MAX: Final = 2**53
Count = Annotated[int, msgspec.Meta(ge=0, le=COUNT_MAX)]
Feed = Annotated[FeedName, msgspec.Meta(description="the feed: `smtpgreet` or `smtpdata`")]
Text = Annotated[str, msgspec.Meta(max_length=128)]
First = Annotated[Millis, msgspec.Meta(description="time of the first of these events")]
Last = Annotated[Millis, msgspec.Meta(description="time of the last of these events")]


class Observation(msgspec.Struct, frozen=True, gc=False):
    """The events of one address in one feed since the last batch."""

    feed: Feed
    ip: Annotated[str, msgspec.Meta(max_length=64, description="the client's address, RFC 5952")]
    first_ms: First
    last_ms: Last
    hits: Annotated[Count, msgspec.Meta(description="events in this batch")]
    flags: Annotated[
        int,
        msgspec.Meta(
            ge=0,
            le=_INT64_MAX,
            description="OR of behaviours, one bit each: the table below names them. All count "
            "for the epoch week of `last_ms`",
        ),
    ] = 0
    targets: Annotated[
        int,
        msgspec.Meta(
            ge=-(2**63),
            le=_INT64_MAX,
            description="64-bit bitmap of which of the sensor's own addresses were hit, "
            "as a signed integer (two's complement)",
        ),
    ] = 0


class HourCount(msgspec.Struct, frozen=True, gc=False):
    """How many events of a feed fell into one UTC hour."""

    feed: Feed
    hour_ms: Annotated[Millis, msgspec.Meta(description="when the UTC hour begins")]
    events: Annotated[Count, msgspec.Meta(description="events in that hour, in this batch")]


class PrefixOverflow(msgspec.Struct, frozen=True, gc=False):
    """Events of an IPv6 /64 past the bound of its addresses in a day, counted under the prefix."""

    feed: Feed
    prefix: Annotated[str, msgspec.Meta(max_length=64, description="the IPv6 /64")]
    first_ms: First
    last_ms: Last
    hits: Annotated[Count, msgspec.Meta(description="events in this batch")]


class BatchHeader(msgspec.Struct, frozen=True, kw_only=True):
    """Every field of a batch but its rows."""

    v: Annotated[int, msgspec.Meta(ge=1, le=VERSION, description="version of the schema")] = VERSION
    spool: Annotated[
        uuid.UUID,
        msgspec.Meta(
            description="UUID of the spool's opening in which the batch was sealed",
            extra_json_schema={"pattern": _UUID_PATTERN},
        ),
    ]
    seq: Annotated[
        int,
        msgspec.Meta(
            ge=1,
            le=SEQ_MAX,
            description="number of the batch in that opening; (account, spool, seq) names it",
        ),
    ]
    sensor: Annotated[
        str,
        msgspec.Meta(
            pattern=SENSOR_NAME_PATTERN,
            max_length=63,
            description="the sensor's name, which is also the name of its broker account",
        ),
    ]
    sealed_ms: Annotated[
        Millis, msgspec.Meta(description="when the batch was sealed, by the sensor's clock")
    ]
    version: Annotated[Text, msgspec.Meta(description="version of the sensor's program")] = ""
    depth: Annotated[
        Count, msgspec.Meta(description="rows still in the spool after this batch")
    ] = 0
    drops: Annotated[
        Count,
        msgspec.Meta(description="events that the spool dropped since it was created"),
    ] = 0
    addresses: Annotated[
        Count, msgspec.Meta(description="addresses that the sensor listens on; 0: not known")
    ] = 0
    counters: Annotated[
        dict[Text, Count],
        msgspec.Meta(max_length=256, description="the sensor's counters since it started, by name"),
    ] = msgspec.field(default_factory=dict)


class Batch(BatchHeader, frozen=True, kw_only=True):
    """A sealed batch. It never changes; (spool, seq) identifies it."""

    observations: Annotated[
        list[Observation],
        msgspec.Meta(max_length=MAX_ROWS_READ, description="one row per address and feed"),
    ] = []
    hours: Annotated[
        list[HourCount],
        msgspec.Meta(max_length=MAX_ROWS_READ, description="one row per feed and hour"),
    ] = []
    overflows: Annotated[
        list[PrefixOverflow],
        msgspec.Meta(max_length=MAX_ROWS_READ, description="one row per feed and crowded IPv6 /64"),
    ] = []


class _LooseBatch(msgspec.Struct, kw_only=True):
    """A batch whose rows are not decoded."""

    observations: Annotated[list[msgspec.Raw], msgspec.Meta(max_length=MAX_ROWS_READ)] = []
    hours: Annotated[list[msgspec.Raw], msgspec.Meta(max_length=MAX_ROWS_READ)] = []
    overflows: Annotated[list[msgspec.Raw], msgspec.Meta(max_length=MAX_ROWS_READ)] = []


class RefusedRow(NamedTuple):
    """A row that could not be decoded: its list, its JSON as received, and the reason."""

    kind: str
    raw: bytes
    reason: str


class Decoded(NamedTuple):
    """A batch, and its rows that could not be decoded."""

    batch: Batch
    refused: list[RefusedRow]


_encoder = msgspec.json.Encoder()
_decoder = msgspec.json.Decoder(Batch)
_loose_decoder = msgspec.json.Decoder(_LooseBatch)
_header_decoder = msgspec.json.Decoder(BatchHeader)
_observation_decoder = msgspec.json.Decoder(Observation)
_hour_decoder = msgspec.json.Decoder(HourCount)
_overflow_decoder = msgspec.json.Decoder(PrefixOverflow)


def encode(batch: Batch) -> bytes:
    """Write a batch as JSON."""
    return _encoder.encode(batch)


def too_large(octets: int) -> WireError:
    """Return the error for a message of so many octets."""
    return WireError(
        f"the message has {octets} octets, more than {MAX_BODY_BYTES}", code="too_large"
    )


def decode(body: bytes) -> Decoded:
    """Decode a batch, row by row if it is invalid as a whole.

    Raises:
        WireError: the message is not a batch of a known schema version.
    """
    if len(body) > MAX_BODY_BYTES:
        raise too_large(len(body))
    try:
        return Decoded(_decoder.decode(body), [])
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return _decode_by_row(body)


def _decode_by_row(body: bytes) -> Decoded:
    try:
        header = _header_decoder.decode(body)
        loose = _loose_decoder.decode(body)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as exc:
        raise WireError(f"the message is not a batch: {exc}"[:_REASON_MAX]) from exc
    refused: list[RefusedRow] = []
    batch = Batch(
        **msgspec.structs.asdict(header),
        observations=_rows("observations", loose.observations, _observation_decoder, refused),
        hours=_rows("hours", loose.hours, _hour_decoder, refused),
        overflows=_rows("overflows", loose.overflows, _overflow_decoder, refused),
    )
    return Decoded(batch, refused)


def _rows(
    kind: str,
    raws: list[msgspec.Raw],
    decoder: "msgspec.json.Decoder[Row]",
    refused: list[RefusedRow],
) -> list[Row]:
    rows: list[Row] = []
    for raw in raws:
        try:
            rows.append(decoder.decode(raw))
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as exc:
            refused.append(RefusedRow(kind, bytes(raw), str(exc)[:_REASON_MAX]))
    return rows
