"""Gives UTC times to rows that were heard while the wall clock was in doubt.

Such rows carry milliseconds since the host booted. Once the wall clock is trusted,

* a row of this boot keeps its distance from now: an event of three hours ago, by the monotonic
  clock, gets the UTC time of three hours ago;
* a row of an earlier boot gets the time when this boot began, the latest time at which it can have
  been heard, because no clock measured how long before that it was.

No event is lost, and that bound is the only time that is not measured. The program that seals
dates the rows, in slices, so that the sensor never waits long for the file.
"""

from pathlib import Path
from typing import Any, Final, NamedTuple

from ..clock import Reading
from .batches import sound_rows
from .file import Connection, reading, transaction
from .fold import HOUR_MS
from .write import COUNT, FOLD, OVERFLOW

#: Rows dated in one write transaction.
_SLICE_ROWS: Final = 2_000


class _Table(NamedTuple):
    """A table of undated rows: the rest of its key, and the statement that folds a dated row."""

    name: str
    key: str
    fold: str


#: The order of the key puts the greet of an address before its data event.
_TABLES: Final = (
    _Table("undated_observation", "ip", FOLD),
    _Table("undated_activity", "minute_ms", COUNT),
    _Table("undated_overflow", "prefix", OVERFLOW),
)


def date_rows(db: Connection, path: Path, now: Reading) -> int:
    """Date all undated rows if the wall clock is trusted.

    Returns:
        The number of addresses dated.

    Raises:
        SpoolBusy, SpoolUnwritable, SpoolDamaged: a part may already be dated.
    """
    if now.utc_ms is None:
        return 0
    dated = dict.fromkeys(_TABLES, 0)
    for table in _TABLES:
        while rows := _date_slice(db, path, table, now.utc_ms - now.elapsed_ms, now.boot):
            dated[table] += rows
    return dated[_TABLES[0]]


def undated_rows(db: Connection) -> int:
    """Count the addresses that wait to be dated."""
    return int(db.execute("SELECT count(*) FROM undated_observation").fetchone()[0])


def _date_slice(db: Connection, path: Path, table: _Table, booted_ms: int, boot: str) -> int:
    with reading(path):
        if db.execute(f"SELECT 1 FROM {table.name} LIMIT 1").fetchone() is None:  # noqa: S608 - own names
            return 0
    with transaction(db, path):
        rows = db.execute(
            f"DELETE FROM {table.name} WHERE (boot, feed, {table.key}) IN"  # noqa: S608 - own names
            f" (SELECT boot, feed, {table.key} FROM {table.name}"
            f" ORDER BY boot, feed, {table.key} LIMIT {_SLICE_ROWS}) RETURNING *"
        ).fetchall()
        sound = sound_rows(db, table.name, rows)
        db.executemany(table.fold, [_dated(table, row, booted_ms, boot) for row in sound])
    return len(rows)


def _dated(table: _Table, row: tuple[Any, ...], booted_ms: int, boot: str) -> tuple[Any, ...]:
    """Convert a row to the arguments of its fold: without its boot, with UTC times."""
    its_boot, feed, key, *rest = row
    if table.fold is COUNT:
        at_ms = _utc(key, booted_ms, boot == its_boot)
        return feed, at_ms - at_ms % HOUR_MS, *rest
    first_ms, last_ms, *counts = rest
    return (
        feed,
        key,
        _utc(first_ms, booted_ms, boot == its_boot),
        _utc(last_ms, booted_ms, boot == its_boot),
        *counts,
    )


def _utc(elapsed_ms: int, booted_ms: int, same_boot: bool) -> int:  # noqa: FBT001 - one of three plain facts
    return booted_ms + elapsed_ms if same_boot else booted_ms
