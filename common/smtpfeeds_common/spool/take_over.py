"""Taking over what was left behind, each event once.

A file's rows and batches go into a spool in one transaction, together with a note that they did.
Only then is the file deleted, and the note last: what breaks off in between is complete when it is
done again. Batches keep their names, under which the centre counts them once, so they can only go
into a spool of the same sensor. Rows have no name until they are sealed, so they can become another
sensor's.
"""

import contextlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, NamedTuple

from ..addresses import IPv4_BYTES, IPv6_BYTES, pack_address
from ..errors import AddressError, SpoolError, WireError
from ..feeds import FEED_NAMES
from ..wire import MAX_ROWS, MS_MAX, MS_MIN, Batch, Observation, decode
from .batches import observation_of, seal_as
from .file import PAGE_BYTES, Connection, connect, reading, take_lock, transaction
from .layout import add_tables, check_layout, get_json, get_meta, noted_bounds, set_json
from .left_behind import (
    LOCKS,
    ROW_TABLES,
    Reader,
    delete,
    is_quarantined,
    opened,
    sensor_of,
)
from .write import COUNT, COUNT_UNDATED, FOLD_UNDATED, OVERFLOW, OVERFLOW_UNDATED

_FOLDS: Final = {
    "activity": COUNT,
    "overflow": OVERFLOW,
    "undated_observation": FOLD_UNDATED,
    "undated_activity": COUNT_UNDATED,
    "undated_overflow": OVERFLOW_UNDATED,
}
#: Takes a batch over into a spool of a sensor; gives its events, or None where it does not fit.
_TakeBatch = Callable[[Connection, str, tuple[Any, ...]], int | None]


class Taken(NamedTuple):
    """What was taken over."""

    #: Addresses that were never sealed.
    rows: int = 0
    batches: int = 0
    #: Events in both.
    events: int = 0
    #: Batches that stay where they are.
    left: int = 0
    #: Why not all of it could be read; empty where it could.
    trouble: str = ""


def deliver_quarantined(source: Path, target: Path) -> Taken:
    """Have what can be read of a quarantined file delivered from a spool of the same sensor.

    Batches that were never confirmed go out under their own names; rows that were never sealed are
    sealed. The file is deleted then.

    Raises:
        SpoolError: it is another sensor's, nothing can be read, or there is no room for it.
    """
    return _take(source, target, _take_batch, may_be_anothers=False)


def convert(source: Path, target: Path, *, sealed: bool) -> Taken:
    """Make the events of another sensor's spool those of the sensor of ``target``.

    Rows that were never sealed are sealed. Of batches that were sealed it is not known whether
    they have arrived: they stay, to be delivered by their own account, unless ``sealed`` asks that
    their rows are sealed again; these may count twice. The file is deleted when nothing is left.

    Raises:
        SpoolError: a program has it, nothing can be read, or there is no room for it.
    """
    with contextlib.ExitStack() as locks:
        for suffix in () if is_quarantined(source) else LOCKS:
            lock = take_lock(source.with_suffix(suffix), f"spool {source} is in use")
            locks.enter_context(lock)
        return _take(source, target, _seal_batch_anew if sealed else None, may_be_anothers=True)


def _take(
    source: Path, target: Path, take_batch: _TakeBatch | None, *, may_be_anothers: bool
) -> Taken:
    with contextlib.closing(connect(target, synchronous="FULL", busy_ms=10_000)) as db:
        check_layout(db, target)
        with opened(source) as old:
            name = _name_of(old, source)
            with reading(target):
                owner, sensor = str(get_meta(db, "sensor")), sensor_of(old, source)
            if sensor not in {"", owner} and not may_be_anothers:
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
            delete(source, is_locked=may_be_anothers)
        with transaction(db, target):
            db.execute("DELETE FROM meta WHERE key = ?", (name,))
    return taken


def _name_of(db: Connection, path: Path) -> str:
    """The key of the note that a file was taken over; another file of its name has another."""
    epoch = ""
    with contextlib.suppress(SpoolError), reading(path):
        epoch = str(get_meta(db, "uuid", ""))
    return f"taken:{path.name}:{epoch}"


def _check_room(db: Connection, source: Path, target: Path) -> None:
    """What is taken over must not push out at the bound what is there.

    Raises:
        SpoolError: it would.
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
    rows, events, spoiled = _copy_rows(reader, old, source, db, owner)
    for row in reader.waiting(old, source):
        if take_batch is None:
            left += 1
        elif (taken := take_batch(db, owner, row)) is None:
            spoiled += 1
        else:
            batches += 1
            events += taken
    trouble = reader.trouble or (f"{spoiled} rows and batches are spoiled" if spoiled else "")
    if trouble and not rows and not batches:
        raise SpoolError(f"nothing of {source} can be read: {trouble}")
    return Taken(rows, batches, events, left, trouble)


def _copy_rows(
    reader: Reader, old: Connection, source: Path, db: Connection, owner: str
) -> tuple[int, int, int]:
    """Take over what was never sealed; gives its addresses, its events, and rows that are spoiled.

    Rows whose time is known are sealed as they are: folded with those of another day they would
    lose their own.
    """
    rows = events = spoiled = 0
    unsealed: list[Observation] = []
    for table in ROW_TABLES:
        for row in reader.read(old, source, table):
            if not _is_sound(table, row):
                spoiled += 1
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
    return rows, events, spoiled


def _is_sound(table: str, row: tuple[Any, ...]) -> bool:
    """Whether a row of a file that may be damaged is one that a sensor can have written."""
    is_undated = table.startswith("undated")
    feed, key, *numbers = row[1:] if is_undated else row
    if feed not in range(len(FEED_NAMES)) or not all(isinstance(each, int) for each in numbers):
        return False
    least = 0 if is_undated else MS_MIN
    if table.endswith("activity"):
        return isinstance(key, int) and least <= key < MS_MAX and numbers[0] > 0
    first_ms, last_ms, hits, *_ = numbers
    lengths = {IPv6_BYTES} if table.endswith("overflow") else {IPv4_BYTES, IPv6_BYTES}
    return (
        isinstance(key, bytes)
        and len(key) in lengths
        and least <= first_ms <= last_ms < MS_MAX
        # A note has no hit; the events of a prefix have.
        and hits >= (0 if table.endswith("observation") else 1)
    )


def _read(owner: str | None, row: tuple[Any, ...]) -> Batch | None:
    """A batch whose body is what its row says; of one sensor, or of any."""
    spool, seq, _, _, body = row[:5]
    try:
        batch, refused = decode(bytes(body))
    except (WireError, TypeError):
        return None
    is_same = (str(batch.spool), batch.seq) == (spool, seq) and owner in {None, batch.sensor}
    return batch if is_same and not refused else None


def _take_batch(db: Connection, owner: str, row: tuple[Any, ...]) -> int | None:
    """The batch itself, to be delivered under its own name."""
    batch = _read(owner, row)
    if batch is None:
        return None
    events = sum(observation.hits for observation in batch.observations)
    db.execute(
        "INSERT OR IGNORE INTO batch VALUES (?,?,?,?,?,NULL,NULL)",
        (row[0], row[1], batch.sealed_ms, events, row[4]),
    )
    return events


def _seal_batch_anew(db: Connection, owner: str, row: tuple[Any, ...]) -> int | None:
    """The rows of a batch, under a new name."""
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
    """Seal rows, at the sensor's last known time."""
    noted_ms = get_json(db, "state").get("noted_ms") or 0
    seal_as(db, owner, max(noted_ms, *(row.last_ms for row in rows)), rows, [], [])


# Batches that are held in a spool of this sensor


def release_held(path: Path) -> int:
    """Have the batches that are held in a spool delivered again; those too large are split.

    Returns:
        How many.
    """
    return _of_held(path, "UPDATE batch SET set_aside = NULL")[0]


def drop_held(path: Path) -> tuple[int, int]:
    """Delete the batches that are held in a spool.

    Returns:
        How many batches, and events in them.
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
