"""The deliverer's side of a spool: rows become batches, batches are forgotten."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple
from uuid import UUID

from ..addresses import format_address
from ..errors import SpoolError
from ..feeds import FEEDS
from ..wire import MAX_ROWS, Batch, HourCount, Observation, PrefixOverflow, encode
from .bounds import Keeper
from .file import (
    SET_META,
    begin_epoch,
    check_layout,
    connect,
    inode,
    noted_bounds,
    reading,
    take_lock,
    transaction,
)
from .fold import Bounds
from .status import replay_in


class SealedBatch(NamedTuple):
    """A batch as it is sent: known by (spool, seq), its body never changes."""

    spool: str
    seq: int
    sealed_ms: int
    body: bytes


class Sealer:
    """The deliverer's side of a spool file; all calls from one thread."""

    def __init__(self, path: Path, *, bounds: Bounds | None = None) -> None:
        """Open a spool that a sensor has made, with the bounds that it noted there.

        Raises:
            SpoolInUse: another publisher or aggregator delivers from it.
            SpoolError: there is no such spool yet.
        """
        self.path = path
        if not path.exists():
            raise SpoolError(f"there is no spool {path}; the sensor makes it when it starts")
        self._lock = take_lock(
            path.with_suffix(".sealer-lock"),
            f"spool {path} is already being "
            "delivered, by a publisher or an aggregator; stop one of them",
        )
        try:
            self._inode = inode(path)
            self._db = connect(path, synchronous="FULL", busy_ms=2_000)
        except BaseException:
            self._lock.close()
            raise
        try:
            check_layout(self._db, path)
            with transaction(self._db, path):
                self.bounds = bounds or noted_bounds(self._db)
                self._keeper = Keeper(self._db, path, self.bounds)
                self.sensor = str(self._meta("sensor"))
                begin_epoch(self._db)
        except BaseException:
            self.close()
            raise

    def _meta(self, key: str, default: Any = None) -> Any:
        row = self._db.execute("SELECT value FROM meta WHERE key = ?", (key,)).fetchone()
        return default if row is None else row[0]

    @property
    def replaced(self) -> bool:
        """Whether the file at the path is no longer the one that is open here."""
        try:
            return inode(self.path) != self._inode
        except SpoolError:
            return True

    def seal(self, now_ms: int, *, empty: bool = False) -> SealedBatch | None:
        """Move up to 5,000 rows into a new batch, in one durable transaction.

        Args:
            now_ms: the time of sealing.
            empty: seal also where there is nothing, to say that the sensor is alive.

        Returns:
            The batch, or None where there was nothing to seal.

        Raises:
            SpoolBusy, SpoolUnwritable, SpoolDamaged: nothing was sealed.
        """
        with transaction(self._db, self.path):
            rows = self._take("observation", MAX_ROWS)
            hours = self._take("activity", MAX_ROWS)
            overflow = self._take("overflow", MAX_ROWS)
            if not (rows or hours or overflow or empty):
                return None
            spool, seq = str(self._meta("uuid")), int(self._meta("next_seq"))
            batch = self._batch(spool, seq, now_ms, rows, hours, overflow)
            body = encode(batch)
            self._db.execute(
                "INSERT INTO batch VALUES (?,?,?,?,?,NULL,NULL)",
                (spool, seq, now_ms, sum(row[4] for row in rows), body),
            )
            self._db.execute(SET_META, ("next_seq", seq + 1))
        return SealedBatch(spool, seq, now_ms, body)

    def _take(self, table: str, limit: int) -> list[tuple[Any, ...]]:
        key = {"observation": "ip", "activity": "hour_ms", "overflow": "prefix"}[table]
        rows = self._db.execute(
            f"SELECT * FROM {table} ORDER BY feed, {key} LIMIT ?",  # noqa: S608 - own names
            (limit,),
        ).fetchall()
        if len(rows) < limit:
            self._db.execute(f"DELETE FROM {table}")  # noqa: S608 - own names
        else:
            self._db.executemany(
                f"DELETE FROM {table} WHERE feed = ? AND {key} = ?",  # noqa: S608 - own names
                [(row[0], row[1]) for row in rows],
            )
        return rows

    def _batch(
        self,
        spool: str,
        seq: int,
        now_ms: int,
        rows: list[tuple[Any, ...]],
        hours: list[tuple[Any, ...]],
        overflow: list[tuple[Any, ...]],
    ) -> Batch:
        state = json.loads(self._meta("state", "{}"))
        return Batch(
            spool=UUID(spool),
            seq=seq,
            sensor=self.sensor,
            sealed_ms=now_ms,
            version=state.get("version", ""),
            depth=self.depth() if len(rows) == MAX_ROWS else 0,
            drops=int(self._meta("drops", 0)),
            counters=state.get("counters", {}),
            observations=[
                Observation(FEEDS[feed].name, format_address(ip), first, last, hits, flags, targets)
                for feed, ip, first, last, hits, flags, targets in rows
            ],
            hours=[HourCount(FEEDS[feed].name, hour, events) for feed, hour, events in hours],
            overflows=[
                PrefixOverflow(FEEDS[feed].name, f"{format_address(prefix)}/64", first, last, hits)
                for feed, prefix, first, last, hits in overflow
            ],
        )

    def depth(self) -> int:
        """Rows waiting to be sealed."""
        with reading(self.path):
            return int(self._db.execute("SELECT count(*) FROM observation").fetchone()[0])

    def waiting(self, limit: int = -1) -> list[SealedBatch]:
        """Sealed batches that were never confirmed, oldest first, all or so many."""
        with reading(self.path):
            rows = self._db.execute(
                "SELECT spool, seq, sealed_ms, body FROM batch"
                " WHERE confirmed_ms IS NULL AND set_aside IS NULL ORDER BY sealed_ms, seq LIMIT ?",
                (limit,),
            ).fetchall()
        return [SealedBatch(*row) for row in rows]

    def waiting_state(self) -> tuple[int, int | None]:
        """How many batches wait for a confirm, and since when the oldest."""
        with reading(self.path):
            number, oldest_ms = self._db.execute(
                "SELECT count(*), min(sealed_ms) FROM batch"
                " WHERE confirmed_ms IS NULL AND set_aside IS NULL"
            ).fetchone()
        return int(number), oldest_ms

    def forget(self, batches: Iterable[tuple[str, int]], now_ms: int) -> None:
        """Mark batches as confirmed; ``keep_bounds`` deletes them later."""
        with transaction(self._db, self.path):
            self._db.executemany(
                "UPDATE batch SET confirmed_ms = ? WHERE spool = ? AND seq = ?",
                [(now_ms, spool, seq) for spool, seq in batches],
            )

    def set_batch_aside(self, spool: str, seq: int, reason: str) -> None:
        """Keep a batch that the broker will never take out of the others' way."""
        with transaction(self._db, self.path):
            self._db.execute(
                "UPDATE batch SET set_aside = ? WHERE spool = ? AND seq = ?", (reason, spool, seq)
            )

    def replay(self, since_ms: int) -> int:
        """Make confirmed batches sealed since then wait again. Returns how many."""
        return replay_in(self._db, self.path, since_ms)

    def keep_bounds(self, now_ms: int) -> int:
        """Drop what the bounds say, in short slices, and checkpoint the log.

        Returns:
            Events dropped that were never delivered.
        """
        return self._keeper.keep(now_ms)

    def used_bytes(self) -> int:
        """Octets of the file that hold something."""
        return self._keeper.used_bytes()

    def close(self) -> None:
        """Close the file."""
        self._db.close()
        self._lock.close()
