"""Takes over spool files that no program delivers, each event once.

One transaction copies the rows and batches of a file into a spool, with a note that it did. Then
the file is deleted, and the note last. If this is interrupted, a second run completes it. Batches
keep their names, by which the aggregator counts each once, so they can only go into a spool of the
same sensor. Rows have no name until they are sealed, so they can go to another sensor.
"""

import contextlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, NamedTuple

from ..addresses import pack_address
from ..errors import AddressError, SpoolError, WireError
from ..wire import MAX_ROWS, Batch, Observation, decode
from .batches import observation_of, seal_as
from .file import PAGE_BYTES, Connection, connect, reading, take_lock, transaction
from .layout import (
    add_tables,
    check_layout,
    get_json,
    get_meta,
    noted_bounds,
    noted_state,
    set_json,
)
from .left_behind import (
    LOCKS,
    ROW_TABLES,
    Reader,
    delete,
    is_quarantined,
    opened,
    sensor_of,
)
from .sound import is_sound
from .write import COUNT, COUNT_UNDATED, FOLD_UNDATED, OVERFLOW, OVERFLOW_UNDATED

_FOLDS: Final = {
    "activity": COUNT,
    "overflow": OVERFLOW,
    "undated_observation": FOLD_UNDATED,
    "undated_activity": COUNT_UNDATED,
    "undated_overflow": OVERFLOW_UNDATED,
}
#: Takes a batch over into a sensor's spool; returns its events, or None if the batch is damaged.
_TakeBatch = Callable[[Connection, str, tuple[Any, ...]], int | None]


class Taken(NamedTuple):
    """Counts of what was taken over."""

    #: Addresses that were not sealed.
    rows: int = 0
    batches: int = 0
    #: Events in both.
    events: int = 0
    #: Batches that stay in the source file.
    left: int = 0
    #: Why a part could not be read; empty if all could.
    trouble: str = ""


def deliver_quarantined(source: Path, target: Path) -> Taken:
    """Move what can be read of a quarantined file into a spool of the same sensor.

    Batches that are not confirmed keep their names; rows that are not sealed are sealed. Then the
    file is deleted.

    Raises:
        SpoolError: it belongs to another sensor, nothing can be read, or there is no space for it.
    """
    return _take(source, target, _take_batch, any_sensor=False)


def convert(source: Path, target: Path, *, sealed: bool) -> Taken:
    """Move the events of another sensor's spool to the sensor of ``target``.

    Rows that are not sealed are sealed. Sealed batches may have arrived without a confirm, so they
    stay in the file, for delivery with their own account. ``sealed`` seals their rows again
    instead; these may count twice. The file is deleted when nothing is left in it.

    Raises:
        SpoolError: a program uses it, nothing can be read, or there is no space for it.
    """
    with contextlib.ExitStack() as locks:
        for suffix in () if is_quarantined(source) else LOCKS:
            lock = take_lock(source.with_suffix(suffix), f"spool {source} is in use")
            locks.enter_context(lock)
        return _take(source, target, _reseal_batch if sealed else None, any_sensor=True)


def _take(source: Path, target: Path, take_batch: _TakeBatch | None, *, any_sensor: bool) -> Taken:
    with contextlib.closing(connect(target, synchronous="FULL", busy_ms=10_000)) as db:
        check_layout(db, target)
        with opened(source) as old:
            name = _name_of(old, source)
            with reading(target):
                owner, sensor = str(get_meta(db, "sensor")), sensor_of(old, source)
            if sensor not in {"", owner} and not any_sensor:
                raise SpoolError(
                    f"{source} belongs to the sensor {sensor!r}, {target} to {owner!r}: "
                    "convert it, or deliver it under its own name"
                )
            with transaction(db, target):
                add_tables(db)
                taken = Taken(**get_json(db, name)) if get_meta(db, name) else None
                if taken is None:
                    _check_room(db, source, target)
                    taken = _copy(old, source, db, owner, take_batch)
                    set_json(db, name, taken._asdict())
            if taken.left:
                with transaction(old, source):
                    for table in ROW_TABLES:
                        old.execute(f"DELETE FROM {table}")  # noqa: S608 - own names
        if not taken.left:
            delete(source, is_locked=any_sensor)
        with transaction(db, target):
            db.execute("DELETE FROM meta WHERE key = ?", (name,))
    return taken


def _name_of(db: Connection, path: Path) -> str:
    """Return the key of the note for a file; another file of the same name has another key."""
    epoch = ""
    with contextlib.suppress(SpoolError), reading(path):
        epoch = str(get_meta(db, "uuid", ""))
    return f"taken:{path.name}:{epoch}"


def _check_room(db: Connection, source: Path, target: Path) -> None:
    """Check that the file fits into the target, so that the bound drops no events for it.

    Raises:
        SpoolError: it does not fit.
    """
    used = db.execute("PRAGMA page_count").fetchone()[0] * PAGE_BYTES
    bound = noted_bounds(db).max_bytes
    if used + source.stat().st_size > bound * 9 // 10:
        raise SpoolError(
            f"there is no space for {source.name} in {target}, whose bound is {bound >> 20} MB: "
            "wait until more is delivered, or raise spool_max_mb"
        )


def _copy(
    old: Connection, source: Path, db: Connection, owner: str, take_batch: _TakeBatch | None
) -> Taken:
    reader = Reader()
    batches = left = 0
    rows, events, damaged = _copy_rows(reader, old, source, db, owner)
    for row in reader.waiting(old, source):
        if take_batch is None:
            left += 1
        elif (taken := take_batch(db, owner, row)) is None:
            damaged += 1
        else:
            batches += 1
            events += taken
    trouble = reader.trouble or (f"{damaged} rows and batches are damaged" if damaged else "")
    if trouble and not rows and not batches:
        raise SpoolError(f"nothing of {source} can be read: {trouble}")
    return Taken(rows, batches, events, left, trouble)


def _copy_rows(
    reader: Reader, old: Connection, source: Path, db: Connection, owner: str
) -> tuple[int, int, int]:
    """Take over rows that are not sealed; return addresses, events, and the number of damaged rows.

    Dated rows are sealed without folding, which would mix them with rows of another day.
    """
    rows = events = damaged = 0
    unsealed: list[Observation] = []
    for table in ROW_TABLES:
        for row in reader.read(old, source, table):
            if not is_sound(table, row):
                damaged += 1
                continue
            if table.endswith("observation"):
                rows += 1
                events += row[-3]
            if table in _FOLDS:
                db.execute(_FOLDS[table], row)
                continue
            unsealed.append(observation_of(row))
            if len(unsealed) == MAX_ROWS:
                _seal(db, owner, unsealed)
                unsealed = []
    if unsealed:
        _seal(db, owner, unsealed)
    return rows, events, damaged


def _read(owner: str | None, row: tuple[Any, ...]) -> Batch | None:
    """Decode a batch; None if its body and its row differ, or if it is not of ``owner``."""
    spool, seq, _, _, body = row[:5]
    try:
        batch, refused = decode(body if isinstance(body, bytes) else b"")
    except WireError:
        return None
    is_same = (str(batch.spool), batch.seq) == (spool, seq) and owner in {None, batch.sensor}
    return batch if is_same and not refused else None


def _take_batch(db: Connection, owner: str, row: tuple[Any, ...]) -> int | None:
    """Copy a batch under its own name; return its events."""
    batch = _read(owner, row)
    if batch is None:
        return None
    events = sum(observation.hits for observation in batch.observations)
    db.execute(
        "INSERT OR IGNORE INTO batch VALUES (?,?,?,?,?,NULL,NULL)",
        (row[0], row[1], batch.sealed_ms, events, row[4]),
    )
    return events


def _reseal_batch(db: Connection, owner: str, row: tuple[Any, ...]) -> int | None:
    """Seal the rows of a batch under a new name; return its events."""
    batch = _read(None, row)
    if batch is None:
        return None
    try:
        for each in batch.observations:
            pack_address(each.ip)
        for prefix in batch.overflows:
            pack_address(prefix.prefix.removesuffix("/64"))
    except AddressError:
        return None
    seal_as(db, owner, batch.sealed_ms, batch.observations, batch.hours, batch.overflows)
    return sum(each.hits for each in batch.observations)


def _seal(db: Connection, owner: str, rows: list[Observation]) -> None:
    """Seal rows with the latest time that the sensor noted or the rows have."""
    noted_ms = noted_state(db).noted_ms or 0
    seal_as(db, owner, max(noted_ms, *(row.last_ms for row in rows)), rows, [], [])


# Held batches


def release_held(path: Path) -> int:
    """Release the held batches of a spool for delivery; the deliverer splits those too large.

    Returns:
        The number of batches.
    """
    return _of_held(path, "UPDATE batch SET set_aside = NULL")[0]


def drop_held(path: Path) -> tuple[int, int]:
    """Delete the held batches of a spool.

    Returns:
        The number of batches, and of events in them.
    """
    return _of_held(path, "DELETE FROM batch")


def _of_held(path: Path, statement: str) -> tuple[int, int]:
    held = "set_aside IS NOT NULL AND confirmed_ms IS NULL"
    with contextlib.closing(connect(path, synchronous="FULL", busy_ms=10_000)) as db:
        check_layout(db, path)
        with transaction(db, path):
            counts = db.execute(
                f"SELECT count(*), coalesce(sum(events), 0) FROM batch WHERE {held}"  # noqa: S608 - own words
            ).fetchone()
            db.execute(f"{statement} WHERE {held}")
    return int(counts[0]), int(counts[1])
