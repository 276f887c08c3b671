"""Moves rows into numbered batches, inside a transaction of either side.

The deliverer seals new rows at intervals. The sensor seals the remaining rows of a day when the
next day begins, so that all rows of a batch are of one UTC day.
"""

from typing import Any, NamedTuple
from uuid import UUID

from ..addresses import format_address
from ..feeds import FEEDS
from ..wire import Batch, HourCount, Observation, PrefixOverflow, encode
from .file import Connection
from .layout import get_json, get_meta, set_meta


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
    rows = _take(db, "observation", "ip", most_rows)
    hours = _take(db, "activity", "hour_ms", most_rows)
    overflow = _take(db, "overflow", "prefix", most_rows)
    if not (rows or hours or overflow or empty):
        return None
    return seal_as(
        db,
        sensor,
        sealed_ms,
        [observation_of(row) for row in rows],
        [HourCount(FEEDS[feed].name, hour, events) for feed, hour, events in hours],
        [
            PrefixOverflow(FEEDS[feed].name, f"{format_address(prefix)}/64", first, last, hits)
            for feed, prefix, first, last, hits in overflow
        ],
        still_waiting=depth(db) if len(rows) == most_rows else 0,
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
    state = get_json(db, "state")
    return insert(
        db,
        Batch(
            spool=UUID(spool),
            seq=seq,
            sensor=sensor,
            sealed_ms=sealed_ms,
            version=state.get("version", ""),
            depth=still_waiting,
            drops=int(get_meta(db, "drops", 0)),
            counters=state.get("counters", {}),
            addresses=state.get("addresses", 0),
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
    spool, seq = str(get_meta(db, "uuid")), int(get_meta(db, "next_seq"))
    set_meta(db, "next_seq", seq + 1)
    return spool, seq


def insert(db: Connection, batch: Batch) -> SealedBatch:
    """Store a batch in the file."""
    sealed = SealedBatch(str(batch.spool), batch.seq, batch.sealed_ms, encode(batch))
    db.execute(
        "INSERT INTO batch VALUES (?,?,?,?,?,NULL,NULL)",
        (*sealed[:3], sum(row.hits for row in batch.observations), sealed.body),
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
