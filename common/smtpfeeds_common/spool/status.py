"""Reads spools from outside: finds them, shows their state, and asks for a replay."""

from pathlib import Path
from typing import Any, NamedTuple

from ..errors import SpoolError
from ..feeds import FEED_NAMES
from .dating import undated_rows
from .file import PAGE_BYTES, Connection, connect, reading, transaction
from .layout import (
    SUFFIX,
    Held,
    add_tables,
    check_layout,
    get_meta,
    has_added_tables,
    noted_delivery,
    noted_drops,
    noted_state,
)


class Status(NamedTuple):
    """The state of a spool file, read without its sensor. Times are UTC in milliseconds."""

    sensor: str
    version: str
    #: When the sensor last wrote its state while its clock was trusted, or None.
    noted_ms: int | None
    #: When the last client connected, or None.
    client_ms: int | None
    #: Why the sensor's clock is in doubt; empty while it is trusted.
    doubt: str
    #: Addresses that wait to be sealed, by feed.
    rows: dict[str, int]
    #: Addresses that wait until the clock is trusted, to be dated.
    undated: int
    #: The earliest first_ms of the rows that wait to be sealed, or None.
    oldest_ms: int | None
    batches_waiting: int
    #: When the oldest waiting batch was sealed, or None.
    oldest_waiting_ms: int | None
    #: Confirmed batches to deliver again for a replay.
    batches_to_replay: int
    #: All confirmed batches that are kept for a replay.
    batches_kept: int
    batches_too_large: int
    batches_refused: int
    #: When a batch was last confirmed, or None.
    delivered_ms: int | None
    #: When a delivery last failed, or None; and why.
    failed_ms: int | None
    failure: str
    #: Events dropped at a bound since the spool was created.
    drops: int
    used_bytes: int
    counters: dict[str, int]


def read_status(path: Path) -> Status:
    """Read a spool's state without disturbing its sensor.

    Raises:
        SpoolError: there is no such file, or it is not a spool.
    """
    db = _opened(path, synchronous="NORMAL")
    try:
        with reading(path):
            return _status(db)
    finally:
        db.close()


def _opened(path: Path, *, synchronous: str) -> Connection:
    if not path.exists():
        raise SpoolError(f"there is no spool {path}")
    db = connect(path, synchronous=synchronous, busy_ms=10_000)
    try:
        check_layout(db, path)
    except BaseException:
        db.close()
        raise
    return db


def _status(db: Connection) -> Status:
    state, delivery = noted_state(db), noted_delivery(db)
    counts = dict(db.execute("SELECT feed, count(*) FROM observation GROUP BY feed").fetchall())
    waiting, oldest_waiting_ms, kept = db.execute(
        "SELECT count(*) FILTER (WHERE confirmed_ms IS NULL AND set_aside IS NULL),"
        " CAST(min(sealed_ms) FILTER (WHERE confirmed_ms IS NULL AND set_aside IS NULL)"
        " AS INTEGER),"
        " count(*) FILTER (WHERE confirmed_ms IS NOT NULL) FROM batch"
    ).fetchone()
    held = held_batches(db)
    pages = db.execute("PRAGMA page_count").fetchone()[0]
    free = db.execute("PRAGMA freelist_count").fetchone()[0]
    return Status(
        sensor=str(get_meta(db, "sensor")),
        version=state.version,
        noted_ms=state.noted_ms,
        client_ms=state.client_ms,
        doubt=state.doubt,
        rows={name: counts.get(index, 0) for index, name in enumerate(FEED_NAMES)},
        undated=_added(db, undated_rows),
        oldest_ms=db.execute("SELECT CAST(min(first_ms) AS INTEGER) FROM observation").fetchone()[
            0
        ],
        batches_waiting=waiting,
        oldest_waiting_ms=oldest_waiting_ms,
        batches_to_replay=_added(db, _to_replay),
        batches_kept=kept,
        batches_too_large=held.count(Held.TOO_LARGE),
        batches_refused=held.count(Held.REFUSED),
        delivered_ms=delivery.delivered_ms,
        failed_ms=delivery.failed_ms,
        failure=delivery.failure,
        drops=noted_drops(db),
        used_bytes=(pages - free) * PAGE_BYTES,
        counters=state.counters,
    )


def held_batches(db: Connection) -> list[Held]:
    """Return the reason of each held batch."""
    rows = db.execute(
        "SELECT CAST(set_aside AS TEXT) FROM batch WHERE set_aside IS NOT NULL"
    ).fetchall()
    return [Held.of(reason) for (reason,) in rows]


def _to_replay(db: Connection) -> int:
    return int(db.execute("SELECT count(*) FROM confirmation WHERE again = 1").fetchone()[0])


def _added(db: Connection, count: Any) -> int:
    """Count rows of an added table; 0 for a file of 0.1.0, which lacks it."""
    return count(db) if has_added_tables(db) else 0


def replay(path: Path, since_ms: int) -> int:
    """Mark the confirmed batches sealed since ``since_ms`` to be delivered again.

    The mark is only in the file; the program that delivers from it finds the batches when it looks
    next. They stay confirmed, and at the bound they are dropped before any event.

    Returns:
        The number of batches.

    Raises:
        SpoolError: there is no such file, or it is not a spool.
    """
    db = _opened(path, synchronous="FULL")
    try:
        with transaction(db, path):
            add_tables(db)
            return db.execute(
                "UPDATE confirmation SET again = 1 WHERE (spool, seq) IN"
                " (SELECT spool, seq FROM batch WHERE confirmed_ms IS NOT NULL AND sealed_ms >= ?)",
                (since_ms,),
            ).rowcount
    finally:
        db.close()


def find_spools(folder: Path) -> list[Path]:
    """Find the spool files in a folder, sorted by name.

    Raises:
        SpoolError: there is no such folder, or it cannot be read.
    """
    try:
        return sorted(path for path in folder.iterdir() if path.name.endswith(SUFFIX))
    except (FileNotFoundError, NotADirectoryError) as exc:
        raise SpoolError(
            f"the folder {folder} does not exist; a sensor creates it for its spool (`spool_dir`)"
        ) from exc
    except OSError as exc:
        raise SpoolError(f"cannot read the folder of spools {folder}: {exc.strerror}") from exc
