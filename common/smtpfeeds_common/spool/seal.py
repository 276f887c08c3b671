"""The deliverer's side of a spool: rows become batches, batches are confirmed, held or split."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final, NamedTuple
from uuid import UUID

import msgspec

from ..addresses import format_address
from ..clock import Reading
from ..errors import SpoolError, WireError
from ..feeds import FEEDS
from ..wire import MAX_ROWS, Batch, HourCount, Observation, PrefixOverflow, decode, encode
from .bounds import Dropped, Keeper, advance_age
from .dating import date_rows
from .file import connect, inode, reading, take_lock, transaction
from .fold import Bounds
from .layout import (
    Held,
    add_tables,
    begin_epoch,
    check_layout,
    get_json,
    get_meta,
    noted_bounds,
    set_json,
    set_meta,
)

_WAITING: Final = "confirmed_ms IS NULL AND set_aside IS NULL"


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
            SpoolError: there is no such spool yet, or it cannot be written now.
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
                add_tables(self._db)
                self.bounds = bounds or noted_bounds(self._db)
                self.sensor = str(get_meta(self._db, "sensor"))
                #: The newest time the sensor has noted; None: none yet.
                self.noted_ms: int | None = get_json(self._db, "state").get("noted_ms")
                begin_epoch(self._db)
            self._keeper = Keeper(self._db, path, self.bounds)
        except BaseException:
            self.close()
            raise

    @property
    def replaced(self) -> bool:
        """Whether the file at the path is no longer the one that is open here."""
        try:
            return inode(self.path) != self._inode
        except SpoolError:
            return True

    # Sealing

    def seal(
        self, now: Reading, *, empty: bool = False, most_rows: int = MAX_ROWS
    ) -> SealedBatch | None:
        """Move rows into a new batch, in one durable transaction.

        Rows that are not dated yet are dated before. While the wall clock is in doubt nothing is
        sealed: a batch with a wrong time would be refused at the centre, or spoil what is there.

        Args:
            now: the clocks.
            empty: seal also where there is nothing, to say that the sensor is alive.
            most_rows: of each kind.

        Returns:
            The batch, or None where there was nothing to seal, or no time to seal it with.

        Raises:
            SpoolBusy, SpoolUnwritable, SpoolDamaged: nothing was sealed.
        """
        if now.utc_ms is None:
            return None
        date_rows(self._db, self.path, now)
        with transaction(self._db, self.path):
            rows = self._take("observation", "ip", most_rows)
            hours = self._take("activity", "hour_ms", most_rows)
            overflow = self._take("overflow", "prefix", most_rows)
            if not (rows or hours or overflow or empty):
                return None
            depth = self.depth() if len(rows) == most_rows else 0
            return self._insert(self._batch(now.utc_ms, depth, rows, hours, overflow))

    def _take(self, table: str, key: str, limit: int) -> list[tuple[Any, ...]]:
        rows = self._db.execute(
            f"SELECT * FROM {table} ORDER BY feed, {key} LIMIT ?",  # noqa: S608 - own names
            (limit,),
        ).fetchall()
        if not rows:
            # SQLite writes and syncs a page for an empty table too, each second of a quiet sensor.
            return rows
        if len(rows) < limit:
            self._db.execute(f"DELETE FROM {table}")  # noqa: S608 - own names
        else:
            self._db.executemany(
                f"DELETE FROM {table} WHERE feed = ? AND {key} = ?",  # noqa: S608 - own names
                [(row[0], row[1]) for row in rows],
            )
        return rows

    def _next_name(self) -> tuple[str, int]:
        """The name of one more batch of this opening; used up with the transaction."""
        spool, seq = str(get_meta(self._db, "uuid")), int(get_meta(self._db, "next_seq"))
        set_meta(self._db, "next_seq", seq + 1)
        return spool, seq

    def _batch(
        self,
        sealed_ms: int,
        depth: int,
        rows: list[tuple[Any, ...]],
        hours: list[tuple[Any, ...]],
        overflow: list[tuple[Any, ...]],
    ) -> Batch:
        state = get_json(self._db, "state")
        spool, seq = self._next_name()
        return Batch(
            spool=UUID(spool),
            seq=seq,
            sensor=self.sensor,
            sealed_ms=sealed_ms,
            version=state.get("version", ""),
            depth=depth,
            drops=int(get_meta(self._db, "drops", 0)),
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

    def _insert(self, batch: Batch) -> SealedBatch:
        sealed = SealedBatch(str(batch.spool), batch.seq, batch.sealed_ms, encode(batch))
        self._db.execute(
            "INSERT INTO batch VALUES (?,?,?,?,?,NULL,NULL)",
            (*sealed[:3], sum(row.hits for row in batch.observations), sealed.body),
        )
        return sealed

    def depth(self) -> int:
        """Addresses waiting to be sealed."""
        with reading(self.path):
            return int(self._db.execute("SELECT count(*) FROM observation").fetchone()[0])

    def has_more(self, rows: int = MAX_ROWS) -> bool:
        """Whether so many rows of a kind wait to be sealed."""
        with reading(self.path):
            return any(
                self._db.execute(
                    f"SELECT 1 FROM {table} LIMIT 1 OFFSET ?",  # noqa: S608 - own names
                    (rows - 1,),
                ).fetchone()
                for table in ("observation", "overflow")
            )

    # Batches

    def waiting(self, limit: int = -1) -> list[SealedBatch]:
        """Sealed batches that were never confirmed, oldest first, all or so many."""
        return self._batches(f"FROM batch WHERE {_WAITING} ORDER BY sealed_ms, seq", limit)

    def wanted_again(self, limit: int = -1) -> list[SealedBatch]:
        """Confirmed batches that a replay wants delivered again, oldest first."""
        return self._batches(
            "FROM confirmation JOIN batch USING (spool, seq)"
            " WHERE again = 1 ORDER BY sealed_ms, seq",
            limit,
        )

    def _batches(self, which: str, limit: int) -> list[SealedBatch]:
        with reading(self.path):
            rows = self._db.execute(
                f"SELECT spool, seq, sealed_ms, body {which} LIMIT ?",
                (limit,),
            ).fetchall()
        return [SealedBatch(*row) for row in rows]

    def waiting_state(self) -> tuple[int, int | None]:
        """How many batches wait for a confirm, and since when the oldest."""
        with reading(self.path):
            number, oldest_ms = self._db.execute(
                f"SELECT count(*), min(sealed_ms) FROM batch WHERE {_WAITING}"  # noqa: S608 - own words
            ).fetchone()
        return int(number), oldest_ms

    def confirm(self, names: Iterable[tuple[str, int]], now: Reading) -> None:
        """Mark batches as confirmed; ``keep_bounds`` deletes them when no replay needs them."""
        names = list(names)
        with transaction(self._db, self.path):
            age_ms = advance_age(self._db, now)
            confirmed_ms = now.utc_ms or 0
            self._db.executemany(
                "UPDATE batch SET confirmed_ms = ? WHERE spool = ? AND seq = ?",
                [(confirmed_ms, *name) for name in names],
            )
            self._db.executemany(
                "INSERT OR REPLACE INTO confirmation VALUES (?,?,?,0)",
                [(*name, age_ms) for name in names],
            )
            if names:
                self._note_delivery(delivered_ms=now.utc_ms)

    def hold(self, spool: str, seq: int, held: Held, reason: str) -> None:
        """Keep a batch that cannot be delivered as it is, out of the others' way.

        One that was confirmed before, and is replayed, stays confirmed: it is given up only.
        """
        with transaction(self._db, self.path):
            self._db.execute(
                "UPDATE batch SET set_aside = ?"
                " WHERE spool = ? AND seq = ? AND confirmed_ms IS NULL",
                (f"{held.value}: {reason}", spool, seq),
            )
            self._give_up_replay(spool, seq)

    def split(self, spool: str, seq: int) -> int:
        """Put two smaller batches in the place of one that the broker calls too large.

        The broker has not taken it, so its rows may have new names; one transaction takes the old
        batch away and brings the new ones, so that each row is delivered once.

        Returns:
            Rows of the larger of the two; 0 where it cannot be split: a batch of a single row, or
            one that was confirmed before and is replayed.
        """
        with transaction(self._db, self.path):
            row = self._db.execute(
                f"SELECT body FROM batch WHERE spool = ? AND seq = ? AND {_WAITING}",  # noqa: S608 - own words
                (spool, seq),
            ).fetchone()
            halves = _halves(row[0]) if row else None
            if halves is None:
                return 0
            self._db.execute("DELETE FROM batch WHERE spool = ? AND seq = ?", (spool, seq))
            for half in halves:
                new_spool, new_seq = self._next_name()
                self._insert(msgspec.structs.replace(half, spool=UUID(new_spool), seq=new_seq))
        return max(map(_rows, halves))

    def give_up_replay(self, spool: str, seq: int) -> None:
        """Do not deliver a batch again that a replay wanted; it was confirmed before."""
        with transaction(self._db, self.path):
            self._give_up_replay(spool, seq)

    def _give_up_replay(self, spool: str, seq: int) -> None:
        self._db.execute(
            "UPDATE confirmation SET again = 0 WHERE spool = ? AND seq = ?", (spool, seq)
        )

    # Around it

    def note_failure(self, reason: str, now: Reading) -> None:
        """Leave in the file why the last attempt to deliver failed, for `sensor status`."""
        with transaction(self._db, self.path):
            self._note_delivery(failed_ms=now.utc_ms, failure=reason)

    def _note_delivery(self, **news: object) -> None:
        set_json(self._db, "delivery", {**get_json(self._db, "delivery"), **news})

    def keep_bounds(self, now: Reading) -> Dropped:
        """Drop what the bounds say, in short slices, and checkpoint the log."""
        return self._keeper.keep(now)

    def used_bytes(self) -> int:
        """Octets of the file that hold something."""
        return self._keeper.used_bytes()

    def close(self) -> None:
        """Close the file."""
        self._db.close()
        self._lock.close()


def _rows(batch: Batch) -> int:
    return len(batch.observations) + len(batch.hours) + len(batch.overflows)


def _halves(body: bytes) -> tuple[Batch, Batch] | None:
    """A batch as two; None where it has not two rows."""
    try:
        batch = decode(body).batch
    except WireError:
        return None
    middle = _rows(batch) // 2
    if not middle:
        return None
    first, second, before = {}, {}, 0
    for name in ("observations", "hours", "overflows"):
        rows = getattr(batch, name)
        cut = max(0, middle - before)
        first[name], second[name] = rows[:cut], rows[cut:]
        before += len(rows)
    return msgspec.structs.replace(batch, **first), msgspec.structs.replace(batch, **second)
