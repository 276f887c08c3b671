"""Looking at spools from outside: their state, which there are, what to deliver again."""

import json
from pathlib import Path
from typing import NamedTuple

from ..errors import SpoolError
from ..feeds import FEED_NAMES
from .file import PAGE_BYTES, SUFFIX, Connection, check_layout, connect, reading, transaction


class Status(NamedTuple):
    """What a spool file says of itself, without its sensor's help."""

    sensor: str
    version: str
    #: When the sensor last wrote its state, or None.
    noted_ms: int | None
    rows: dict[str, int]
    #: First time of the oldest row that waits, or None.
    oldest_ms: int | None
    batches_waiting: int
    #: When the oldest of these was sealed, or None.
    oldest_waiting_ms: int | None
    batches_set_aside: int
    batches_kept: int
    drops: int
    used_bytes: int
    counters: dict[str, int]


def read_status(path: Path) -> Status:
    """Read a spool's state without disturbing its sensor.

    Raises:
        SpoolError: no such file, or not a spool.
    """
    if not path.exists():
        raise SpoolError(f"there is no spool {path}")
    db = connect(path, synchronous="NORMAL", busy_ms=2_000)
    try:
        check_layout(db, path)
        with reading(path):
            return _status(db)
    finally:
        db.close()


def _status(db: Connection) -> Status:
    meta = dict(db.execute("SELECT key, value FROM meta").fetchall())
    state = json.loads(meta.get("state", "{}"))
    counts = dict(db.execute("SELECT feed, count(*) FROM observation GROUP BY feed").fetchall())
    waiting, oldest_waiting_ms, aside, kept = db.execute(
        "SELECT count(*) FILTER (WHERE confirmed_ms IS NULL AND set_aside IS NULL),"
        " min(sealed_ms) FILTER (WHERE confirmed_ms IS NULL AND set_aside IS NULL),"
        " count(*) FILTER (WHERE set_aside IS NOT NULL),"
        " count(*) FILTER (WHERE confirmed_ms IS NOT NULL) FROM batch"
    ).fetchone()
    pages = db.execute("PRAGMA page_count").fetchone()[0]
    free = db.execute("PRAGMA freelist_count").fetchone()[0]
    return Status(
        sensor=str(meta["sensor"]),
        version=state.get("version", ""),
        noted_ms=state.get("noted_ms"),
        rows={name: counts.get(index, 0) for index, name in enumerate(FEED_NAMES)},
        oldest_ms=db.execute("SELECT min(first_ms) FROM observation").fetchone()[0],
        batches_waiting=waiting,
        oldest_waiting_ms=oldest_waiting_ms,
        batches_set_aside=aside,
        batches_kept=kept,
        drops=int(meta.get("drops", 0)),
        used_bytes=(pages - free) * PAGE_BYTES,
        counters=state.get("counters", {}),
    )


def replay(path: Path, since_ms: int) -> int:
    """Make confirmed batches sealed since then wait again, beside whoever delivers from the spool.

    Whoever that is sends them at its next look: what waits is in the file, and nowhere else.

    Returns:
        How many.

    Raises:
        SpoolError: no such file, or not a spool.
    """
    if not path.exists():
        raise SpoolError(f"there is no spool {path}")
    db = connect(path, synchronous="FULL", busy_ms=10_000)
    try:
        check_layout(db, path)
        return replay_in(db, path, since_ms)
    finally:
        db.close()


def replay_in(db: Connection, path: Path, since_ms: int) -> int:
    """The same on an open file."""
    with transaction(db, path):
        return db.execute(
            "UPDATE batch SET confirmed_ms = NULL"
            " WHERE confirmed_ms IS NOT NULL AND sealed_ms >= ?",
            (since_ms,),
        ).rowcount


def find_spools(folder: Path) -> list[Path]:
    """The spool files in a folder, by name.

    Raises:
        SpoolError: no such folder, or it may not be read.
    """
    try:
        return sorted(path for path in folder.iterdir() if path.name.endswith(SUFFIX))
    except (FileNotFoundError, NotADirectoryError) as exc:
        raise SpoolError(
            f"there is no folder of spools {folder}; the sensor's `spool_dir` makes it"
        ) from exc
    except OSError as exc:
        raise SpoolError(f"cannot look into the folder of spools {folder}: {exc.strerror}") from exc
