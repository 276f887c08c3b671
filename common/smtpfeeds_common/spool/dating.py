"""Dating what was heard while the wall clock was in doubt.

Such rows carry milliseconds since the host booted. Once the wall clock is believed,

* those of this boot keep their distance from now: what was heard three hours ago is dated three
  hours ago, by the clock that no step changes;
* those of an earlier boot were heard before this boot began, and no clock tells how long before:
  they are dated at its beginning, the latest time that they can have been heard.

Nothing is lost, and no time is invented but that one bound. The program that seals dates them, in
slices, so that the sensor never waits long for the file.
"""

from pathlib import Path
from typing import Any, Final, NamedTuple

from ..clock import Reading
from .file import Connection, reading, transaction
from .fold import HOUR_MS
from .write import COUNT, FOLD, OVERFLOW

#: Rows dated in one write transaction.
_SLICE_ROWS: Final = 2_000


class _Table(NamedTuple):
    """A table of undated rows: the rest of its key, and how a dated row is folded in."""

    name: str
    key: str
    fold: str


#: Greets come before the data events of their addresses, by the order of the key.
_TABLES: Final = (
    _Table("undated_observation", "ip", FOLD),
    _Table("undated_activity", "minute_ms", COUNT),
    _Table("undated_overflow", "prefix", OVERFLOW),
)


def date_rows(db: Connection, path: Path, now: Reading) -> int:
    """Date all rows that wait for it, where the wall clock is believed.

    Returns:
        How many addresses there were.

    Raises:
        SpoolBusy, SpoolUnwritable, SpoolDamaged: some may be dated, others not.
    """
    if now.utc_ms is None:
        return 0
    dated = dict.fromkeys(_TABLES, 0)
    for table in _TABLES:
        while rows := _date_slice(db, path, table, now.utc_ms - now.elapsed_ms, now.boot):
            dated[table] += rows
    return dated[_TABLES[0]]


def undated_rows(db: Connection) -> int:
    """How many addresses wait to be dated."""
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
        db.executemany(table.fold, [_dated(table, row, booted_ms, boot) for row in rows])
    return len(rows)


def _dated(table: _Table, row: tuple[Any, ...], booted_ms: int, boot: str) -> tuple[Any, ...]:
    """A row as it is folded in: without its boot, with UTC times."""
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
