"""Rows become numbered batches, inside a transaction of either side.

The deliverer seals what is new, again and again; the sensor seals what is left of a day when the
next one begins, so that the rows of a batch lie in one UTC day.
"""

from typing import Any, NamedTuple
from uuid import UUID

from ..addresses import format_address
from ..feeds import FEEDS
from ..wire import Batch, HourCount, Observation, PrefixOverflow, encode
from .file import Connection
from .layout import get_json, get_meta, set_meta


class SealedBatch(NamedTuple):
    """A batch as it is sent: known by (spool, seq), its body never changes."""

    spool: str
    seq: int
    sealed_ms: int
    body: bytes


def seal_rows(
    db: Connection, sensor: str, sealed_ms: int, *, most_rows: int, empty: bool = False
) -> SealedBatch | None:
    """Move rows into a new batch; the caller's transaction holds it.

    Args:
        db: the open file.
        sensor: whose spool it is.
        sealed_ms: the time now, UTC.
        most_rows: of each kind.
        empty: make a batch also of nothing.

    Returns:
        The batch, or None where there was nothing to seal.
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
    """Put rows of the message into a new batch, under the spool's next name."""
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
    """A row of the table ``observation`` as one of the message."""
    feed, ip, first_ms, last_ms, hits, flags, targets = row
    return Observation(
        FEEDS[feed].name, format_address(ip), first_ms, last_ms, hits, flags, targets
    )


def next_name(db: Connection) -> tuple[str, int]:
    """The name of one more batch of this opening; used up with the transaction."""
    spool, seq = str(get_meta(db, "uuid")), int(get_meta(db, "next_seq"))
    set_meta(db, "next_seq", seq + 1)
    return spool, seq


def insert(db: Connection, batch: Batch) -> SealedBatch:
    """Put a batch into the file."""
    sealed = SealedBatch(str(batch.spool), batch.seq, batch.sealed_ms, encode(batch))
    db.execute(
        "INSERT INTO batch VALUES (?,?,?,?,?,NULL,NULL)",
        (*sealed[:3], sum(row.hits for row in batch.observations), sealed.body),
    )
    return sealed


def depth(db: Connection) -> int:
    """Addresses waiting to be sealed."""
    return int(db.execute("SELECT count(*) FROM observation").fetchone()[0])


def _take(db: Connection, table: str, key: str, limit: int) -> list[tuple[Any, ...]]:
    rows = db.execute(
        f"SELECT * FROM {table} ORDER BY feed, {key} LIMIT ?",  # noqa: S608 - own names
        (limit,),
    ).fetchall()
    if not rows:
        # SQLite writes and syncs a page for an empty table too, each second of a quiet sensor.
        return rows
    if len(rows) < limit:
        db.execute(f"DELETE FROM {table}")  # noqa: S608 - own names
    else:
        db.executemany(
            f"DELETE FROM {table} WHERE feed = ? AND {key} = ?",  # noqa: S608 - own names
            [(row[0], row[1]) for row in rows],
        )
    return rows
