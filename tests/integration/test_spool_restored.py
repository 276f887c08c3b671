"""A spool that is restored from a copy, or cloned, loses no later event.

The real file is sealed and stored as on a single host. Batches sealed before the copy are
recognised, and later batches have new names.
"""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from datetime import timedelta
from pathlib import Path

import pytest

from ingest_support import (
    DAY_MS,
    KnowsAllOrigins,
    Table,
    delivery_of,
    now_ms,
    settings_of,
    settled_clock,
)
from ingest_support.fixtures import dsn  # noqa: F401 - a fixture
from smtpfeeds_aggregator.ingest.check import check
from smtpfeeds_aggregator.ingest.fold import fold
from smtpfeeds_aggregator.store.bounds import Bounds
from smtpfeeds_aggregator.store.connection import connect
from smtpfeeds_aggregator.store.ingest import IngestStore
from smtpfeeds_common.addresses import pack_address
from smtpfeeds_common.clock import Clock
from smtpfeeds_common.spool import Event, Sealer, Spool

# ruff: noqa: F811 - fixtures are imported by name and used by name

GREET = 0
CLOCK = Clock()


@pytest.fixture
def store(dsn: str) -> Iterator[IngestStore]:
    settings = settings_of(dsn)
    store = IngestStore(
        lambda: connect(settings, "test", autocommit=True),
        clock=settled_clock(),
        retention=timedelta(days=30),
        bounds=Bounds(),
    )
    yield store
    store.close()


def hear(path: Path, *addresses: str) -> None:
    """Let a sensor open the spool, hear a greet of each, and end."""
    with closing(Spool(path, sensor="s1")) as spool:
        for address in addresses:
            spool.fold(Event(GREET, pack_address(address), now_ms()))
        spool.commit()


def deliver(path: Path, store: IngestStore, *, confirmed: bool = True) -> int:
    """Seal and store everything; return how many batches were counted."""
    with closing(Sealer(path)) as sealer:
        sealer.seal(CLOCK.read())
        counted = 0
        for batch in sealer.waiting():
            checked = check(delivery_of(batch.body))
            origin = KnowsAllOrigins()
            today = now_ms() // DAY_MS
            outcome = store.apply(
                fold([checked], origin, today),
                lambda keys, today: fold([checked] if keys else [], origin, today),  # noqa: B023
            )
            counted += len(outcome.fresh)
            if confirmed:
                sealer.confirm([(batch.spool, batch.seq)], CLOCK.read())
    return counted


def copy(path: Path, target: Path) -> None:
    """Copy the spool with its write-ahead log, as a backup does."""
    with closing(sqlite3.connect(path)) as db:
        db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    shutil.copy(path, target)


def test_restored_spool_counts_old_events_once_and_new_ones_too(
    tmp_path: Path, store: IngestStore, dsn: str
) -> None:
    path, backup = tmp_path / "s1.spool", tmp_path / "backup"
    hear(path, "192.0.2.1")
    assert deliver(path, store, confirmed=False) == 1
    copy(path, backup)  # with a batch that is sealed and not confirmed
    assert deliver(path, store) == 0
    hear(path, "192.0.2.2")
    assert deliver(path, store) == 1

    path.unlink()
    shutil.copy(backup, path)
    hear(path, "192.0.2.3", "192.0.2.1")
    assert deliver(path, store) == 1, "the old batch is known, the new one counts"

    table = Table(dsn)
    assert table.hits() == {
        ("192.0.2.1", "smtpgreet"): 2,
        ("192.0.2.2", "smtpgreet"): 1,
        ("192.0.2.3", "smtpgreet"): 1,
    }
    table.connection.close()


def test_clones_of_one_image_all_count(tmp_path: Path, store: IngestStore, dsn: str) -> None:
    first, second = tmp_path / "a" / "s1.spool", tmp_path / "b" / "s1.spool"
    hear(first)
    second.parent.mkdir()
    copy(first, second)
    for path, address in ((first, "192.0.2.1"), (second, "192.0.2.2")):
        hear(path, address)
        assert deliver(path, store) == 1
    table = Table(dsn)
    assert set(table.hits()) == {("192.0.2.1", "smtpgreet"), ("192.0.2.2", "smtpgreet")}
    table.connection.close()
