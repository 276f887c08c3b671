"""Maintenance that keeps the tables small never loses a batch or a row that ingest refreshed."""

from __future__ import annotations

import random
import threading
import uuid
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import psycopg
import pytest

from ingest_support import (
    DAY_MS,
    KnowsAllOrigins,
    Table,
    data,
    delivery_of,
    greet,
    made_batch,
    now_ms,
    settings_of,
    settled_clock,
    until,
)
from ingest_support.fixtures import dsn, every_dsn, table  # noqa: F401 - fixtures
from smtpfeeds_aggregator.ingest.check import check
from smtpfeeds_aggregator.ingest.fold import fold
from smtpfeeds_aggregator.store import maintenance
from smtpfeeds_aggregator.store.bounds import Bounds
from smtpfeeds_aggregator.store.connection import connect
from smtpfeeds_aggregator.store.ingest import IngestStore
from smtpfeeds_aggregator.store.maintenance import MaintenanceStore
from smtpfeeds_aggregator.store.rows import BatchKey, Folded, Outcome
from smtpfeeds_common.wire import Batch

# ruff: noqa: F811 - fixtures are imported by name and used by name

RETENTION = timedelta(days=30)
PARTITION = Path(__file__).parents[2] / "deploy" / "postgresql" / "partition.sql"


def apply(store: IngestStore, batch: Batch) -> Outcome:
    checked = check(delivery_of(batch))

    def refold(keys: object, today: int) -> Folded:
        return fold([checked] if keys else [], KnowsAllOrigins(), today)

    return store.apply(fold([checked], KnowsAllOrigins(), now_ms() // DAY_MS), refold)


def ingest_store(dsn: str) -> IngestStore:
    settings = settings_of(dsn)
    return IngestStore(
        lambda: connect(settings, "test", autocommit=True),
        clock=settled_clock(),
        retention=RETENTION,
        bounds=Bounds(),
    )


@pytest.fixture
def store(every_dsn: str) -> Iterator[IngestStore]:
    store = ingest_store(every_dsn)
    yield store
    store.close()


@pytest.fixture
def keeper(every_dsn: str) -> Iterator[MaintenanceStore]:
    with connect(settings_of(every_dsn), "test", autocommit=True) as connection:
        yield MaintenanceStore(connection, retention=RETENTION)


@pytest.fixture
def stored(every_dsn: str) -> Iterator[Table]:
    stored = Table(every_dsn)
    yield stored
    stored.connection.close()


def applied(stored: Table) -> list[str]:
    return [str(text) for (text,) in stored("SELECT applied::text FROM spool ORDER BY id")]


def test_compacted_batches_are_still_recognised(
    store: IngestStore, keeper: MaintenanceStore, stored: Table
) -> None:
    spool = uuid.uuid4()
    batches = {n: made_batch(greet("192.0.2.1"), spool=spool, seq=n) for n in (1, 2, 3, 5, 6, 9)}
    for batch in batches.values():
        apply(store, batch)
    assert keeper.compact(batches=7, spools=10) == 0, "too few to be worth it"
    assert keeper.compact(batches=6, spools=10) == 6
    assert stored.one("SELECT count(*) FROM applied_batch") == 0
    assert applied(stored) == ["{[1,4),[5,7),[9,10)}"]
    assert not any(apply(store, batch).fresh for batch in batches.values())
    assert apply(store, made_batch(greet("192.0.2.1"), spool=spool, seq=4)).fresh
    keeper.compact(batches=1, spools=10)
    assert applied(stored) == ["{[1,7),[9,10)}"]
    assert stored.hits() == {("192.0.2.1", "smtpgreet"): 7}


def test_fragments_of_a_spool_are_bounded_by_closing_the_lowest_gaps(
    store: IngestStore, keeper: MaintenanceStore, stored: Table
) -> None:
    spool = uuid.uuid4()
    for seq in range(1, 40, 2):
        apply(store, made_batch(greet("192.0.2.1"), spool=spool, seq=seq))
    keeper.compact(batches=1, spools=10, fragments=4)
    assert applied(stored) == ["{[1,34),[35,36),[37,38),[39,40)}"]
    assert apply(store, made_batch(greet("192.0.2.1"), spool=spool, seq=38)).fresh


def test_late_compaction_changes_nothing(
    store: IngestStore, keeper: MaintenanceStore, stored: Table
) -> None:
    """Another compactor moves the batches between the check and the lock; they stay recognised."""
    batch = made_batch(greet("192.0.2.1"), spool=uuid.uuid4(), seq=1)
    apply(store, batch)
    keeper.compact(batches=1, spools=10)
    assert keeper._compact_one(int(str(stored.one("SELECT id FROM spool"))), 1_000) == 0
    assert applied(stored) == ["{[1,2)}"]
    assert not apply(store, batch).fresh


def test_batch_and_its_compaction_in_a_race_count_once(dsn: str, table: Table) -> None:
    """Two workers get every batch; the compactor moves the batches at the same time."""
    spool = uuid.uuid4()
    batches = [made_batch(greet("192.0.2.1"), spool=spool, seq=n) for n in range(1, 151)]
    fresh: list[int] = []
    failures: list[BaseException] = []

    def work() -> None:
        own = ingest_store(dsn)
        try:
            fresh.append(sum(len(apply(own, batch).fresh) for batch in batches))
        except Exception as exc:  # noqa: BLE001 - asserted on by the main thread
            failures.append(exc)
        finally:
            own.close()

    threads = [threading.Thread(target=work) for _ in range(2)]
    for thread in threads:
        thread.start()
    with connect(settings_of(dsn), "test", autocommit=True) as connection:
        keeper = MaintenanceStore(connection, retention=RETENTION)
        while any(thread.is_alive() for thread in threads):
            keeper.compact(batches=1, spools=1)
    assert not failures
    assert sum(fresh) == 150
    assert table.hits() == {("192.0.2.1", "smtpgreet"): 150}


class Worker:
    """An ingest worker in a thread, which holds a spool's shared lock until it is released."""

    def __init__(self, dsn: str, spool: uuid.UUID) -> None:
        self.store = ingest_store(dsn)
        self.connection = self.store._ready()
        self.key = BatchKey("s1", spool, 1)
        self.shares, self.end = threading.Event(), threading.Event()
        self.thread = threading.Thread(target=self._run)
        self.thread.start()

    def _run(self) -> None:
        with self.connection.transaction():
            self.store._lock_spools(self.connection, (self.key,))
            self.shares.set()
            self.end.wait(60)

    def waits(self, table: Table) -> bool:
        pid = self.connection.info.backend_pid
        return bool(table("SELECT FROM pg_locks WHERE NOT granted AND pid = %s", pid))

    def finish(self) -> None:
        self.end.set()
        self.thread.join(60)
        assert not self.thread.is_alive()
        self.store.close()


def test_compactor_comes_before_workers_that_arrive_later(
    dsn: str, table: Table, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two busy workers, one of which always holds the spool, would otherwise block it for ever."""
    monkeypatch.setattr(maintenance, "_LOCK_WAIT", "60s")
    spool = uuid.uuid4()
    store = ingest_store(dsn)
    apply(store, made_batch(greet("192.0.2.1"), spool=spool, seq=1))
    store.close()
    moved: list[int] = []
    first = Worker(dsn, spool)
    until(first.shares.is_set, "the first worker has the spool")
    with connect(settings_of(dsn), "test", autocommit=True) as connection:
        keeper = MaintenanceStore(connection, retention=RETENTION)
        compactor = threading.Thread(
            target=lambda: moved.append(keeper.compact(batches=1, spools=1))
        )
        compactor.start()
        pid = connection.info.backend_pid
        until(
            lambda: bool(table("SELECT FROM pg_locks WHERE NOT granted AND pid = %s", pid)),
            "the compactor waits",
        )
        second = Worker(dsn, spool)
        until(lambda: second.waits(table) or second.shares.is_set(), "the second worker asks")
        overtaken = second.shares.is_set()
        first.finish()
        if overtaken:
            second.finish()
        compactor.join(60)
        until(second.shares.is_set, "the second worker has the spool in its turn")
        second.finish()
    assert not overtaken
    assert moved == [1]


def test_compactor_skips_a_spool_that_a_worker_of_the_first_version_locks(
    dsn: str, table: Table, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Such a worker only uses the row's lock. Other spools and the rest of the round continue."""
    monkeypatch.setattr(maintenance, "_LOCK_WAIT", "1ms")
    monkeypatch.setattr(maintenance, "_BUSY_MAX", 2)
    store = ingest_store(dsn)
    spools = [uuid.uuid4() for _ in range(4)]
    for spool in spools:
        apply(store, made_batch(greet("192.0.2.1"), spool=spool, seq=1))
    store.close()

    def busy(*places: int) -> None:
        table.run("BEGIN")
        table("SELECT FROM spool WHERE uuid = ANY(%s) FOR SHARE", [spools[n] for n in places])

    with connect(settings_of(dsn), "test", autocommit=True) as connection:
        keeper = MaintenanceStore(connection, retention=RETENTION)
        busy(0, 1, 2)
        assert keeper.compact(batches=1, spools=10) == 0, "after two it gives the round up"
        table.run("COMMIT")
        busy(0)
        assert keeper.compact(batches=1, spools=10) == 3
        table.run("COMMIT")
        assert keeper.compact(batches=1, spools=10) == 1


def age(stored: Table, what: str, days: int) -> None:
    for name in ("observation", "sighting"):
        stored.run(
            f"UPDATE {name} SET first_seen = now() - %s * interval '1 day',"
            f" last_seen = now() - %s * interval '1 day' WHERE ip <<= %s::inet",
            days, days, what,
        )  # fmt: skip


def test_retention_deletes_older_rows_and_nothing_else(
    store: IngestStore,
    keeper: MaintenanceStore,
    stored: Table,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(maintenance, "SLICE_PAGES", 1)
    monkeypatch.setattr(maintenance, "SLICE_ROWS", 3)
    ips = [f"192.0.2.{n}" for n in range(20)] + [f"2001:db8:{n:x}::1" for n in range(1, 20)]
    apply(store, made_batch(*(greet(ip) for ip in ips), *(data(ip) for ip in ips)))
    age(stored, "192.0.2.8/29", 31)
    age(stored, "2001:db8:8::/45", 400)
    first, second = Counter[str](), Counter[str]()
    for round_ in (first, second):
        for name, rows in keeper.retire(datetime.now(UTC)):
            round_[name] += rows
    left = {ip for ip, _ in stored.rows()}
    assert left == {ip for ip in ips if not _is_aged(ip)}
    assert stored.one("SELECT count(*) FROM sighting") == 2 * len(left)
    assert +first == {"observation": 32, "sighting": 32}
    assert not any(second.values()), "the first round took all of it"


def _is_aged(ip: str) -> bool:
    if ip.startswith("192.0.2."):
        return 8 <= int(ip.rpartition(".")[2]) < 16
    return 8 <= int(ip.split(":")[2], 16) < 16


def test_retention_deletes_hours_prefixes_and_spools_too(
    store: IngestStore, keeper: MaintenanceStore, stored: Table
) -> None:
    apply(store, made_batch(greet("2001:db8::1")))
    stored.run("UPDATE prefix_admission SET day = day - 40")
    stored.run("INSERT INTO activity VALUES (now() - interval '40 days', 'smtpgreet', 's1', 1),"
              " (now(), 'smtpgreet', 's1', 1)")  # fmt: skip
    stored.run("INSERT INTO prefix_overflow VALUES ('2001:db8::/64', 'smtpgreet', 's1',"
              " now() - interval '41 days', now() - interval '40 days', 1)")  # fmt: skip
    stored.run("INSERT INTO refusal SELECT 'mallory', now() - n * interval '1 day', 'rows', 1, 1,"
              " 0, 0, now(), '' FROM generate_series(0, 40, 40) n")  # fmt: skip
    stored.run("INSERT INTO flood SELECT 'm' || n, now(), now() - n * interval '1 day', 1, 1, 1, ''"
              " FROM generate_series(0, 40, 40) n")  # fmt: skip
    stored.run("UPDATE spool SET heard_at = now() - interval '40 days'")
    apply(store, made_batch(greet("192.0.2.1")))
    list(keeper.retire(datetime.now(UTC)))
    assert stored.one("SELECT count(*) FROM spool") == 2, "its batch is not compacted yet"
    stored.run("DELETE FROM applied_batch")
    list(keeper.retire(datetime.now(UTC)))
    assert stored.one("SELECT count(*) FROM activity") == 1
    assert stored.one("SELECT count(*) FROM prefix_overflow") == 0
    assert stored.one("SELECT count(*) FROM prefix_admission") == 0
    assert stored.one("SELECT count(*) FROM refusal") == 1
    assert stored("SELECT account FROM flood") == [("m0",)]
    assert stored.one("SELECT count(*) FROM spool") == 1


def test_row_that_ingest_refreshes_during_retention_stays(
    dsn: str, table: Table, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every address is refreshed while retention walks over it: it ends as seen today, counted
    from again or from before, and every sighting has its observation."""
    monkeypatch.setattr(maintenance, "SLICE_PAGES", 1)
    ips = [f"198.51.{n >> 8}.{n & 255}" for n in range(1000)]
    store = ingest_store(dsn)
    apply(store, made_batch(*(greet(ip) for ip in ips)))
    age(table, "198.51.0.0/16", 31)
    shuffled = random.Random(3).sample(ips, len(ips))

    def refresh() -> None:
        for at in range(0, len(shuffled), 20):
            apply(store, made_batch(*(greet(ip) for ip in shuffled[at : at + 20])))

    thread = threading.Thread(target=refresh)
    thread.start()
    with connect(settings_of(dsn), "test", autocommit=True) as connection:
        keeper = MaintenanceStore(connection, retention=RETENTION)
        while thread.is_alive():
            list(keeper.retire(datetime.now(UTC)))
        list(keeper.retire(datetime.now(UTC)))
    store.close()
    assert {ip for ip, _ in table.rows()} == set(ips)
    assert (
        table.one("SELECT count(*) FROM sighting WHERE last_seen > now() - interval '1 hour'")
        == 1000
    )
    assert table.one("SELECT min(last_seen) > now() - interval '1 hour' FROM observation")


def test_row_locked_by_ingest_is_left_for_the_next_round(dsn: str, table: Table) -> None:
    """A long transaction does not delay retention."""
    store = ingest_store(dsn)
    apply(store, made_batch(greet("192.0.2.1"), greet("192.0.2.2")))
    store.close()
    age(table, "192.0.2.0/24", 31)
    table.run("BEGIN")
    table.run("UPDATE observation SET last_seen = now() WHERE ip = '192.0.2.1'")
    with connect(settings_of(dsn), "test", autocommit=True) as connection:
        connection.execute("SET lock_timeout = '3s'")
        retired = Counter[str]()
        keeper = MaintenanceStore(connection, retention=RETENTION)
        for name, rows in keeper.retire(datetime.now(UTC)):
            retired[name] += rows
    assert +retired == {"observation": 1, "sighting": 1}
    table.run("COMMIT")
    assert list(table.rows()) == [("192.0.2.1", "smtpgreet")]


def test_run_of_retention_counts_for_all_aggregators_for_a_day(
    keeper: MaintenanceStore, stored: Table
) -> None:
    now = datetime.now(UTC)
    assert keeper.retention_due(now)
    next(keeper.retire(now))
    assert keeper.retention_due(now), "a round that was cut short does not count"
    list(keeper.retire(now))
    assert not keeper.retention_due(now)
    assert not keeper.retention_due(now + timedelta(hours=23))
    assert keeper.retention_due(now + timedelta(hours=25))
    assert keeper.retention_due(now - timedelta(hours=1)), "noted by a clock that was ahead"
    list(keeper.retire(now))


def test_retention_reads_each_partition_by_its_own_pages(
    dsn: str, table: Table, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(maintenance, "SLICE_PAGES", 1)
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute(PARTITION.read_bytes())
    store = ingest_store(dsn)
    ips = [f"192.0.{n >> 8}.{n & 255}" for n in range(512)]
    apply(store, made_batch(*(greet(ip) for ip in ips)))
    store.close()
    age(table, "192.0.1.0/24", 31)
    slices = Counter[str]()
    with connect(settings_of(dsn), "test", autocommit=True) as connection:
        keeper = MaintenanceStore(connection, retention=RETENTION)
        for name, _ in keeper.retire(datetime.now(UTC)):
            slices[name] += 1
    assert {ip for ip, _ in table.rows()} == set(ips[:256])
    assert table.one("SELECT count(*) FROM sighting") == 256
    assert slices["observation"] >= 16


def test_one_aggregator_at_a_time_does_maintenance(dsn: str) -> None:
    settings = settings_of(dsn)
    with connect(settings, "one", autocommit=True) as one:
        first = MaintenanceStore(one, retention=RETENTION)
        with connect(settings, "two", autocommit=True) as two:
            second = MaintenanceStore(two, retention=RETENTION)
            assert first.try_lock()
            assert not second.try_lock()
            first.unlock()
            assert second.try_lock()
        until(first.try_lock, "the lock ends with its holder's session")


def test_late_data_is_older_than_the_retention_at_the_same_moment_everywhere(
    store: IngestStore, stored: Table
) -> None:
    """Ingest never stores a row that retention would delete at once."""
    edge = now_ms() - 30 * DAY_MS
    apply(store, made_batch(greet("192.0.2.1", edge - 60_000), greet("192.0.2.2", edge + 60_000)))
    assert list(stored.rows()) == [("192.0.2.2", "smtpgreet")]
