"""Looking at spools from outside: their state, which there are, what to deliver again."""

from pathlib import Path
from typing import Any, NamedTuple

from ..errors import SpoolError
from ..feeds import FEED_NAMES
from .dating import undated_rows
from .file import PAGE_BYTES, Connection, connect, reading, transaction
from .layout import SUFFIX, Held, add_tables, check_layout, get_json, get_meta, has_added_tables


class Status(NamedTuple):
    """The state of a spool file, read without its sensor's help. Times are UTC, in milliseconds."""

    sensor: str
    version: str
    #: When the sensor last wrote its state with a clock that was believed, or None.
    noted_ms: int | None
    #: When the last client connected, or None.
    client_ms: int | None
    #: Why the sensor's clock is in doubt; empty while it is believed.
    doubt: str
    #: Addresses that wait to be sealed, by feed.
    rows: dict[str, int]
    #: Addresses that wait to be dated, until the clock is believed.
    undated: int
    #: First time of the oldest row that waits, or None.
    oldest_ms: int | None
    batches_waiting: int
    #: When the oldest of these was sealed, or None.
    oldest_waiting_ms: int | None
    #: Confirmed batches that a replay wants delivered again.
    batches_again: int
    #: Confirmed batches that are kept for a replay, those included.
    batches_kept: int
    batches_too_large: int
    batches_refused: int
    #: When a batch was last confirmed, or None.
    delivered_ms: int | None
    #: When an attempt to deliver last failed, or None; and why.
    failed_ms: int | None
    failure: str
    #: Events that a bound took, since the spool was made.
    drops: int
    used_bytes: int
    counters: dict[str, int]


def read_status(path: Path) -> Status:
    """Read a spool's state without disturbing its sensor.

    Raises:
        SpoolError: no such file, or not a spool.
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
    state, delivery = get_json(db, "state"), get_json(db, "delivery")
    counts = dict(db.execute("SELECT feed, count(*) FROM observation GROUP BY feed").fetchall())
    waiting, oldest_waiting_ms, kept = db.execute(
        "SELECT count(*) FILTER (WHERE confirmed_ms IS NULL AND set_aside IS NULL),"
        " min(sealed_ms) FILTER (WHERE confirmed_ms IS NULL AND set_aside IS NULL),"
        " count(*) FILTER (WHERE confirmed_ms IS NOT NULL) FROM batch"
    ).fetchone()
    held = held_batches(db)
    pages = db.execute("PRAGMA page_count").fetchone()[0]
    free = db.execute("PRAGMA freelist_count").fetchone()[0]
    return Status(
        sensor=str(get_meta(db, "sensor")),
        version=state.get("version", ""),
        noted_ms=state.get("noted_ms"),
        client_ms=state.get("client_ms"),
        doubt=state.get("doubt", ""),
        rows={name: counts.get(index, 0) for index, name in enumerate(FEED_NAMES)},
        undated=_added(db, undated_rows),
        oldest_ms=db.execute("SELECT min(first_ms) FROM observation").fetchone()[0],
        batches_waiting=waiting,
        oldest_waiting_ms=oldest_waiting_ms,
        batches_again=_added(db, _wanted_again),
        batches_kept=kept,
        batches_too_large=held.count(Held.TOO_LARGE),
        batches_refused=held.count(Held.REFUSED),
        delivered_ms=delivery.get("delivered_ms"),
        failed_ms=delivery.get("failed_ms"),
        failure=delivery.get("failure", ""),
        drops=int(get_meta(db, "drops", 0)),
        used_bytes=(pages - free) * PAGE_BYTES,
        counters=state.get("counters", {}),
    )


def held_batches(db: Connection) -> list[Held]:
    """Why each batch that is held is held."""
    rows = db.execute("SELECT set_aside FROM batch WHERE set_aside IS NOT NULL").fetchall()
    return [Held.of(reason) for (reason,) in rows]


def _wanted_again(db: Connection) -> int:
    return int(db.execute("SELECT count(*) FROM confirmation WHERE again = 1").fetchone()[0])


def _added(db: Connection, count: Any) -> int:
    """A count of rows that a file of 0.1.0 has no table for."""
    return count(db) if has_added_tables(db) else 0


def replay(path: Path, since_ms: int) -> int:
    """Have confirmed batches sealed since then delivered again, beside the program that delivers.

    That program finds them at its next look: what is wanted again is in the file, and nowhere else.
    They stay confirmed meanwhile, and at the bound they go before any event.

    Returns:
        How many.

    Raises:
        SpoolError: no such file, or not a spool.
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
    """The spool files in a folder, by name.

    Raises:
        SpoolError: no such folder, or it may not be read.
    """
    try:
        return sorted(path for path in folder.iterdir() if path.name.endswith(SUFFIX))
    except (FileNotFoundError, NotADirectoryError) as exc:
        raise SpoolError(
            f"the folder {folder} does not exist; a sensor creates it for its spool (`spool_dir`)"
        ) from exc
    except OSError as exc:
        raise SpoolError(f"cannot read the folder of spools {folder}: {exc.strerror}") from exc
