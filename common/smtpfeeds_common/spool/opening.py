"""Opens the spool file at a path, quarantines a damaged one and creates a new one."""

import contextlib
import logging
import re
import time
from pathlib import Path
from typing import Final, NamedTuple

from ..errors import SpoolDamaged, SpoolError
from ..logs import fields
from .file import (
    PAGE_BYTES,
    Connection,
    check_access,
    check_pages,
    connect,
    connect_new,
    file_access,
    reading,
)
from .fold import Bounds
from .layout import (
    LAYOUT,
    SCHEMA,
    add_tables,
    begin_epoch,
    check_layout,
    get_meta,
    note_bounds,
    noted_state,
    set_meta,
)

logger = logging.getLogger(__name__)

#: In the name of a quarantined file, before the time.
QUARANTINED: Final = ".damaged-"
#: Quarantined files that a spool keeps; past this the oldest is deleted. A failing disk damages one
#: file after another, and must not fill up with them.
MOST_QUARANTINED: Final = 20
#: The sensor checkpoints the log only past this size (64 MB). Before, the sealer does it, so that
#: the reactor does not wait for fsync.
_WRITER_CHECKPOINT_PAGES: Final = 16_384
_WITHOUT_LOG: Final = re.compile(r"-(wal|shm)$")


class Opened(NamedTuple):
    """A spool file that is open for its sensor."""

    db: Connection
    #: The newest time that the file has noted.
    noted_ms: int | None
    #: Whether a damaged file was quarantined and this one is new.
    quarantined: bool


def open_or_create(path: Path, sensor: str, bounds: Bounds) -> Opened:
    """Open the file for its sensor; quarantine a damaged one and create a new one.

    Raises:
        SpoolBusy, SpoolUnwritable: it cannot be opened now; a later attempt can succeed.
        SpoolError: it belongs to another sensor or a later version, or this user lacks the right.
    """
    if path.exists():
        try:
            return _open_existing(path, sensor, bounds)
        except SpoolDamaged as exc:
            logger.error("spool is damaged", extra=fields(reason=exc.message))  # noqa: TRY400 - the message is the reason
    # SQLite would apply the log of a missing file to the new file of the same name.
    was_quarantined = quarantine(path) is not None
    return Opened(_create(path, sensor, bounds), None, was_quarantined)


def _open_existing(path: Path, sensor: str, bounds: Bounds) -> Opened:
    check_access(path)
    db = connect(path, synchronous="NORMAL", busy_ms=2_000)
    try:
        check_pages(db, path)
        check_layout(db, path)
        with reading(path):
            owner = get_meta(db, "sensor")
            if owner != sensor:
                raise SpoolError(
                    f"spool {path} belongs to the sensor {owner!r}, not {sensor!r}: "
                    "deliver it under its own name, or give this sensor another spool_dir"
                )
            _begin(db, bounds)
            return Opened(db, noted_state(db).noted_ms, quarantined=False)
    except BaseException:
        db.close()
        raise


def _create(path: Path, sensor: str, bounds: Bounds) -> Connection:
    """Create a spool under another name, then rename it, so that no process sees a part of one."""
    fresh = path.with_suffix(".new")
    with file_access(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        for stale in (fresh, *log_files(fresh)):
            stale.unlink(missing_ok=True)
        fresh.touch(mode=0o600)
    with reading(path), contextlib.closing(connect_new(fresh)) as db:
        db.executescript(
            f"PRAGMA page_size={PAGE_BYTES}; PRAGMA auto_vacuum=INCREMENTAL;"
            f"PRAGMA user_version={LAYOUT}; BEGIN; {SCHEMA} COMMIT; PRAGMA journal_mode=WAL;"
        )
        set_meta(db, "sensor", sensor)
        begin_epoch(db)
    with file_access(path):
        fresh.rename(path)
    db = connect(path, synchronous="NORMAL", busy_ms=2_000)
    try:
        with reading(path):
            _begin(db, bounds)
    except BaseException:
        db.close()
        raise
    return db


def _begin(db: Connection, bounds: Bounds) -> None:
    """Set up an open file for the sensor: limits, added tables, a new epoch, its bounds."""
    db.execute(f"PRAGMA wal_autocheckpoint={_WRITER_CHECKPOINT_PAGES}")
    db.execute(f"PRAGMA max_page_count={max(64, bounds.max_bytes // PAGE_BYTES)}")
    db.execute("BEGIN IMMEDIATE")
    add_tables(db)
    begin_epoch(db)
    note_bounds(db, bounds)
    db.execute("COMMIT")
    # The reactor must not wait for the lock: a commit tries once, and the sensor tries again later.
    db.execute("PRAGMA busy_timeout=0")


def quarantine(path: Path) -> Path | None:
    """Rename a damaged file and the files that SQLite keeps beside it.

    Returns:
        The new path; None if there was no file.

    Raises:
        SpoolUnwritable, SpoolError: it cannot be moved.
    """
    present = [each for each in (path, *log_files(path)) if each.exists()]
    if not present:
        return None
    at = time.strftime(f"{QUARANTINED}%Y%m%dT%H%M%SZ", time.gmtime())
    target = path.with_suffix(at)
    number = 1
    while any(each.exists() for each in (target, *log_files(target))):
        number += 1
        target = path.with_suffix(f"{at}-{number}")
    with file_access(path):
        # Rename the file before its log. If only the log is left, the next opening quarantines it;
        # if only the file were left, it would pass for a complete spool.
        for each in present:
            each.rename(target.with_name(target.name + each.name.removeprefix(path.name)))
        _keep_the_newest(path)
    logger.error("damaged spool quarantined; a new one is created", extra=fields(file=str(target)))
    return target


def quarantined(path: Path) -> list[Path]:
    """Return the quarantined files of a spool, oldest first; for some, only the log exists."""
    name = path.stem + QUARANTINED
    with file_access(path):
        files = [each for each in path.parent.iterdir() if each.name.startswith(name)]
        ages = {each.with_name(_WITHOUT_LOG.sub("", each.name)): 0.0 for each in files}
        for each in files:
            base = each.with_name(_WITHOUT_LOG.sub("", each.name))
            ages[base] = max(ages[base], each.stat().st_mtime)
    return sorted(ages, key=lambda base: (ages[base], base.name))


def _keep_the_newest(path: Path) -> None:
    for old in quarantined(path)[:-MOST_QUARANTINED]:
        logger.error("quarantined spool deleted: there are too many", extra=fields(file=str(old)))
        for each in (old, *log_files(old)):
            each.unlink(missing_ok=True)


def log_files(path: Path) -> tuple[Path, Path]:
    """Return the paths of the write-ahead log and its index."""
    return Path(f"{path}-wal"), Path(f"{path}-shm")
