"""No account and no owner of an IPv6 prefix can fill the disk: further events are only counted.

Every event counts once, for its address, its prefix or its account; each test checks the sum.
"""

from __future__ import annotations

import ipaddress
import json
import logging
import uuid
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import date

import pytest
from click.testing import CliRunner

from ingest_support import (
    DAY_MS,
    KnowsAllOrigins,
    Table,
    data,
    greet,
    made_batch,
    now_ms,
    settings_of,
    until,
)
from ingest_support.fixtures import dsn, table  # noqa: F401 - fixtures
from ingest_support.storing import apply, ingest_store
from ingest_support.worker import Work
from smtpfeeds_aggregator.store.bounds import _FULL_MAX, Bounds, FullPrefixes, PrefixDay
from smtpfeeds_aggregator.store.connection import connect
from smtpfeeds_aggregator.store.epochs import EpochStore
from smtpfeeds_aggregator.store.ingest import IngestStore
from smtpfeeds_aggregator.store.purge import PurgeStore, part_of_epoch
from smtpfeeds_common.cli import main
from smtpfeeds_common.wire import Observation, PrefixOverflow

# ruff: noqa: F811 - fixtures are imported by name and used by name

#: Small, and counted exactly.
BOUNDS = Bounds(
    per_prefix64=4,
    per_prefix48=10,
    per_prefix32=20,
    per_sensor_day=10,
    per_sensor=30,
    sample_percent=100,
    one_in=1,
    many=0,
)
Open = Callable[..., IngestStore]


@pytest.fixture
def open_store(dsn: str) -> Iterator[Open]:
    opened: list[IngestStore] = []

    def call(**changes: object) -> IngestStore:
        opened.append(ingest_store(dsn, replace(BOUNDS, **changes)))  # type: ignore[arg-type]
        return opened[-1]

    yield call
    for store in opened:
        store.close()


@pytest.fixture
def store(open_store: Open) -> IngestStore:
    """A store whose buckets never run empty."""
    return open_store(per_sensor=10**9)


def ipv4(first: int, count: int) -> list[Observation]:
    start = int(ipaddress.ip_address("192.0.2.0")) + first
    return [greet(str(ipaddress.ip_address(start + n))) for n in range(count)]


def ipv6(prefix: str, count: int, *, first: int = 0, step: int = 1 << 64) -> list[Observation]:
    """Create addresses, by default each in its own /64."""
    start = int(ipaddress.IPv6Network(prefix).network_address)
    return [greet(str(ipaddress.ip_address(start + (first + n) * step + 1))) for n in range(count)]


def total(table: Table) -> int:
    """Sum all greet events, for addresses, prefixes and accounts."""
    return sum(
        table.one(f"SELECT coalesce(sum(hits), 0)::int FROM {name} WHERE feed = 'smtpgreet'")
        for name in ("observation", "prefix_overflow", "sensor_overflow")
    )


def stored(table: Table, prefix: str) -> int:
    count = table.one(
        "SELECT count(*) FROM observation WHERE feed = 'smtpgreet' AND ip <<= %s::inet", prefix
    )
    return int(count)


# A sensor's bucket.


def test_new_addresses_past_the_bucket_are_counted_under_the_account(
    open_store: Open, table: Table
) -> None:
    store = open_store()
    outcome = apply(store, made_batch(*ipv4(0, 40), sensor="greedy"))
    assert (outcome.overflowed, outcome.past_bucket) == (10, {"greedy": 10})
    assert (len(table.rows()), total(table)) == (30, 40)
    known = [greet("192.0.2.0", hits=7), data("192.0.2.200", hits=5), greet("192.0.2.200")]
    outcome = apply(store, made_batch(*known, sensor="greedy"))
    assert outcome.past_bucket == {"greedy": 2}, "a data event goes with its greet"
    assert table.hits()["192.0.2.0", "smtpgreet"] == 8, "what is known goes on as before"
    assert table(
        "SELECT sensor, feed, day = (now() AT TIME ZONE 'UTC')::date, hits FROM sensor_overflow"
        " ORDER BY 2"
    ) == [("greedy", "smtpdata", True, 5), ("greedy", "smtpgreet", True, 11)]
    apply(store, made_batch(*ipv4(200, 5), sensor="modest"))
    assert stored(table, "192.0.2.200/29") == 5, "others have buckets of their own"
    assert apply(store, made_batch(greet("192.0.2.203"), sensor="greedy")).past_bucket == {}


def test_bucket_fills_while_the_sensor_is_silent_and_to_three_days_at_most(
    open_store: Open, table: Table
) -> None:
    store = open_store()
    apply(store, made_batch(*ipv4(0, 31), sensor="s1"))
    assert table.one("SELECT new_left FROM sensor") == 0
    for days, admitted in ((0.5, 5), (1, 10), (7, 30)):
        table.run("UPDATE sensor SET new_left_at = now() - %s * interval '1 day'", days)
        before = len(table.rows())
        apply(store, made_batch(*ipv4(100 + before, 40), sensor="s1"))
        assert len(table.rows()) - before == admitted
    table.run("UPDATE sensor SET new_left = 3, new_left_at = now() + interval '1 day'")
    before = len(table.rows())
    apply(store, made_batch(*ipv4(2000, 40), sensor="s1"))
    assert len(table.rows()) - before == 3, "a clock that was ahead takes nothing away"


def test_week_long_backlog_of_a_large_sensor_passes(dsn: str, table: Table) -> None:
    """The default bounds admit ten thousand new addresses a day, for seven days at once."""
    store = ingest_store(dsn)
    spool, at = uuid.uuid4(), now_ms()
    for day in range(7):
        rows = [
            greet(f"10.{day}.{n >> 8}.{n & 255}", at - (7 - day) * DAY_MS) for n in range(10_000)
        ]
        for part in (0, 5_000):
            seq = day * 2 + part // 5_000 + 1
            batch = made_batch(*rows[part : part + 5_000], spool=spool, seq=seq)
            assert apply(store, batch).past_bucket == {}
    store.close()
    assert len(table.rows()) == 70_000
    assert table.one("SELECT new_left > 0 FROM sensor")


def test_estimate_of_new_addresses_is_near_the_truth(dsn: str, table: Table) -> None:
    """The estimate samples a quarter; of forty thousand addresses, half are new."""
    store = ingest_store(dsn, Bounds(sample_percent=25))
    rows = [f"10.0.{n >> 8}.{n & 255}" for n in range(40_000)]
    for part in range(0, 40_000, 4_000):
        apply(store, made_batch(*(greet(ip) for ip in rows[part : part + 2_000]), sensor="first"))
    for part in range(0, 40_000, 4_000):
        apply(store, made_batch(*(greet(ip) for ip in rows[part : part + 4_000]), sensor="second"))
    store.close()
    full = Bounds().per_sensor
    for new_left in table("SELECT new_left FROM sensor ORDER BY name"):
        assert full - 32_000 < new_left[0] < full - 8_000, "six standard deviations"


def test_bucket_of_a_new_epoch_is_full_and_what_a_stolen_one_overflowed_goes(
    dsn: str, open_store: Open, table: Table
) -> None:
    store = open_store()
    apply(store, made_batch(*ipv4(0, 40), sensor="s1"))
    with connect(settings_of(dsn), "test", autocommit=True) as connection:
        EpochStore(connection).rotate("s1")
        assert apply(store, made_batch(*ipv4(500, 31), sensor="s1")).past_bucket == {"s1": 1}
        overflows = "SELECT sensor, hits FROM sensor_overflow ORDER BY 1"
        assert table(overflows) == [("s1", 10), ("s1@2", 1)]
        PurgeStore(connection).purge(part_of_epoch("s1", 1))
    assert table(overflows) == [("s1@2", 1)]
    assert (len(table.rows()), total(table)) == (30, 31)


def test_sensor_past_its_bucket_is_in_log_metric_and_sensors(
    dsn: str, open_store: Open, table: Table, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    work = Work(open_store(), KnowsAllOrigins)
    spool = uuid.uuid4()
    for seq in (1, 2):
        work.source.put(made_batch(*ipv4(seq * 100, 40), sensor="s1", spool=spool, seq=seq))
    with work.running():
        until(lambda: len(work.source.acknowledged) == 2, "both are counted")
    assert (
        work.metrics.registry.get_sample_value(
            "smtpfeeds_ingest_account_past_bucket_rows_total", {"account": "s1"}
        )
        == 50
    )
    lines = [record for record in caplog.records if "more new addresses" in record.getMessage()]
    assert len(lines) == 1, "once a minute"
    done = CliRunner().invoke(main, ["sensors", "--json", "--dsn", dsn])
    (state,) = json.loads(done.stdout)
    assert state["past_bucket_24h"] == 50
    assert "s1 reported more new addresses" in done.stderr


# IPv6 prefixes.


def test_new_addresses_of_a_48_and_a_32_past_their_bounds_are_counted_under_them(
    store: IngestStore, table: Table
) -> None:
    apply(store, made_batch(*ipv6("2001:db8:1::/48", 9)))
    apply(store, made_batch(*ipv6("2001:db8:1::/48", 9, first=9)))
    assert stored(table, "2001:db8:1::/48") == 10
    assert table("SELECT text(prefix), hits FROM prefix_overflow") == [("2001:db8:1::/48", 8)]
    for number in range(2, 7):
        apply(store, made_batch(*ipv6(f"2001:db8:{number}::/48", 4)))
    assert stored(table, "2001:db8::/32") == 20
    assert (
        table.one("SELECT hits FROM prefix_overflow WHERE prefix = '2001:db8::/32'")
        + stored(table, "2001:db8:2::/47")
        + stored(table, "2001:db8:4::/46")
        == 20
    )
    assert total(table) == 38
    apply(store, made_batch(*ipv6("2001:db9::/48", 4)))
    assert stored(table, "2001:db9::/32") == 4, "another /32 is another"


def test_full_prefix_costs_no_further_rows(store: IngestStore, table: Table) -> None:
    """It adds no row for an address, for a /64, or for a /64 that a sensor counts."""
    apply(store, made_batch(*ipv6("2001:db8:1::/48", 11)))
    before = table.one("SELECT count(*) FROM prefix_admission")
    for part in range(1, 4):
        overflows = [
            PrefixOverflow("smtpgreet", f"2001:db8:1:{part}{n:02x}::/64", now_ms(), now_ms(), 3)
            for n in range(20)
        ]
        rows = ipv6("2001:db8:1::/48", 50, first=100 * part)
        apply(store, made_batch(*rows, overflows=overflows))
    assert table.one("SELECT count(*) FROM prefix_admission") == before
    assert table("SELECT text(prefix), hits FROM prefix_overflow") == [
        ("2001:db8:1::/48", 1 + 150 + 180)
    ]
    assert total(table) == 11 + 150 + 180


def test_64s_that_sensors_count_are_bounded_as_addresses_are(
    open_store: Open, table: Table
) -> None:
    store = open_store(per_sensor=15)
    at = now_ms()
    overflows = [
        PrefixOverflow("smtpgreet", f"2001:db8:{n % 3}:{n:x}::/64", at, at, 2) for n in range(60)
    ]
    outcome = apply(store, made_batch(overflows=overflows))
    lengths = "SELECT masklen(prefix), count(*)::int FROM prefix_overflow GROUP BY 1"
    # Ten of the first /48, which is full then; five of the second: then the bucket is empty.
    assert dict(table(lengths)) == {64: 15, 48: 1}
    assert outcome.past_bucket == {"s1": 35}
    assert total(table) == 120
    store = open_store(per_sensor=10**6)
    apply(store, made_batch(overflows=overflows, sensor="s2"))
    # Five more of the second /48: then the /32 is full.
    assert dict(table(lengths)) == {64: 20, 48: 2, 32: 1}
    apply(store, made_batch(overflows=overflows, sensor="s2"))
    assert dict(table(lengths)) == {64: 20, 48: 2, 32: 1}
    assert total(table) == 360, "what has a row goes on under it"


def test_64_stays_exact_within_a_wide_prefix(store: IngestStore, table: Table) -> None:
    apply(store, made_batch(*ipv6("2001:db8:1::/48", 9, step=1)))
    assert stored(table, "2001:db8:1::/64") == 4
    counts = "SELECT masklen(prefix), addresses FROM prefix_admission ORDER BY 1"
    assert table(counts) == [(32, 4), (48, 4), (64, 4)], "refused addresses fill no wide prefix"
    apply(store, made_batch(*ipv6("2001:db8:1::/48", 50, first=100, step=1)))
    assert table(counts) == [(32, 4), (48, 4), (64, 4)]


def test_single_addresses_of_a_48_are_bounded_by_the_estimate(dsn: str, table: Table) -> None:
    """With the default bounds about 1,024 addresses get rows, in any order of arrival."""
    store = ingest_store(dsn)
    for part in range(100):
        apply(store, made_batch(*ipv6("2001:db8:1::/48", 30, first=30 * part)))
    store.close()
    assert 500 < stored(table, "2001:db8:1::/48") < 1_900
    assert total(table) == 3_000


def test_crowded_wide_prefixes_are_listed_and_queries_mention_them(
    dsn: str, store: IngestStore, table: Table
) -> None:
    apply(store, made_batch(*ipv6("2001:db8:1::/48", 12)))

    def run(*arguments: str) -> tuple[str, str]:
        done = CliRunner().invoke(main, [*arguments, "--dsn", dsn])
        return done.stdout, done.stderr

    (row,) = json.loads(run("feed", "crowded", "--json")[0])
    assert (row["prefix"], row["events"]) == ("2001:db8:1::/48", 2)
    for asked, noted in (
        ("2001:db8:1:ffff::1", True),
        ("2001:db8::/32", True),
        ("2001:db8:1:8::/64", True),
        ("2001:db8:2::1", False),
    ):
        assert ("feed crowded" in run("query", asked)[1]) == noted, asked


def test_prefixes_that_are_known_to_be_full_are_bounded() -> None:
    full = FullPrefixes()
    day = date(2026, 11, 25)
    full.add(PrefixDay(f"2001:db8:{n:x}::/48", 48, day) for n in range(_FULL_MAX + 10))
    assert len(full.of_length(48)) == _FULL_MAX
    assert PrefixDay("2001:db8:0::/48", 48, day) not in full, "the oldest are learned again"
