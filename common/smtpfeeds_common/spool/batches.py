"""Moves rows into numbered batches, inside a transaction of either side.

The deliverer seals new rows at intervals. The sensor seals the remaining rows of a day when the
next day begins, so that all rows of a batch are of one UTC day.
"""

import logging
from typing import Any, Final, NamedTuple
from uuid import UUID

from ..addresses import format_address
from ..feeds import FEEDS
from ..logs import fields
from ..wire import SEQ_MAX, Batch, HourCount, Observation, PrefixOverflow, encode
from .file import Connection
from .layout import ADD_META, begin_epoch, get_meta, noted_drops, noted_state, set_meta
from .sound import UNREADABLE, is_sound

logger = logging.getLogger(__name__)

_Row = tuple[Any, ...]
#: The tables of rows that are sealed, each with the key after its feed.
_KEYS: Final = {"observation": "ip", "activity": "hour_ms", "overflow": "prefix"}

#: What a column of SQLite holds.
_EVENTS_MAX: Final = 2**63 - 1


class SealedBatch(NamedTuple):
    """A batch as it is sent; (spool, seq) identifies it, and its body never changes."""

    spool: str
    seq: int
    sealed_ms: int
    body: bytes


def seal_rows(
    db: Connection, sensor: str, sealed_ms: int, *, most_rows: int, empty: bool = False
) -> SealedBatch | None:
    """Move rows into a new batch, within the caller's transaction.

    Args:
        db: the open file.
        sensor: the owner of the spool.
        sealed_ms: the time now, UTC.
        most_rows: the limit for each kind of row.
        empty: seal a batch even if there are no rows.

    Returns:
        The batch, or None if there were no rows.
    """
    taken = {table: _take(db, table, key, most_rows) for table, key in _KEYS.items()}
    if not (any(taken.values()) or empty):
        return None
    still_waiting = depth(db) if len(taken["observation"]) == most_rows else 0
    try:
        content = _content(**taken)
    except UNREADABLE:
        content = _content(**{table: sound_rows(db, table, rows) for table, rows in taken.items()})
    return seal_as(db, sensor, sealed_ms, *content, still_waiting=still_waiting)


def sound_rows(db: Connection, table: str, rows: list[_Row]) -> list[_Row]:
    """Return the rows that a sensor can have written; count the others as dropped."""
    sound = [row for row in rows if is_sound(table, row)]
    if unsound := len(rows) - len(sound):
        db.execute(ADD_META, ("drops", unsound))
        logger.error("damaged rows of the spool dropped", extra=fields(table=table, rows=unsound))
    return sound


def _content(
    observation: list[_Row], activity: list[_Row], overflow: list[_Row]
) -> tuple[list[Observation], list[HourCount], list[PrefixOverflow]]:
    """Put rows of the tables in the form of the message.

    Raises:
        UNREADABLE: a row is unsound.
    """
    observations = [observation_of(row) for row in observation]
    sum([row.hits for row in observations])
    return (
        observations,
        [HourCount(FEEDS[feed].name, hour, events) for feed, hour, events in activity],
        [
            PrefixOverflow(FEEDS[feed].name, f"{format_address(prefix)}/64", first, last, hits)
            for feed, prefix, first, last, hits in overflow
        ],
    )


def seal_as(
    db: Connection,
    sensor: str,
    sealed_ms: int,
    observations: list[Observation],
    hours: list[HourCount],
    overflows: list[PrefixOverflow],
    *,
    still_waiting: int = 0,
) -> SealedBatch:
    """Put rows in the form of the message into a new batch, under the spool's next name."""
    spool, seq = next_name(db)
    state = noted_state(db)
    return insert(
        db,
        Batch(
            spool=UUID(spool),
            seq=seq,
            sensor=sensor,
            sealed_ms=sealed_ms,
            version=state.version,
            depth=still_waiting,
            drops=noted_drops(db),
            counters=state.counters,
            addresses=state.addresses,
            observations=observations,
            hours=hours,
            overflows=overflows,
        ),
    )


def observation_of(row: tuple[Any, ...]) -> Observation:
    """Convert a row of the table ``observation`` to one of the message."""
    feed, ip, first_ms, last_ms, hits, flags, targets = row
    return Observation(
        FEEDS[feed].name, format_address(ip), first_ms, last_ms, hits, flags, targets
    )


def next_name(db: Connection) -> tuple[str, int]:
    """Reserve the name of the next batch of this opening, within a transaction."""
    spool, seq = str(get_meta(db, "uuid")), get_meta(db, "next_seq")
    if not _is_name(spool, seq):
        begin_epoch(db)  # the notes are damaged: no name may be used twice
        spool, seq = str(get_meta(db, "uuid")), 1
    set_meta(db, "next_seq", seq + 1)
    return spool, seq


def _is_name(spool: str, seq: Any) -> bool:
    try:
        UUID(spool)
    except ValueError:
        return False
    return isinstance(seq, int) and 1 <= seq <= SEQ_MAX


def insert(db: Connection, batch: Batch) -> SealedBatch:
    """Store a batch in the file."""
    sealed = SealedBatch(str(batch.spool), batch.seq, batch.sealed_ms, encode(batch))
    events = min(sum(row.hits for row in batch.observations), _EVENTS_MAX)
    db.execute(
        "INSERT INTO batch VALUES (?,?,?,?,?,NULL,NULL)",
        (*sealed[:3], events, sealed.body),
    )
    return sealed


def depth(db: Connection) -> int:
    """Count the addresses that wait to be sealed."""
    return int(db.execute("SELECT count(*) FROM observation").fetchone()[0])


def _take(db: Connection, table: str, key: str, limit: int) -> list[tuple[Any, ...]]:
    rows = db.execute(
        f"SELECT * FROM {table} ORDER BY feed, {key} LIMIT ?",  # noqa: S608 - own names
        (limit,),
    ).fetchall()
    if not rows:
        # A DELETE on an empty table still writes and syncs a page, every second on a quiet sensor.
        return rows
    if len(rows) < limit:
        db.execute(f"DELETE FROM {table}")  # noqa: S608 - own names
    else:
        db.executemany(
            f"DELETE FROM {table} WHERE feed = ? AND {key} = ?",  # noqa: S608 - own names
            [(row[0], row[1]) for row in rows],
        )
    return rows
