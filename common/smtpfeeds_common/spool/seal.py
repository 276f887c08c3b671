"""The deliverer's side of a spool: seals rows into batches; confirms, holds and splits batches."""

from collections.abc import Iterable
from pathlib import Path
from typing import Final
from uuid import UUID

import msgspec

from ..clock import Reading
from ..errors import SpoolError, WireError
from ..wire import MAX_BODY_BYTES, MAX_ROWS, Batch, decode
from .batches import SealedBatch, depth, insert, next_name, seal_rows
from .bounds import Dropped, Keeper, advance_age
from .dating import date_rows
from .file import connect, inode, reading, take_lock, transaction
from .fold import Bounds
from .layout import (
    Held,
    add_tables,
    begin_epoch,
    check_layout,
    get_meta,
    noted_bounds,
    noted_delivery,
    noted_state,
    set_json,
)

_WAITING: Final = "confirmed_ms IS NULL AND set_aside IS NULL"
#: Only damage makes a body longer than any message; it is not read, and refused as no batch.
_BODY: Final = f"CASE WHEN length(body) <= {MAX_BODY_BYTES} THEN CAST(body AS BLOB) ELSE x'' END"


class Sealer:
    """The deliverer's side of a spool file; call all methods from one thread."""

    def __init__(self, path: Path, *, bounds: Bounds | None = None) -> None:
        """Open a spool that a sensor has created, with the bounds that the sensor noted in it.

        Raises:
            SpoolInUse: another publisher or aggregator delivers from it.
            SpoolError: there is no such spool yet, or it cannot be written now.
        """
        self.path = path
        if not path.exists():
            raise SpoolError(f"there is no spool {path}; the sensor creates it when it starts")
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
                #: The newest time that the sensor has noted; None: none yet.
                self.noted_ms: int | None = noted_state(self._db).noted_ms
                begin_epoch(self._db)
            self._keeper = Keeper(self._db, path, self.bounds)
        except BaseException:
            self.close()
            raise

    @property
    def replaced(self) -> bool:
        """Whether the path now holds another file than the open one, or none."""
        try:
            return inode(self.path) != self._inode
        except SpoolError:
            return True

    # Sealing

    def seal(
        self, now: Reading, *, empty: bool = False, most_rows: int = MAX_ROWS
    ) -> SealedBatch | None:
        """Date undated rows and move rows into a new batch, in durable transactions.

        While the wall clock is in doubt nothing is sealed. The aggregator would refuse a batch with
        a wrong time, or store wrong times.

        Args:
            now: the clocks.
            empty: seal a batch even without rows, to report that the sensor is alive.
            most_rows: the limit for each kind of row.

        Returns:
            The batch; None if there were no rows, or while the wall clock is in doubt.

        Raises:
            SpoolBusy, SpoolUnwritable, SpoolDamaged: nothing was sealed.
        """
        if now.utc_ms is None:
            return None
        date_rows(self._db, self.path, now)
        with transaction(self._db, self.path):
            return seal_rows(self._db, self.sensor, now.utc_ms, most_rows=most_rows, empty=empty)

    def depth(self) -> int:
        """Count the addresses that wait to be sealed."""
        with reading(self.path):
            return depth(self._db)

    def has_more(self, rows: int = MAX_ROWS) -> bool:
        """Return whether at least so many rows of one kind wait to be sealed."""
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
        """Return the batches that are not confirmed, oldest first, up to a limit."""
        return self._batches(f"FROM batch WHERE {_WAITING} ORDER BY sealed_ms, seq", limit)

    def to_replay(self, limit: int = -1) -> list[SealedBatch]:
        """Return the confirmed batches to deliver again for a replay, oldest first."""
        return self._batches(
            "FROM confirmation JOIN batch USING (spool, seq)"
            " WHERE again = 1 ORDER BY sealed_ms, seq",
            limit,
        )

    def _batches(self, which: str, limit: int) -> list[SealedBatch]:
        with reading(self.path):
            rows = self._db.execute(
                f"SELECT spool, seq, sealed_ms, {_BODY} {which} LIMIT ?",
                (limit,),
            ).fetchall()
        return [SealedBatch(*row) for row in rows]

    def waiting_state(self) -> tuple[int, int | None]:
        """Return how many batches wait for a confirm, and when the oldest of them was sealed."""
        with reading(self.path):
            number, oldest_ms = self._db.execute(
                "SELECT count(*), CAST(min(sealed_ms) AS INTEGER) FROM batch"  # noqa: S608 - own words
                f" WHERE {_WAITING}"
            ).fetchone()
        return int(number), oldest_ms

    def confirm(self, names: Iterable[tuple[str, int]], now: Reading) -> None:
        """Mark batches as confirmed; ``keep_bounds`` deletes them once no replay needs them."""
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
        """Hold a batch that cannot be delivered, so that it does not delay the others.

        A batch that was confirmed before stays confirmed; only its replay is given up.
        """
        with transaction(self._db, self.path):
            self._db.execute(
                "UPDATE batch SET set_aside = ?"
                " WHERE spool = ? AND seq = ? AND confirmed_ms IS NULL",
                (f"{held.value}: {reason}", spool, seq),
            )
            self._give_up_replay(spool, seq)

    def split(self, spool: str, seq: int) -> int:
        """Replace a batch that the broker refuses as too large by two smaller ones.

        The broker has not accepted the batch, so its rows may be sent under new names. One
        transaction deletes the old batch and inserts the new ones, so each row is delivered once.

        Returns:
            The rows of the larger of the two; 0 if the batch cannot be split, because it has a
            single row, or was confirmed before and is replayed.
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
                new_spool, new_seq = next_name(self._db)
                insert(self._db, msgspec.structs.replace(half, spool=UUID(new_spool), seq=new_seq))
        return max(map(_rows, halves))

    def give_up_replay(self, spool: str, seq: int) -> None:
        """Cancel the replay of a batch, which was confirmed before."""
        with transaction(self._db, self.path):
            self._give_up_replay(spool, seq)

    def _give_up_replay(self, spool: str, seq: int) -> None:
        self._db.execute(
            "UPDATE confirmation SET again = 0 WHERE spool = ? AND seq = ?", (spool, seq)
        )

    # The file

    def note_failure(self, reason: str, now: Reading) -> None:
        """Note in the file why the last delivery failed, for `smtpfeeds sensor status`."""
        with transaction(self._db, self.path):
            self._note_delivery(failed_ms=now.utc_ms, failure=reason)

    def _note_delivery(self, **news: object) -> None:
        set_json(self._db, "delivery", {**msgspec.structs.asdict(noted_delivery(self._db)), **news})

    def keep_bounds(self, now: Reading) -> Dropped:
        """Drop what the bounds require, in short slices, and checkpoint the write-ahead log."""
        return self._keeper.keep(now)

    def used_bytes(self) -> int:
        """Return the octets of the file in use, without free pages."""
        return self._keeper.used_bytes()

    def close(self) -> None:
        """Close the file."""
        self._db.close()
        self._lock.close()


def _rows(batch: Batch) -> int:
    return len(batch.observations) + len(batch.hours) + len(batch.overflows)


def _halves(body: bytes) -> tuple[Batch, Batch] | None:
    """Split a batch into two; None if it has fewer than two rows or cannot be decoded."""
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
