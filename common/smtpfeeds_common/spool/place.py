"""A spool's place on the disk: opens the file there, quarantines a damaged one, makes a new one."""

import contextlib
import logging
import re
import time
from pathlib import Path
from typing import Final, NamedTuple

from ..errors import SpoolDamaged, SpoolError
from ..logs import fields
from .file import PAGE_BYTES, Connection, check_access, connect, connect_new, file_access, reading
from .fold import Bounds
from .layout import (
    LAYOUT,
    SCHEMA,
    add_tables,
    begin_epoch,
    check_layout,
    get_json,
    get_meta,
    note_bounds,
    set_meta,
)

logger = logging.getLogger(__name__)

#: In the name of a quarantined file, before the time.
QUARANTINED: Final = ".damaged-"
#: Quarantined files of a spool that are kept; then the oldest goes. A disk that spoils one after
#: the other must not fill up with them.
MOST_QUARANTINED: Final = 20
#: The sensor checkpoints only past this (64 MB): the sealer does it otherwise,
#: so that no fsync falls on the reactor.
_WRITER_CHECKPOINT_PAGES: Final = 16_384
_WITHOUT_LOG: Final = re.compile(r"-(wal|shm)$")


class Opened(NamedTuple):
    """A spool file that is open for its sensor."""

    db: Connection
    #: The newest time the file has a note of.
    noted_ms: int | None
    #: Whether a damaged file was quarantined, and this is a new one.
    quarantined: bool


def open_or_make(path: Path, sensor: str, bounds: Bounds) -> Opened:
    """Open the file for its sensor; quarantine a damaged one, and make a new one.

    Raises:
        SpoolBusy, SpoolUnwritable: not now.
        SpoolError: it is another sensor's, of a later version, or this user has no right to it.
    """
    if path.exists():
        try:
            return _open_existing(path, sensor, bounds)
        except SpoolDamaged as exc:
            logger.error("spool is damaged", extra=fields(reason=exc.message))  # noqa: TRY400 - the message is the reason
    # A log whose file is gone would be played into the new one: SQLite cannot tell.
    was_quarantined = quarantine(path) is not None
    return Opened(_make(path, sensor, bounds), None, was_quarantined)


def _open_existing(path: Path, sensor: str, bounds: Bounds) -> Opened:
    check_access(path)
    db = connect(path, synchronous="NORMAL", busy_ms=2_000)
    try:
        with reading(path):
            verdict = db.execute("PRAGMA quick_check(1)").fetchone()[0]
        if verdict != "ok":
            raise SpoolDamaged(f"spool {path} is damaged: {verdict}")
        check_layout(db, path)
        with reading(path):
            owner = get_meta(db, "sensor")
            if owner != sensor:
                raise SpoolError(
                    f"spool {path} belongs to the sensor {owner!r}, not {sensor!r}: "
                    "deliver it under its own name, or give this sensor another spool_dir"
                )
            _begin(db, bounds)
            return Opened(db, get_json(db, "state").get("noted_ms"), quarantined=False)
    except BaseException:
        db.close()
        raise


def _make(path: Path, sensor: str, bounds: Bounds) -> Connection:
    """Make a whole spool aside, then rename it: another process never sees half of one."""
    fresh = path.with_suffix(".new")
    with file_access(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        for left_over in (fresh, *beside(fresh)):
            left_over.unlink(missing_ok=True)
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
    """Make an open file the sensor's own, for as long as this opening lasts."""
    db.execute(f"PRAGMA wal_autocheckpoint={_WRITER_CHECKPOINT_PAGES}")
    db.execute(f"PRAGMA max_page_count={max(64, bounds.max_bytes // PAGE_BYTES)}")
    db.execute("BEGIN IMMEDIATE")
    add_tables(db)
    begin_epoch(db)
    note_bounds(db, bounds)
    db.execute("COMMIT")
    # From here on the reactor would wait: the lock is tried once, and again a few ms later.
    db.execute("PRAGMA busy_timeout=0")


def quarantine(path: Path) -> Path | None:
    """Move a file out of the way, with what SQLite keeps beside it.

    Returns:
        Where it is now; None where there was nothing.

    Raises:
        SpoolUnwritable, SpoolError: it cannot be moved.
    """
    present = [each for each in (path, *beside(path)) if each.exists()]
    if not present:
        return None
    at = time.strftime(f"{QUARANTINED}%Y%m%dT%H%M%SZ", time.gmtime())
    target = path.with_suffix(at)
    number = 1
    while any(each.exists() for each in (target, *beside(target))):
        number += 1
        target = path.with_suffix(f"{at}-{number}")
    with file_access(path):
        # The file before its log: without the file the log is quarantined at the next opening,
        # without the log the file would be taken for a whole one.
        for each in present:
            each.rename(target.with_name(target.name + each.name.removeprefix(path.name)))
        _keep_the_newest(path)
    logger.error("damaged spool quarantined; a new one is begun", extra=fields(file=str(target)))
    return target


def quarantined(path: Path) -> list[Path]:
    """The quarantined files of a spool, oldest first; of some there is the log alone."""
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
        for each in (old, *beside(old)):
            each.unlink(missing_ok=True)


def beside(path: Path) -> tuple[Path, Path]:
    """The write-ahead log and its index."""
    return Path(f"{path}-wal"), Path(f"{path}-shm")
