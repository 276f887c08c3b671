"""One ingest transaction writes each batch exactly once, on every installed PostgreSQL."""

from __future__ import annotations

import random
import threading
import uuid
from collections.abc import Iterator
from datetime import timedelta

import pytest

from ingest_support import (
    DAY_MS,
    HOUR_MS,
    KnowsAllOrigins,
    Table,
    data,
    delivery_of,
    greet,
    made_batch,
    now_ms,
    settings_of,
    settled_clock,
    utc,
)
from ingest_support.fixtures import dsn, every_dsn, terminate_others  # noqa: F401 - fixtures
from smtpfeeds_aggregator.ingest.check import check
from smtpfeeds_aggregator.ingest.fold import fold
from smtpfeeds_aggregator.ingest.probe_batch import probe_batch
from smtpfeeds_aggregator.origin import EMPTY
from smtpfeeds_aggregator.store.bounds import Bounds
from smtpfeeds_aggregator.store.connection import connect
from smtpfeeds_aggregator.store.ingest import IngestStore
from smtpfeeds_aggregator.store.maintenance import MaintenanceStore
from smtpfeeds_aggregator.store.rows import MAX_COUNT, BatchKey, Outcome
from smtpfeeds_common.errors import BadRows, DatabaseUnavailable
from smtpfeeds_common.wire import Batch, HourCount, Observation, PrefixOverflow

# ruff: noqa: F811 - fixtures are imported by name and used by name

RETENTION = timedelta(days=30)


def store_of(dsn: str, per_prefix64: int = 64) -> IngestStore:
    settings = settings_of(dsn)
    return IngestStore(
        lambda: connect(settings, "test", autocommit=True),
        clock=settled_clock(),
        retention=RETENTION,
        bounds=Bounds(per_prefix64=per_prefix64),
    )


@pytest.fixture
def store(every_dsn: str) -> Iterator[IngestStore]:
    store = store_of(every_dsn)
    yield store
    store.close()


@pytest.fixture
def table(every_dsn: str) -> Iterator[Table]:
    asked = Table(every_dsn)
    yield asked
    asked.connection.close()


def apply(store: IngestStore, *batches: Batch, origin: object = None) -> Outcome:
    """Write batches as the worker does, in one transaction."""
    used = origin or KnowsAllOrigins()
    unique = {check(delivery_of(batch)).key: check(delivery_of(batch)) for batch in batches}

    def refold(keys: frozenset[BatchKey], today: int) -> object:
        fresh = [checked for key, checked in unique.items() if key in keys]
        return fold(fresh, used, today)  # type: ignore[arg-type]

    return store.apply(fold(list(unique.values()), used, now_ms() // DAY_MS), refold)  # type: ignore[arg-type]


def test_batches_fold_by_minimum_maximum_sum_and_or(store: IngestStore, table: Table) -> None:
    at = now_ms() - HOUR_MS
    apply(store, made_batch(greet("192.0.2.1", at, hits=2, flags=1, targets=1)))
    later = Observation("smtpgreet", "192.0.2.1", at - 5000, at + 7000, 3, 4, -(2**63))
    apply(store, made_batch(later, sensor="s2"))
    row = table.rows()["192.0.2.1", "smtpgreet"]
    assert row == (utc(at - 5000), utc(at + 7000), 5, 5, 64_500 + 192)
    assert table("SELECT sensor, hits, flags, targets FROM sighting ORDER BY 1") == [
        ("s1", 2, 1, 1),
        ("s2", 3, 4, -(2**63)),
    ]


def test_batch_counts_once_however_often_it_arrives(store: IngestStore, table: Table) -> None:
    one = made_batch(greet("192.0.2.1"), seq=1, hours=[HourCount("smtpgreet", now_ms(), 1)])
    two = made_batch(greet("192.0.2.1"), spool=one.spool, seq=2)
    assert len(apply(store, one, two).fresh) == 2
    assert not apply(store, one, two).fresh
    three = made_batch(greet("192.0.2.1"), spool=one.spool, seq=3)
    assert len(apply(store, two, three, one).fresh) == 1
    assert table.hits() == {("192.0.2.1", "smtpgreet"): 3}
    assert table.one("SELECT sum(events) FROM activity") == 1


def test_same_spool_and_number_from_another_account_is_another_batch(
    store: IngestStore, table: Table
) -> None:
    """A cloned disk image with another name, or a stolen UUID, hides no other batch."""
    spool = uuid.uuid4()
    apply(store, made_batch(greet("192.0.2.1"), spool=spool, sensor="s1"))
    assert apply(store, made_batch(greet("192.0.2.1"), spool=spool, sensor="s2")).fresh
    assert table.hits() == {("192.0.2.1", "smtpgreet"): 2}


def test_restored_copy_of_a_spool_loses_nothing_new(store: IngestStore, table: Table) -> None:
    """It sends earlier batches again with the old UUID, and new ones with a new UUID."""
    old, new = uuid.uuid4(), uuid.uuid4()
    for seq in (1, 2, 3):
        apply(store, made_batch(greet("192.0.2.1"), spool=old, seq=seq))
    apply(store, made_batch(greet("192.0.2.1"), spool=old, seq=3))
    apply(store, made_batch(greet("192.0.2.1"), spool=new, seq=1))
    assert table.hits() == {("192.0.2.1", "smtpgreet"): 4}


def test_batches_out_of_order_all_count(store: IngestStore, table: Table) -> None:
    spool = uuid.uuid4()
    for seq in (9, 1, 2**62, 5, 5, 2):
        apply(store, made_batch(greet("192.0.2.1"), spool=spool, seq=seq))
    assert table.hits() == {("192.0.2.1", "smtpgreet"): 5}


def test_data_raises_the_greet_row_and_not_its_hits(store: IngestStore, table: Table) -> None:
    at = now_ms() - HOUR_MS
    apply(store, made_batch(greet("192.0.2.1", at), greet("192.0.2.2", at), data("192.0.2.1", at)))
    apply(store, made_batch(data("192.0.2.1", at + 9000), data("192.0.2.3", at + 9000)))
    rows = table.rows()
    assert rows["192.0.2.1", "smtpgreet"][1:3] == (utc(at + 9000), 1)
    assert rows["192.0.2.1", "smtpdata"][1:3] == (utc(at + 9000), 2)
    assert rows["192.0.2.3", "smtpgreet"][1:3] == (utc(at + 9000), 0)
    assert rows["192.0.2.2", "smtpgreet"][1:3] == (utc(at), 1)
    assert table("SELECT ip FROM sighting d WHERE feed = 'smtpdata' AND NOT EXISTS"
                 " (SELECT FROM sighting g WHERE g.ip = d.ip AND g.sensor = d.sensor"
                 " AND g.feed = 'smtpgreet' AND g.last_seen >= d.last_seen)") == []  # fmt: skip


def test_note_adds_behaviours_to_its_address_and_creates_no_entry(
    store: IngestStore, table: Table
) -> None:
    """A row without hits is not an event, so nothing is invented or counted."""
    apply(store, made_batch(greet("192.0.2.1", hits=2, flags=1)))
    apply(
        store,
        made_batch(greet("192.0.2.1", hits=0, flags=1 << 14), greet("192.0.2.9", hits=0), seq=2),
        made_batch(greet("2001:db8::9", hits=0), data("192.0.2.8", hits=0), seq=3),
    )
    rows = {row[0]: row for row in table("SELECT host(ip), hits, flags FROM observation")}
    assert rows == {"192.0.2.1": ("192.0.2.1", 2, 1 | 1 << 14)}
    assert table.one("SELECT count(*) FROM sighting") == 1
    assert table.one("SELECT count(*) FROM prefix_admission") == 0


def test_clock_ahead_cannot_put_an_entry_into_the_future(store: IngestStore, table: Table) -> None:
    ahead = now_ms() + 400 * DAY_MS
    row = Observation("smtpgreet", "192.0.2.1", ahead, ahead + 1000, 1)
    apply(store, made_batch(row, sealed_ms=ahead, hours=[HourCount("smtpgreet", ahead, 5)]))
    first, last = table.rows()["192.0.2.1", "smtpgreet"][:2]
    assert first == last <= table.one("SELECT now()")
    assert table("SELECT hour = date_trunc('hour', now()), events FROM activity") == [(True, 5)]
    assert table.one("SELECT sealed_at > now() + interval '399 days' FROM sensor"), "skew is seen"
    apply(store, made_batch(version="set right"))
    assert table("SELECT sealed_at <= now(), version FROM sensor") == [(True, "set right")]


def test_clock_behind_is_counted_and_not_stored(store: IngestStore, table: Table) -> None:
    past = now_ms() - 365 * DAY_MS
    late = made_batch(
        greet("192.0.2.1", past),
        data("192.0.2.1", past),
        greet("192.0.2.2", first_ms=past),
        hours=[HourCount("smtpgreet", past, 5)],
        overflows=[PrefixOverflow("smtpgreet", "2001:db8::/64", past, past, 9)],
    )
    outcome = apply(store, late)
    assert (outcome.expired, outcome.rows) == (2, 1)
    first = table.rows()["192.0.2.2", "smtpgreet"][0]
    assert abs(first - (table.one("SELECT now()") - RETENTION)) < timedelta(minutes=1)
    assert list(table.rows()) == [("192.0.2.2", "smtpgreet")]
    assert table.one("SELECT count(*) FROM activity") == 0
    assert table.one("SELECT count(*) FROM prefix_overflow") == 0


def test_old_batch_does_not_replace_the_newer_state_of_a_sensor(
    store: IngestStore, table: Table
) -> None:
    at = now_ms() - 60_000
    apply(store, made_batch(sealed_ms=at, version="2", depth=1, drops=2, counters={"c": 3}))
    apply(store, made_batch(sealed_ms=at - HOUR_MS, version="1", depth=9, drops=1))
    assert table("SELECT version, spool_depth, drops, counters, sealed_at FROM sensor") == [
        ("2", 1, 2, {"c": 3}, utc(at))
    ]


def test_addresses_of_a_prefix_beyond_its_bound_are_counted_under_it(
    store: IngestStore, table: Table
) -> None:
    rows = [greet(f"2001:db8::{n:x}", hits=2) for n in range(1, 101)]
    outcome = apply(store, made_batch(*rows, greet("2001:db8:0:1::1"), greet("192.0.2.1")))
    assert outcome.overflowed == 36
    assert table.one("SELECT count(*) FROM observation WHERE ip << '2001:db8::/64'") == 64
    assert table("SELECT text(prefix), sensor, hits FROM prefix_overflow") == [
        ("2001:db8::/64", "s1", 72)
    ]
    known = table.one("SELECT host(max(ip)) FROM observation WHERE ip << '2001:db8::/64'")
    apply(store, made_batch(greet(known), data("2001:db8::ffff", hits=5)))
    assert table.rows()[known, "smtpgreet"][2] == 3, "what is stored is always folded"
    assert table("SELECT feed, hits FROM prefix_overflow ORDER BY 1") == [
        ("smtpdata", 5),
        ("smtpgreet", 72),
    ]
    of_64 = "SELECT max(addresses) FROM prefix_admission WHERE masklen(prefix) = 64"
    assert table.one(of_64) == 64
    old = now_ms() - DAY_MS
    assert apply(store, made_batch(greet("2001:db8::fffe", old))).overflowed == 0, "by day"


def test_counters_saturate(store: IngestStore, table: Table) -> None:
    """A hostile sensor cannot overflow an address's counter, so that other batches fail."""
    huge = [greet("192.0.2.1", hits=2**53) for _ in range(600)]
    for _ in range(3):
        hours = [HourCount("smtpgreet", now_ms(), 2**53)] * 600
        apply(store, made_batch(*huge, hours=hours))
    apply(store, made_batch(greet("192.0.2.1")))
    assert table.hits() == {("192.0.2.1", "smtpgreet"): MAX_COUNT}
    assert table.one("SELECT max(events) FROM activity") == MAX_COUNT


def test_origin_is_stored_updated_and_never_lost(store: IngestStore, table: Table) -> None:
    apply(store, made_batch(greet("192.0.2.1"), greet("0.0.0.1")), origin=KnowsAllOrigins())
    asked = "SELECT host(ip), asn FROM observation ORDER BY ip"
    assert table(asked) == [("0.0.0.1", None), ("192.0.2.1", 64_692)]
    assert table("SELECT * FROM autonomous_system") == [(64_692, "AS 64692 known")]
    moved = KnowsAllOrigins("newer", offset=65_000)
    apply(store, made_batch(greet("192.0.2.1")), origin=moved)
    assert table(asked)[1] == ("192.0.2.1", 65_192)
    apply(store, made_batch(greet("192.0.2.1")), origin=EMPTY)
    assert table(asked)[1] == ("192.0.2.1", 65_192), "no table knows less than an old one"
    apply(store, made_batch(greet("192.0.2.1")), origin=KnowsAllOrigins("renamed"))
    assert table("SELECT name FROM autonomous_system ORDER BY asn")[0] == ("AS 64692 renamed",)


def test_refused_data_differ_from_an_unavailable_database(store: IngestStore, table: Table) -> None:
    table.run("ALTER TABLE observation ADD CHECK (hits <> 13)")
    with pytest.raises(BadRows, match="23514"):
        apply(store, made_batch(greet("192.0.2.1", hits=13)))
    assert table.one("SELECT count(*) FROM applied_batch") == 0, "nothing of it is left"
    table.run("ALTER TABLE sighting RENAME TO elsewhere")
    with pytest.raises(DatabaseUnavailable):
        apply(store, made_batch(greet("192.0.2.1")))
    table.run("ALTER TABLE elsewhere RENAME TO sighting")
    assert apply(store, made_batch(greet("192.0.2.1"))).fresh


def test_read_only_default_of_the_database_is_for_others(
    store: IngestStore, every_dsn: str, table: Table
) -> None:
    """A session overrides the default; a read-only server, such as a standby, is unavailable."""
    name = table.one("SELECT current_database()")
    table.run(f'ALTER DATABASE "{name}" SET default_transaction_read_only = on')
    assert apply(store, made_batch(greet("192.0.2.1"))).fresh
    store.probe(probe_batch())
    assert store._connection is not None
    store._connection.execute("SET default_transaction_read_only = on")  # as a standby always is
    with pytest.raises(DatabaseUnavailable, match="read-only"):
        store.probe(probe_batch())
    assert apply(store, made_batch(greet("192.0.2.1"))).fresh, "by a new session"


def test_lost_connection_is_opened_again(store: IngestStore, every_dsn: str, table: Table) -> None:
    batch = made_batch(greet("192.0.2.1"))
    apply(store, batch)
    terminate_others(every_dsn)
    with pytest.raises(DatabaseUnavailable):
        apply(store, batch)
    assert not apply(store, batch).fresh


Collections = list[list[Batch]]


def overlapping_work() -> tuple[list[Collections], dict[tuple[str, str], int]]:
    """Create collections for two workers, every fifth for both, and return their sums."""
    ledger: dict[tuple[str, str], int] = {}
    work: list[Collections] = [[], []]
    chance = random.Random(7)
    spools = {f"s{n}": uuid.uuid4() for n in range(4)}
    for number in range(60):
        batches = []
        for sensor, spool in spools.items():
            ips = [f"198.51.100.{chance.randrange(256)}" for _ in range(60)]
            ips += [f"2001:db8::{chance.randrange(1, 49):x}" for _ in range(20)]
            rows = [greet(ip) for ip in ips]
            batches.append(made_batch(*rows, sensor=sensor, spool=spool, seq=number + 1))
            for ip in ips:
                ledger[ip, "smtpgreet"] = ledger.get((ip, "smtpgreet"), 0) + 1
        work[number % 2].append(batches)
        if number % 5 == 0:
            work[1 - number % 2].append(batches)
    return work, ledger


def test_two_workers_on_the_same_keys_neither_deadlock_nor_lose(dsn: str) -> None:
    """They have addresses, sensors, names, hours and prefixes in common; a compactor runs too."""
    table = Table(dsn)
    work, ledger = overlapping_work()
    stores = [store_of(dsn), store_of(dsn)]
    failures: list[Exception] = []

    def drain(number: int) -> None:
        try:
            for batches in work[number]:
                apply(stores[number], *batches, origin=KnowsAllOrigins(f"table {number}"))
        except Exception as exc:  # noqa: BLE001 - asserted on by the main thread
            failures.append(exc)

    threads = [threading.Thread(target=drain, args=(number,)) for number in (0, 1)]
    for thread in threads:
        thread.start()
    with connect(settings_of(dsn), "compactor", autocommit=True) as connection:
        compactor = MaintenanceStore(connection, retention=RETENTION)
        while any(thread.is_alive() for thread in threads):
            compactor.compact(batches=1, spools=10)
        compactor.compact(batches=1, spools=10)
    assert not failures
    assert sum(store.conflicts for store in stores) == 0, "one lock order: no deadlock to resolve"
    assert table.hits() == ledger
    assert table.one("SELECT count(*) FROM applied_batch") == 0
    assert table.one("SELECT sum(upper(r) - lower(r)) FROM spool, unnest(applied) r") == 240
    for store in stores:
        store.close()
    table.connection.close()
