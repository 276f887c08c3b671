"""Spool files that nobody delivers: quarantined ones, and those of a sensor that was renamed.

Looks at them without changing them. What can be done with one is in ``take_over``.
"""

import contextlib
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final, NamedTuple

from ..errors import SpoolBusy, SpoolError, SpoolInUse
from .file import Connection, connect, file_access, reading, take_lock
from .layout import get_meta, has_added_tables
from .place import QUARANTINED, beside
from .status import find_spools

_LOG: Final = re.compile(r"-(wal|shm)$")
#: Tables of rows that were never sealed, and what orders them; the last three came with 0.2.0.
ROW_TABLES: Final = {
    "observation": ("feed", "ip"),
    "activity": ("feed", "hour_ms"),
    "overflow": ("feed", "prefix"),
    "undated_observation": ("boot", "feed", "ip"),
    "undated_activity": ("boot", "feed", "minute_ms"),
    "undated_overflow": ("boot", "feed", "prefix"),
}
BATCHES: Final = "batch"
#: Of the files that are locked by a sensor, and by a program that delivers.
LOCKS: Final = (".lock", ".sealer-lock")
_ORDER: Final = {**ROW_TABLES, BATCHES: ("rowid",)}


def is_quarantined(path: Path) -> bool:
    """Whether a file is a spool that was quarantined."""
    return QUARANTINED in path.name


class LeftBehind(NamedTuple):
    """A spool file that nobody delivers."""

    path: Path
    #: Whether it was damaged; else it is another sensor's.
    is_quarantined: bool
    #: The sensor whose events are in it; empty where that cannot be read.
    sensor: str
    #: Addresses that were never sealed.
    rows: int
    #: Batches that were sealed and never confirmed.
    batches: int
    #: Events in both.
    events: int
    #: Why not all of it can be read; empty where it can.
    trouble: str


def find_left_behind(folder: Path, sensor: str) -> list[LeftBehind]:
    """The files in a folder that no program delivers for a sensor, by name.

    A spool of another sensor that is in use is that sensor's own business.

    Raises:
        SpoolError: no such folder, or it may not be read.
    """
    left = [look_at(path) for path in _quarantined(folder)]
    for path in find_spools(folder):
        state = look_at(path)
        # One that cannot be read at all is quarantined by its own sensor when that starts.
        if state.sensor not in {"", sensor} and not _is_in_use(path):
            left.append(state)
    return left


def _quarantined(folder: Path) -> list[Path]:
    with file_access(folder):
        names = {_LOG.sub("", path.name) for path in folder.iterdir() if is_quarantined(path)}
    return [folder / name for name in sorted(names)]


def _is_in_use(path: Path) -> bool:
    """Whether a sensor writes a spool, or a program delivers from it."""
    for suffix in LOCKS:
        if path.with_suffix(suffix).exists():
            try:
                take_lock(path.with_suffix(suffix), "").close()
            except SpoolInUse:
                return True
    return False


def look_at(path: Path) -> LeftBehind:
    """See what of a spool file can be read."""
    reader = Reader()
    sensor, rows, batches, events = "", 0, 0, 0
    try:
        with opened(path) as db:
            sensor = sensor_of(db, path)
            for table in ("observation", "undated_observation"):
                for row in reader.read(db, path, table):
                    rows += 1
                    events += row[-3]
            for row in reader.waiting(db, path):
                batches += 1
                events += row[3]
    except SpoolError as exc:
        reader.trouble = exc.message
    return LeftBehind(path, QUARANTINED in path.name, sensor, rows, batches, events, reader.trouble)


@contextlib.contextmanager
def opened(path: Path) -> Iterator[Connection]:
    """A spool file, whatever its condition.

    Raises:
        SpoolError: it is not there, or nothing of it can be read.
    """
    if not path.exists():
        raise SpoolError(f"there is no file {path}")
    with contextlib.closing(connect(path, synchronous="FULL", busy_ms=10_000)) as db:
        yield db


def sensor_of(db: Connection, path: Path) -> str:
    """Whose spool it is; empty where that cannot be read."""
    try:
        with reading(path):
            return str(get_meta(db, "sensor", ""))
    except SpoolBusy:
        raise
    except SpoolError:
        return ""


class Reader:
    """Reads rows of a file that may be damaged: from both ends, up to the damaged places."""

    def __init__(self) -> None:
        #: Why not all could be read; empty where it could.
        self.trouble = ""

    def read(self, db: Connection, path: Path, table: str) -> Iterator[tuple[Any, ...]]:
        """Each row of a table that can be read, once."""
        if table.startswith("undated") and not self._has_added_tables(db, path):
            return
        order = _ORDER[table]
        last: tuple[Any, ...] | None = None
        for key, row in self._read_one_way(db, path, table, order, "ASC"):
            last = key
            yield row
        if not self.trouble:
            return
        for key, row in self._read_one_way(db, path, table, order, "DESC"):
            if last is not None and key <= last:
                return
            yield row

    def waiting(self, db: Connection, path: Path) -> Iterator[tuple[Any, ...]]:
        """Each batch that was never confirmed, and can be read."""
        for row in self.read(db, path, BATCHES):
            if row[5] is None:
                yield row

    def _has_added_tables(self, db: Connection, path: Path) -> bool:
        try:
            with reading(path):
                return has_added_tables(db)
        except SpoolBusy:
            raise
        except SpoolError as exc:
            self.trouble = exc.message
            return False

    def _read_one_way(
        self, db: Connection, path: Path, table: str, order: tuple[str, ...], way: str
    ) -> Iterator[tuple[tuple[Any, ...], tuple[Any, ...]]]:
        columns = ", ".join(f"{column} {way}" for column in order)
        try:
            with reading(path):
                rows = db.execute(
                    f"SELECT {', '.join(order)}, * FROM {table} ORDER BY {columns}"  # noqa: S608 - own names
                )
            while True:
                with reading(path):
                    row = rows.fetchone()
                if row is None:
                    return
                yield row[: len(order)], row[len(order) :]
        except SpoolBusy:
            raise
        except SpoolError as exc:
            self.trouble = exc.message


def delete(path: Path, *, is_locked: bool = False) -> None:
    """Delete a spool file, with what SQLite and the programs keep beside it.

    Args:
        path: the file.
        is_locked: the caller has its locks.

    Raises:
        SpoolInUse: a program has it.
        SpoolError: it cannot be deleted.
    """
    if not is_quarantined(path) and not is_locked and _is_in_use(path):
        raise SpoolInUse(f"spool {path} is in use")
    with file_access(path):
        for each in (path, *beside(path)):
            each.unlink(missing_ok=True)
        if not is_quarantined(path):
            for suffix in (*LOCKS, ".listening"):
                path.with_suffix(suffix).unlink(missing_ok=True)
