"""The layout of a spool file: its tables, its notes (``meta``), and the versions that read it.

Version 0.1.0 wrote layout 1. Later versions add tables, change none, and read a file without the
added tables. Each version can therefore open the file of the other, also after a downgrade.
"""

import json
import uuid
from dataclasses import asdict
from enum import Enum
from pathlib import Path
from typing import Annotated, Any, Final, TypeVar

import msgspec

from ..errors import SpoolDamaged, SpoolError
from ..wire import MS_MAX, Count, Text
from .file import Connection, reading
from .fold import Bounds
from .sound import count_of

Note = TypeVar("Note")

LAYOUT: Final = 1
SUFFIX: Final = ".spool"

#: Layout 1. ``batch.set_aside`` is the reason why a batch is held: see ``Held``.
SCHEMA: Final = """
CREATE TABLE meta (key TEXT PRIMARY KEY, value) WITHOUT ROWID;
CREATE TABLE observation (
    feed INTEGER NOT NULL, ip BLOB NOT NULL,
    first_ms INTEGER NOT NULL, last_ms INTEGER NOT NULL, hits INTEGER NOT NULL,
    flags INTEGER NOT NULL, targets INTEGER NOT NULL,
    PRIMARY KEY (feed, ip)) WITHOUT ROWID;
CREATE TABLE activity (
    feed INTEGER NOT NULL, hour_ms INTEGER NOT NULL, events INTEGER NOT NULL,
    PRIMARY KEY (feed, hour_ms)) WITHOUT ROWID;
CREATE TABLE overflow (
    feed INTEGER NOT NULL, prefix BLOB NOT NULL,
    first_ms INTEGER NOT NULL, last_ms INTEGER NOT NULL, hits INTEGER NOT NULL,
    PRIMARY KEY (feed, prefix)) WITHOUT ROWID;
CREATE TABLE batch (
    spool TEXT NOT NULL, seq INTEGER NOT NULL, sealed_ms INTEGER NOT NULL,
    events INTEGER NOT NULL, body BLOB NOT NULL,
    confirmed_ms INTEGER, set_aside TEXT,
    PRIMARY KEY (spool, seq));
CREATE INDEX batch_waiting ON batch (sealed_ms) WHERE confirmed_ms IS NULL;
"""

#: Since 0.2.0. ``confirmation``: for each confirmed batch, the spool's age at that time (see
#: ``bounds.advance_age``), and whether to deliver it again. ``undated_…``: events heard while the
#: wall clock was in doubt, in milliseconds of that boot; dating turns the minutes into hours.
_ADDED: Final = (
    """
CREATE TABLE IF NOT EXISTS confirmation (
    spool TEXT NOT NULL, seq INTEGER NOT NULL, age_ms INTEGER NOT NULL, again INTEGER NOT NULL,
    PRIMARY KEY (spool, seq)) WITHOUT ROWID
""",
    "CREATE INDEX IF NOT EXISTS confirmation_age ON confirmation (again, age_ms)",
    """
CREATE TABLE IF NOT EXISTS undated_observation (
    boot TEXT NOT NULL, feed INTEGER NOT NULL, ip BLOB NOT NULL,
    first_ms INTEGER NOT NULL, last_ms INTEGER NOT NULL, hits INTEGER NOT NULL,
    flags INTEGER NOT NULL, targets INTEGER NOT NULL,
    PRIMARY KEY (boot, feed, ip)) WITHOUT ROWID
""",
    """
CREATE TABLE IF NOT EXISTS undated_activity (
    boot TEXT NOT NULL, feed INTEGER NOT NULL, minute_ms INTEGER NOT NULL,
    events INTEGER NOT NULL,
    PRIMARY KEY (boot, feed, minute_ms)) WITHOUT ROWID
""",
    """
CREATE TABLE IF NOT EXISTS undated_overflow (
    boot TEXT NOT NULL, feed INTEGER NOT NULL, prefix BLOB NOT NULL,
    first_ms INTEGER NOT NULL, last_ms INTEGER NOT NULL, hits INTEGER NOT NULL,
    PRIMARY KEY (boot, feed, prefix)) WITHOUT ROWID
""",
)

ADD_META: Final = """
INSERT INTO meta VALUES (?,?) ON CONFLICT (key) DO UPDATE SET value = value + excluded.value
"""
_SET_META: Final = "INSERT OR REPLACE INTO meta VALUES (?,?)"


#: RabbitMQ's words in the reason of a batch that 0.1.0 held; 0.1.0 noted no kind.
_TOO_LARGE_IN_0_1_0: Final = "larger than"


class Held(Enum):
    """Why a batch is held instead of delivered."""

    #: The broker refuses it as too large, and it cannot be split.
    TOO_LARGE = "too_large"
    #: The aggregator of this host refuses it.
    REFUSED = "refused"

    @classmethod
    def of(cls, reason: str) -> "Held":
        """Return the kind of the reason that is noted with a batch."""
        kind = reason.partition(":")[0]
        if kind == cls.TOO_LARGE.value or _TOO_LARGE_IN_0_1_0 in reason:
            return cls.TOO_LARGE
        return cls.REFUSED


def add_tables(db: Connection) -> None:
    """Add the later tables to a file of 0.1.0, within a transaction.

    A batch that 0.1.0 confirmed counts as confirmed now. The confirmation of a batch that 0.1.0
    deleted is deleted.
    """
    for statement in _ADDED:
        db.execute(statement)
    db.execute(
        "DELETE FROM confirmation WHERE NOT EXISTS (SELECT 1 FROM batch"
        " WHERE batch.spool = confirmation.spool AND batch.seq = confirmation.seq)"
    )
    db.execute(
        "INSERT OR IGNORE INTO confirmation SELECT spool, seq, ?, 0 FROM batch"
        " WHERE confirmed_ms IS NOT NULL",
        (noted_age(db).age_ms,),
    )


def has_added_tables(db: Connection) -> bool:
    """Return whether a version since 0.2.0 has opened the file."""
    return bool(
        db.execute("SELECT count(*) FROM sqlite_master WHERE name = 'undated_overflow'").fetchone()[
            0
        ]
    )


def check_layout(db: Connection, path: Path) -> None:
    """Check that this version can read the file as a spool.

    Raises:
        SpoolDamaged: it is not a spool.
        SpoolError: its layout is newer.
    """
    with reading(path):
        layout = db.execute("PRAGMA user_version").fetchone()[0]
        owned = layout and db.execute("SELECT 1 FROM meta WHERE key = 'sensor'").fetchone()
    if layout > LAYOUT:
        raise SpoolError(
            f"spool {path} has layout {layout}, newer than this program's {LAYOUT}: "
            "upgrade smtpfeeds on this host"
        )
    if not owned:
        raise SpoolDamaged(f"{path} is not a spool")


# Notes


def get_meta(db: Connection, key: str, default: Any = None) -> Any:
    """Read a note; return the default if there is none."""
    row = db.execute("SELECT value FROM meta WHERE key = ?", (key,)).fetchone()
    return default if row is None else row[0]


def set_meta(db: Connection, key: str, value: Any) -> None:
    """Write a note."""
    db.execute(_SET_META, (key, value))


def get_json(db: Connection, key: str) -> dict[str, Any]:
    """Read a note that is a JSON object; return an empty one if there is none.

    Raises:
        SpoolDamaged: it is not a JSON object.
    """
    try:
        noted = json.loads(get_meta(db, key, "{}"))
    except (TypeError, ValueError, RecursionError) as exc:
        raise SpoolDamaged(f"the spool's note {key!r} is damaged: {exc}") from exc
    if not isinstance(noted, dict):
        raise SpoolDamaged(f"the spool's note {key!r} is damaged: it is not an object")
    return noted


def set_json(db: Connection, key: str, value: dict[str, Any]) -> None:
    """Write a note that is a JSON object."""
    set_meta(db, key, json.dumps(value))


class StateNote(msgspec.Struct, frozen=True):
    """The sensor's state, as it notes it every ten seconds. Times are UTC in milliseconds."""

    version: Text = ""
    counters: dict[Text, Count] = {}
    #: How many addresses it listens on; 0: not known.
    addresses: Count = 0
    #: The newest time at which its clock was trusted.
    noted_ms: Annotated[int, msgspec.Meta(ge=0, le=MS_MAX)] | None = None
    #: When the last client connected.
    client_ms: Annotated[int, msgspec.Meta(ge=0, le=MS_MAX)] | None = None
    #: Why its clock is in doubt; empty while it is trusted.
    doubt: str = ""


class DeliveryNote(msgspec.Struct, frozen=True):
    """When batches were last confirmed, and when and why that failed; UTC in milliseconds."""

    delivered_ms: Annotated[int, msgspec.Meta(ge=0, le=MS_MAX)] | None = None
    failed_ms: Annotated[int, msgspec.Meta(ge=0, le=MS_MAX)] | None = None
    failure: str = ""


class AgeNote(msgspec.Struct, frozen=True):
    """The spool's age, and the monotonic clock when it was noted."""

    age_ms: Count = 0
    boot: str = ""
    elapsed_ms: int | None = None


def noted_state(db: Connection) -> StateNote:
    """Read the sensor's state."""
    return _noted(db, "state", StateNote)


def noted_delivery(db: Connection) -> DeliveryNote:
    """Read the state of the delivery."""
    return _noted(db, "delivery", DeliveryNote)


def noted_age(db: Connection) -> AgeNote:
    """Read the spool's age."""
    return _noted(db, "age", AgeNote)


def _noted(db: Connection, key: str, kind: type[Note]) -> Note:
    """Read a note; one that is damaged counts as missing, because it is written again."""
    try:
        return msgspec.convert(get_json(db, key), kind)
    except (SpoolDamaged, msgspec.ValidationError):
        return kind()


def noted_drops(db: Connection) -> int:
    """Read how many events the spool has dropped since it was created."""
    return count_of(get_meta(db, "drops", 0))


def begin_epoch(db: Connection) -> None:
    """Seal under a new UUID from now on, so that a restored copy never uses a number twice."""
    set_meta(db, "uuid", str(uuid.uuid4()))
    set_meta(db, "next_seq", 1)


def note_bounds(db: Connection, bounds: Bounds) -> None:
    """Note the sensor's bounds for the program that delivers."""
    set_json(db, "bounds", asdict(bounds))


def noted_bounds(db: Connection) -> Bounds:
    """Read the bounds that the sensor noted, with defaults for those that it did not."""
    noted = _noted(db, "bounds", Bounds)
    return noted if noted.max_bytes > 0 and min(asdict(noted).values()) >= 0 else Bounds()
