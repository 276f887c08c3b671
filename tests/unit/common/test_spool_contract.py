"""The contract of a spool for its recorder, checked with the real one and with the fake."""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

import pytest

from smtpfeeds_common.errors import SpoolBusy, SpoolDamaged, SpoolUnwritable
from smtpfeeds_common.spool import Bounds, Event, Spool
from smtpfeeds_common.spool.testing import FakeSpool
from spool_support import at

NOW = 1_795_000_000_000
BOUNDS = Bounds(memory_rows=3_000)


class Troubles(Protocol):
    """A spool, and the failures that a test turns on."""

    spool: Spool | FakeSpool

    def lock(self) -> None: ...
    def unlock(self) -> None: ...
    def fill(self) -> None: ...
    def free(self) -> None: ...
    def damage(self) -> None: ...
    def take_place(self) -> None: ...
    def give_place(self) -> None: ...


class OfTheFake:
    def __init__(self, folder: Path) -> None:
        self.spool = FakeSpool(folder / "s.spool", sensor="s", bounds=BOUNDS)

    def lock(self) -> None:
        self.spool.is_locked = True

    def unlock(self) -> None:
        self.spool.is_locked = False

    def fill(self) -> None:
        self.spool.is_full = True

    def free(self) -> None:
        self.spool.is_full = False

    def damage(self) -> None:
        self.spool.is_damaged = True

    def take_place(self) -> None:
        self.spool.has_no_place = True

    def give_place(self) -> None:
        self.spool.has_no_place = False


class OfTheReal:
    def __init__(self, folder: Path) -> None:
        self.folder, self.away = folder / "spools", folder / "away"
        self.spool = Spool(self.folder / "s.spool", sensor="s", bounds=BOUNDS)

    def lock(self) -> None:
        self.other = sqlite3.connect(self.spool.path, isolation_level=None)
        self.other.execute("BEGIN IMMEDIATE")

    def unlock(self) -> None:
        self.other.execute("COMMIT")
        self.other.close()

    def _pages(self, number: int) -> None:
        assert self.spool._db is not None
        self.spool._db.execute(f"PRAGMA max_page_count={number}")

    def fill(self) -> None:
        self._pages(1)  # no fewer than there are

    def free(self) -> None:
        self._pages(100_000)

    def damage(self) -> None:
        for path in (self.spool.path, Path(f"{self.spool.path}-wal")):
            path.write_bytes(b"\xaa" * path.stat().st_size)
        assert self.spool._db is not None
        self.spool._db.execute("PRAGMA shrink_memory")  # else it reads its cache

    def take_place(self) -> None:
        self.folder.rename(self.away)
        self.folder.write_text("a file where the folder was")

    def give_place(self) -> None:
        self.folder.unlink()
        self.away.rename(self.folder)


@pytest.fixture(params=[OfTheFake, OfTheReal])
def troubles(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Troubles]:
    troubles: Troubles = request.param(tmp_path)
    yield troubles
    troubles.spool.close()
    shutil.rmtree(tmp_path)


def fold(spool: Spool | FakeSpool, first: int, number: int = 1) -> None:
    for index in range(first, first + number):
        assert spool.fold(Event(0, index.to_bytes(4), NOW))


def test_commit_writes_what_was_folded(troubles: Troubles) -> None:
    spool = troubles.spool
    spool.commit()
    fold(spool, 0, 5)
    assert spool.unwritten == 5
    spool.commit()
    assert (spool.unwritten, spool.drops, spool.quarantined, spool.unopened) == (0, 0, 0, "")


def test_locked_file_is_busy_and_keeps_what_is_folded(troubles: Troubles) -> None:
    spool = troubles.spool
    troubles.lock()
    fold(spool, 0)
    for call in (spool.commit, lambda: spool.note_state(at(NOW), version="1", counters={})):
        with pytest.raises(SpoolBusy):
            call()
    assert spool.unwritten == 1
    troubles.unlock()
    spool.commit()
    assert spool.unwritten == 0


def test_full_file_is_unwritable_and_keeps_what_is_folded(troubles: Troubles) -> None:
    spool = troubles.spool
    troubles.fill()
    fold(spool, 0, 2_000)
    with pytest.raises(SpoolUnwritable):
        spool.commit()
    assert spool.unwritten == 2_000
    troubles.free()
    spool.commit()
    assert spool.unwritten == 0


def test_damaged_file_is_reported_until_it_is_replaced(troubles: Troubles) -> None:
    spool = troubles.spool
    fold(spool, 0)
    spool.commit()
    troubles.damage()
    fold(spool, 1)
    for _ in range(2):
        with pytest.raises(SpoolDamaged):
            spool.commit()
    spool.replace()
    assert (spool.quarantined, spool.unwritten) == (1, 1)
    spool.commit()
    assert spool.unwritten == 0


def test_failed_replacement_is_repeated_by_the_next_commit(troubles: Troubles) -> None:
    """`replace` is called only once; folded events are written when there is a file."""
    spool = troubles.spool
    fold(spool, 0)
    spool.commit()
    troubles.damage()
    fold(spool, 1, 10)
    troubles.take_place()
    with pytest.raises(SpoolUnwritable):
        spool.replace()
    for _ in range(3):
        fold(spool, 20)
        for call in (spool.commit, lambda: spool.note_state(at(NOW), version="1", counters={})):
            with pytest.raises(SpoolUnwritable):
                call()
    assert spool.unwritten == 13
    troubles.give_place()
    spool.commit()
    assert (spool.unwritten, spool.quarantined, spool.drops) == (0, 1, 0)
    spool.note_state(at(NOW), version="1", counters={})
    assert spool.noted_ms == NOW


def test_rows_past_memorys_bound_are_dropped_and_counted(troubles: Troubles) -> None:
    spool = troubles.spool
    fold(spool, 0, BOUNDS.memory_rows)
    assert not spool.fold(Event(0, b"\xff" * 4, NOW))
    assert spool.fold(Event(0, bytes(4), NOW)), "a repeat has its row"
    assert spool.drops == 1
    spool.commit()
    fold(spool, 0, 5)
