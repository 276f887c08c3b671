"""Finds spool files that no program delivers: quarantined ones, and those of a renamed sensor.

It reads them without changing them; ``take_over`` delivers or converts them.
"""

import contextlib
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final, NamedTuple

from ..errors import SpoolBusy, SpoolError, SpoolInUse
from .file import Connection, connect, file_access, reading, take_lock
from .layout import get_meta, has_added_tables
from .opening import QUARANTINED, log_files
from .sound import count_of
from .status import find_spools

_LOG: Final = re.compile(r"-(wal|shm)$")
#: Tables of rows that are not sealed, with their keys; the last three exist since 0.2.0.
ROW_TABLES: Final = {
    "observation": ("feed", "ip"),
    "activity": ("feed", "hour_ms"),
    "overflow": ("feed", "prefix"),
    "undated_observation": ("boot", "feed", "ip"),
    "undated_activity": ("boot", "feed", "minute_ms"),
    "undated_overflow": ("boot", "feed", "prefix"),
}
BATCHES: Final = "batch"
#: Suffixes of the lock files of a sensor, and of a program that delivers.
LOCKS: Final = (".lock", ".sealer-lock")
_ORDER: Final = {**ROW_TABLES, BATCHES: ("rowid",)}
#: How SQLite sorts values of different types.
_RANKS: Final = {type(None): 0, int: 1, float: 1, str: 2, bytes: 3}


def is_quarantined(path: Path) -> bool:
    """Return whether a file is a quarantined spool."""
    return QUARANTINED in path.name


class LeftBehind(NamedTuple):
    """A spool file that no program delivers."""

    path: Path
    #: Whether it is quarantined as damaged; otherwise it belongs to another sensor.
    is_quarantined: bool
    #: The sensor whose events it holds; empty if that cannot be read.
    sensor: str
    #: Addresses that are not sealed.
    rows: int
    #: Batches that are not confirmed.
    batches: int
    #: Events in both.
    events: int
    #: Why a part of it cannot be read; empty if all can.
    trouble: str


def find_left_behind(folder: Path, sensor: str) -> list[LeftBehind]:
    """Find the files in a folder that no program delivers for a sensor, sorted by name.

    A spool that another sensor uses is left out.

    Raises:
        SpoolError: there is no such folder, or it cannot be read.
    """
    files = [look_at(path) for path in _quarantined(folder)]
    for path in find_spools(folder):
        state = look_at(path)
        # A sensor quarantines its own unreadable file when it starts.
        if state.sensor not in {"", sensor} and not _is_in_use(path):
            files.append(state)
    return files


def _quarantined(folder: Path) -> list[Path]:
    with file_access(folder):
        names = {_LOG.sub("", path.name) for path in folder.iterdir() if is_quarantined(path)}
    return [folder / name for name in sorted(names)]


def _is_in_use(path: Path) -> bool:
    """Return whether a sensor writes to a spool, or a program delivers from it."""
    for suffix in LOCKS:
        if path.with_suffix(suffix).exists():
            try:
                take_lock(path.with_suffix(suffix), "").close()
            except SpoolInUse:
                return True
    return False


def look_at(path: Path) -> LeftBehind:
    """Count what can be read of a spool file."""
    reader = Reader()
    sensor, rows, batches, events = "", 0, 0, 0
    try:
        with opened(path) as db:
            sensor = sensor_of(db, path)
            for table in ("observation", "undated_observation"):
                for row in reader.read(db, path, table):
                    rows += 1
                    events += count_of(row[-3])
            for row in reader.waiting(db, path):
                batches += 1
                events += count_of(row[3])
    except SpoolError as exc:
        reader.trouble = exc.message
    return LeftBehind(path, QUARANTINED in path.name, sensor, rows, batches, events, reader.trouble)


@contextlib.contextmanager
def opened(path: Path) -> Iterator[Connection]:
    """Open a spool file that may be damaged.

    Raises:
        SpoolError: it does not exist, or nothing of it can be read.
    """
    if not path.exists():
        raise SpoolError(f"there is no file {path}")
    with contextlib.closing(connect(path, synchronous="FULL", busy_ms=10_000)) as db:
        yield db


def sensor_of(db: Connection, path: Path) -> str:
    """Return the sensor that owns a spool; empty if that cannot be read."""
    try:
        with reading(path):
            return str(get_meta(db, "sensor", ""))
    except SpoolBusy:
        raise
    except SpoolError:
        return ""


class Reader:
    """Reads the rows of a file that may be damaged, from both ends up to the damage."""

    def __init__(self) -> None:
        #: Why some rows could not be read; empty if all could.
        self.trouble = ""

    def read(self, db: Connection, path: Path, table: str) -> Iterator[tuple[Any, ...]]:
        """Yield each readable row of a table once."""
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
            if last is not None and _in_order(key) <= _in_order(last):
                return
            yield row

    def waiting(self, db: Connection, path: Path) -> Iterator[tuple[Any, ...]]:
        """Yield each readable batch that is not confirmed."""
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
        self, db: Connection, path: Path, table: str, order: tuple[str, ...], direction: str
    ) -> Iterator[tuple[tuple[Any, ...], tuple[Any, ...]]]:
        columns = ", ".join(f"{column} {direction}" for column in order)
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


def _in_order(key: tuple[Any, ...]) -> list[tuple[int, Any]]:
    """Return a form of the key that sorts as in SQLite; damaged values may have any type."""
    return [(_RANKS[type(each)], each) for each in key]


def delete(path: Path, *, is_locked: bool = False) -> None:
    """Delete a spool file, with the files of SQLite and of the programs beside it.

    Args:
        path: the file.
        is_locked: whether the caller holds its locks.

    Raises:
        SpoolInUse: a program uses it.
        SpoolError: it cannot be deleted.
    """
    if not is_quarantined(path) and not is_locked and _is_in_use(path):
        raise SpoolInUse(f"spool {path} is in use")
    with file_access(path):
        for each in (path, *log_files(path)):
            each.unlink(missing_ok=True)
        if not is_quarantined(path):
            for suffix in (*LOCKS, ".listening"):
                path.with_suffix(suffix).unlink(missing_ok=True)
