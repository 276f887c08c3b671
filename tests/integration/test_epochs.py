"""Epochs of a sensor's account: a purge removes exactly the reports of a stolen account.

The first test is the promise itself: histories of batches, replays, rotations, compactions and
purges at random, each against a simulation that never saw the batches of the purged epochs.
"""

from __future__ import annotations

import json
import threading
import uuid
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime
from ipaddress import IPv6Network
from typing import Any

import pytest
from click.testing import CliRunner, Result
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ingest_support import DAY_MS, HOUR_MS, Table, data, greet, made_batch, now_ms
from ingest_support.fixtures import connection, dsn, table  # noqa: F401 - fixtures
from ingest_support.storing import RETENTION, apply, ingest_store
from smtpfeeds_aggregator.store.bounds import Bounds
from smtpfeeds_aggregator.store.connection import Connection
from smtpfeeds_aggregator.store.epochs import EpochStore
from smtpfeeds_aggregator.store.fleet import FleetStore
from smtpfeeds_aggregator.store.ingest import IngestStore
from smtpfeeds_aggregator.store.maintenance import MaintenanceStore
from smtpfeeds_aggregator.store.purge import Part, Purged, PurgeStore, part_of_epoch
from smtpfeeds_aggregator.store.rows import enrolment_of
from smtpfeeds_common.cli import main
from smtpfeeds_common.errors import DatabaseUnavailable
from smtpfeeds_common.wire import Batch, HourCount, Observation, PrefixOverflow

# ruff: noqa: F811 - fixtures are imported by name and used by name

#: Noon of yesterday: no time below is on another day, so each address is new on one day.
NOON_MS = (now_ms() // DAY_MS) * DAY_MS - DAY_MS // 2
SENSORS = ("honest", "stolen")
SPOOLS = {"honest": [uuid.uuid4()], "stolen": [uuid.uuid4(), uuid.uuid4()]}
ADDRESSES = ("0.0.0.0", "192.0.2.1", "192.0.2.2", "2001:db8::1", "2001:db8::2", "2001:db8:1::1")
FEEDS = ("smtpgreet", "smtpdata")
TABLES = (
    *("observation", "sighting", "activity", "prefix_overflow", "prefix_admission", "sensor"),
    *("spool", "applied_batch", "past_epoch", "spool_at_epoch_end"),
)


@pytest.fixture
def store(dsn: str) -> Iterator[IngestStore]:
    store = ingest_store(dsn, Bounds(one_in=1))
    yield store
    store.close()


# The simulation.


@dataclass
class Simulation:
    """The batches that were received and not purged, with their epochs."""

    epochs: dict[str, int] = field(default_factory=lambda: dict.fromkeys(SENSORS, 1))
    heard: dict[tuple[str, uuid.UUID, int], tuple[int, Batch]] = field(default_factory=dict)
    known: set[str] = field(default_factory=set)

    def apply(self, batch: Batch) -> None:
        self.known.add(batch.sensor)
        key = (batch.sensor, batch.spool, batch.seq)
        self.heard.setdefault(key, (self.epochs[batch.sensor], batch))

    def rotate(self, sensor: str) -> None:
        self.epochs[sensor] += 1

    def purge(self, sensor: str, epoch: int) -> None:
        self.heard = {
            key: (of, batch)
            for key, (of, batch) in self.heard.items()
            if (key[0], of) != (sensor, epoch)
        }

    def sightings(self) -> dict[tuple[str, str, str], list[int]]:
        """(address, feed, enrolment) → first, last, hits, flags, targets."""
        rows: dict[tuple[str, str, str], list[int]] = {}
        for epoch, batch in self.heard.values():
            name = enrolment_of(batch.sensor, epoch)
            for seen in batch.observations:
                values = [seen.first_ms, seen.last_ms, seen.hits, seen.flags, seen.targets]
                _merge(rows, (seen.ip, seen.feed, name), values)
                if seen.feed == "smtpdata":
                    _merge(rows, (seen.ip, "smtpgreet", name), [*values[:2], 0, 0, seen.targets])
        return rows

    def tables(self) -> dict[str, Any]:
        sightings = self.sightings()
        observations: dict[tuple[str, str], list[int]] = {}
        for (ip, feed, _), values in sightings.items():
            _merge(observations, (ip, feed), [*values[:4], 0])
        admissions: dict[str, int] = defaultdict(int)
        for ip, feed in observations:
            if feed == "smtpgreet" and ":" in ip:
                for length in (32, 48, 64):
                    admissions[str(IPv6Network((ip, length), strict=False))] += 1
        hours: dict[tuple[str, str], int] = defaultdict(int)
        overflows: dict[tuple[str, str], int] = defaultdict(int)
        applied: dict[tuple[str, uuid.UUID], set[int]] = defaultdict(set)
        for epoch, batch in self.heard.values():
            name = enrolment_of(batch.sensor, epoch)
            for hour in batch.hours:
                hours[hour.feed, name] += hour.events
            for row in batch.overflows:
                overflows[row.feed, name] += row.hits
            applied[batch.sensor, batch.spool].add(batch.seq)
        for _ in overflows:
            admissions["2001:db8:2::/48"] += 1
            admissions["2001:db8::/32"] += 1
        return {
            "observation": {key: values[:4] for key, values in observations.items()},
            "sighting": sightings,
            "activity": dict(hours),
            "prefix_overflow": dict(overflows),
            "prefix_admission": dict(admissions),
            "applied": dict(applied),
            "sensor": {sensor: self.epochs[sensor] for sensor in self.known},
        }


def _merge(rows: dict[Any, list[int]], key: Any, new: list[int]) -> None:
    old = rows.get(key)
    rows[key] = list(new)
    if old is not None:
        sums = [old[2] + new[2], old[3] | new[3], old[4] | new[4]]
        rows[key] = [min(old[0], new[0]), max(old[1], new[1]), *sums]


def tables_of(table: Table) -> dict[str, Any]:
    """Read the same tables from the database."""

    def ms(time: datetime) -> int:
        return round(time.timestamp() * 1000)

    applied: dict[tuple[str, uuid.UUID], set[int]] = defaultdict(set)
    for sensor, spool, seq in table(
        "SELECT s.sensor, s.uuid, n FROM spool s, unnest(s.applied) r,"
        " generate_series(lower(r), upper(r) - 1) n UNION ALL"
        " SELECT s.sensor, s.uuid, a.seq FROM applied_batch a JOIN spool s ON s.id = a.spool"
    ):
        assert seq not in applied[sensor, spool]
        applied[sensor, spool].add(seq)
    return {
        "observation": {
            (row[0], row[1]): [ms(row[2]), ms(row[3]), *row[4:]]
            for row in table(
                "SELECT host(ip), feed, first_seen, last_seen, hits, flags FROM observation"
            )
        },
        "sighting": {
            row[:3]: [ms(row[3]), ms(row[4]), *row[5:]]
            for row in table(
                "SELECT host(ip), feed, sensor, first_seen, last_seen, hits, flags, targets"
                " FROM sighting"
            )
        },
        "activity": {row[:2]: row[2] for row in table("SELECT feed, sensor, events FROM activity")},
        "prefix_overflow": {
            row[:2]: row[2] for row in table("SELECT feed, sensor, hits FROM prefix_overflow")
        },
        "prefix_admission": dict(table("SELECT text(prefix), addresses FROM prefix_admission")),
        "applied": dict(applied),
        "sensor": dict(table("SELECT name, epoch FROM sensor")),
    }


# Histories.

times = st.integers(0, 100).map(lambda n: NOON_MS + n * 1000)


@st.composite
def observations(draw: st.DrawFn) -> Observation:
    first, last = sorted((draw(times), draw(times)))
    counts = [draw(st.integers(1, 5)), draw(st.integers(0, 7)), draw(st.integers(0, 7))]
    return Observation(
        draw(st.sampled_from(FEEDS)), draw(st.sampled_from(ADDRESSES)), first, last, *counts
    )


@st.composite
def batches(draw: st.DrawFn) -> Batch:
    sensor = draw(st.sampled_from(SENSORS))
    feed = st.sampled_from(FEEDS)
    return made_batch(
        *draw(st.lists(observations(), max_size=4)),
        sensor=sensor,
        spool=draw(st.sampled_from(SPOOLS[sensor])),
        # Few numbers, so that replays and thieves use numbers that the sensor uses later.
        seq=draw(st.integers(1, 3)),
        hours=draw(
            st.lists(st.builds(HourCount, feed, st.just(NOON_MS), st.integers(1, 9)), max_size=2)
        ),
        overflows=draw(
            st.lists(
                st.builds(
                    PrefixOverflow,
                    feed,
                    st.just("2001:db8:2::/64"),
                    st.just(NOON_MS),
                    st.just(NOON_MS),
                    st.integers(1, 9),
                ),
                max_size=1,
            )
        ),
    )


steps = st.lists(
    st.one_of(
        batches(),
        # Mostly one account, so that rotation, purge and replay meet.
        st.tuples(st.just("rotate"), st.sampled_from(("stolen", "stolen", "honest"))),
        st.tuples(
            st.just("purge"), st.sampled_from(("stolen", "stolen", "honest")), st.integers(1, 4)
        ),
        st.just(("compact",)),
    ),
    min_size=10,
    max_size=40,
)


@given(steps=steps)
@settings(
    max_examples=60,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
def test_purged_database_equals_one_without_the_batches_of_those_epochs(
    connection: Connection, store: IngestStore, table: Table, steps: list[Any]
) -> None:
    table.run(f"TRUNCATE {', '.join(TABLES)}")
    keeper = MaintenanceStore(connection, retention=RETENTION)
    simulation = Simulation()
    for step in steps:
        if isinstance(step, Batch):
            apply(store, step)
            simulation.apply(step)
        elif step[0] == "compact":
            keeper.compact(batches=1, spools=100)
        elif step[0] == "rotate" and step[1] in simulation.known:
            EpochStore(connection).rotate(step[1])
            simulation.rotate(step[1])
        elif step[0] == "purge" and step[2] < simulation.epochs[step[1]]:
            PurgeStore(connection).purge(part_of_epoch(*step[1:]))
            simulation.purge(*step[1:])
    expected = simulation.tables()
    for name, rows in tables_of(table).items():
        assert rows == expected[name], name


# Single promises.


def run(dsn: str, *arguments: str, **more: Any) -> Result:
    return CliRunner().invoke(main, [*arguments, "--dsn", dsn], **more)


def test_batch_that_was_purged_counts_when_the_sensor_sends_it_again(
    dsn: str, store: IngestStore, table: Table
) -> None:
    """`sensor replay` brings the honest part of a stolen epoch's last day back."""
    honest = made_batch(greet("192.0.2.1", hits=3), sensor="s1", seq=1)
    stolen = made_batch(greet("192.0.2.1", hits=50), sensor="s1", spool=honest.spool, seq=2)
    apply(store, honest, stolen)
    assert run(dsn, "sensors", "rotate", "s1").exit_code == 0
    assert not apply(store, honest).fresh, "until the purge it is recognised"
    result = run(dsn, "sensors", "purge", "s1", "--epoch", "1", "--yes")
    assert "1 addresses rebuilt, 1 sightings deleted" in result.stdout, result.output
    assert table.hits() == {}
    assert apply(store, honest).fresh
    assert not apply(store, honest).fresh
    second = made_batch(greet("192.0.2.2"), sensor="s1", spool=honest.spool, seq=2)
    assert apply(store, second).fresh, "the number that the thief took is the sensor's again"
    again = run(dsn, "sensors", "purge", "s1", "--epoch", "1", "--yes")
    assert "0 addresses rebuilt" in again.stdout
    assert not apply(store, honest, second).fresh, "what was counted since then stays counted"
    assert table.hits() == {("192.0.2.1", "smtpgreet"): 3, ("192.0.2.2", "smtpgreet"): 1}


def test_purge_restores_first_seen_and_last_seen_that_a_thief_changed(
    dsn: str, store: IngestStore, table: Table
) -> None:
    at = now_ms() - HOUR_MS
    apply(store, made_batch(greet("192.0.2.1", at), sensor="honest"))
    before = table.rows()
    lie = Observation("smtpgreet", "192.0.2.1", at - 5 * DAY_MS, at + HOUR_MS // 2, 9, 7)
    apply(store, made_batch(lie, greet("192.0.2.9"), sensor="stolen"))
    assert table.rows() != before
    run(dsn, "sensors", "rotate", "stolen")
    run(dsn, "sensors", "purge", "stolen", "--epoch", "1", "--yes")
    assert table.rows() == before


def test_rows_of_a_stolen_epoch_that_filled_a_prefix_leave_room_for_others(
    dsn: str, store: IngestStore, table: Table
) -> None:
    taken = [greet(f"2001:db8::{n:x}") for n in range(1, 65)]
    apply(store, made_batch(*taken, sensor="stolen"))
    assert apply(store, made_batch(greet("2001:db8::ffff"), sensor="honest")).overflowed == 1
    run(dsn, "sensors", "rotate", "stolen")
    run(dsn, "sensors", "purge", "stolen", "--epoch", "1", "--yes")
    assert table("SELECT * FROM prefix_admission WHERE masklen(prefix) = 64") == []
    assert apply(store, made_batch(greet("2001:db8::fffe"), sensor="honest")).overflowed == 0


def test_rotation_waits_for_running_transactions_and_excludes_batches_of_the_next_epoch(
    dsn: str, connection: Connection, store: IngestStore, table: Table
) -> None:
    """Two workers write without pause while the account is rotated again and again."""
    apply(store, made_batch(sensor="s1"))
    stop = threading.Event()
    counts = [0, 0]

    def work(number: int) -> None:
        own = ingest_store(dsn)
        spool = uuid.uuid4()
        while not stop.is_set():
            counts[number] += 1
            seq = counts[number]
            hours = [HourCount("smtpgreet", now_ms(), 1)]
            apply(
                own, made_batch(greet("192.0.2.1"), sensor="s1", spool=spool, seq=seq, hours=hours)
            )
        own.close()

    workers = [threading.Thread(target=work, args=(number,)) for number in range(2)]
    for worker in workers:
        worker.start()
    try:
        for _ in range(10):
            EpochStore(connection).rotate("s1")
    finally:
        stop.set()
        for worker in workers:
            worker.join(60)
    assert table.hits() == {("192.0.2.1", "smtpgreet"): sum(counts)}
    hits = dict(table("SELECT sensor, hits FROM sighting"))
    assert hits == dict(table("SELECT sensor, sum(events)::bigint FROM activity GROUP BY 1"))
    for epoch in range(1, 11):
        PurgeStore(connection).purge(part_of_epoch("s1", epoch))
    left = hits.get("s1@11", 0)
    assert sum(table.hits().values()) == left
    applied = tables_of(table)["applied"]
    assert sum(len(seqs) for seqs in applied.values()) == left


def test_sensor_with_several_epochs_counts_once_in_queries_and_feeds(
    dsn: str, store: IngestStore, connection: Connection
) -> None:
    """It never has more targets than addresses, for any bits that it reports."""
    for bits in (0b1111, 0b11111, -1):
        hours = [HourCount("smtpgreet", now_ms(), 2)]
        rows = greet("8.8.8.8", targets=bits), data("8.8.8.8", targets=1)
        apply(store, made_batch(*rows, sensor="s1", hours=hours))
        run(dsn, "sensors", "rotate", "s1")
    # It reports its number of addresses in its next epoch, and the other sensor none.
    apply(store, made_batch(greet("8.8.8.9", targets=1), sensor="s1", addresses=2))
    apply(store, made_batch(greet("8.8.8.8", targets=0b101), sensor="s2"))
    (state, _) = json.loads(run(dsn, "sensors", "--json").stdout)
    assert (state["sensor"], state["epoch"], state["events"]) == ("s1", 4, 6)
    for command in (("query", "8.8.8.8"), ("feed", "show", "smtpgreet")):
        answer = run(dsn, *command, "--json")
        assert answer.exit_code == 0, answer.output
        rows = json.loads(answer.stdout)
        counted = {
            row["category"]: (row["sensors"], row["targets"], row["ipaddr"])
            for row in rows
            if row["ipaddr"] == "8.8.8.8"
        }
        # Four lie in the step that begins at three.
        targets = 4 if command[0] == "query" else 3
        assert counted["smtpgreet"] == (2, targets, "8.8.8.8"), command
        assert counted.get("smtpdata", (1, 1, "8.8.8.8")) == (1, 1, "8.8.8.8"), command
    counts = "targets_count(-1, 0), targets_count(7, 2), targets_count(7, 4), targets_count(0, 4)"
    assert connection.execute(f"SELECT {counts}".encode()).fetchone() == (64, 2, 3, 0)
    card = run(dsn, "query", "8.8.8.8").stdout
    assert "s1: 3 greet, 3 data, at 2 of its 2 addresses lately" in card
    assert "s2: 1 greet, at 2 addresses lately" in card


def test_epochs_are_listed_with_their_times(dsn: str, store: IngestStore) -> None:
    apply(store, made_batch(sensor="s1", version="0.2.0"))
    assert run(dsn, "sensors", "rotate", "s1").stdout == (
        "s1: epoch 2 begins; what was heard before is in epoch 1\n"
    )
    run(dsn, "sensors", "rotate", "s1")
    run(dsn, "sensors", "purge", "s1", "--epoch", "1", "--yes")
    first, second, third = json.loads(run(dsn, "sensors", "epochs", "s1", "--json").stdout)
    assert [epoch["epoch"] for epoch in (first, second, third)] == [1, 2, 3]
    assert first["ended_at"] == second["began_at"]
    assert first["purged_at"] is not None
    assert (second["purged_at"], third["ended_at"]) == (None, None)
    (state,) = json.loads(run(dsn, "sensors", "--json").stdout)
    assert (state["version"], state["last_heard"]) == (None, None), "heard of again"


def test_database_without_a_forgotten_sensor_equals_one_that_never_had_it(
    dsn: str, store: IngestStore, table: Table
) -> None:
    """This holds for all its epochs; reports of other sensors on the same addresses stay."""
    hours = [HourCount("smtpgreet", NOON_MS, 2)]
    overflows = [PrefixOverflow("smtpgreet", "2001:db8:2::/64", NOON_MS, NOON_MS, 4)]
    honest = made_batch(
        greet("192.0.2.1", NOON_MS), sensor="honest", spool=SPOOLS["honest"][0], hours=hours
    )
    apply(store, honest)
    before = tables_of(table)
    for number, address in enumerate(("192.0.2.1", "192.0.2.2", "2001:db8::1"), 1):
        row = greet(address, NOON_MS, hits=9)
        spool = SPOOLS["stolen"][0]
        batch = made_batch(
            row, sensor="stolen", spool=spool, seq=number, hours=hours, overflows=overflows
        )
        apply(store, batch)
        run(dsn, "sensors", "rotate", "stolen")
    apply(store, made_batch(data("192.0.2.3", NOON_MS), sensor="stolen"))
    table.run(
        "INSERT INTO refusal (account, hour, reason, messages, octets, kept, kept_octets, detail)"
        " VALUES ('stolen', now(), 'not_a_batch', 4, 400, 0, 0, '')"
    )
    refused = run(dsn, "sensors", "forget", "stolen", "--yes")
    assert "was heard less than three minutes ago" in refused.stderr
    table.run("UPDATE sensor SET heard_at = now() - interval '1 hour' WHERE name = 'stolen'")
    done = run(dsn, "sensors", "forget", "stolen", "--yes")
    assert done.exit_code == 0, done.output
    assert "stolen is forgotten: 4 addresses rebuilt, 5 sightings deleted" in done.stdout
    assert tables_of(table) == before
    for name in ("past_epoch", "spool_at_epoch_end", "sensor_overflow", "refusal", "flood"):
        assert table(f"SELECT * FROM {name}") == [], name
    assert run(dsn, "sensors", "forget", "stolen", "--yes").exit_code == 1
    # A later sensor with that name is a new one.
    assert apply(store, made_batch(greet("192.0.2.2"), sensor="stolen")).new_sensors == ("stolen",)


def test_sensor_that_still_delivers_is_not_forgotten(
    dsn: str, connection: Connection, store: IngestStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    apply(store, made_batch(greet("192.0.2.1"), sensor="s1"))
    purge = PurgeStore.purge
    delivered = 0

    def purge_while_it_delivers(self: PurgeStore, part: Part) -> Purged:
        nonlocal delivered
        apply(store, made_batch(greet("192.0.2.2"), sensor="s1"))
        delivered += 1
        return purge(self, part)

    monkeypatch.setattr(PurgeStore, "purge", purge_while_it_delivers)
    with pytest.raises(DatabaseUnavailable, match="delivers while it is being forgotten"):
        FleetStore(connection).forget("s1")
    assert delivered >= 3
    monkeypatch.undo()
    FleetStore(connection).forget("s1")
    assert EpochStore(connection).epochs("s1") == []


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (("forget", "nobody"), 1, "no sensor 'nobody'"),
        (("rotate", "nobody"), 1, "no sensor 'nobody'"),
        (("epochs", "nobody"), 1, "no sensor 'nobody'"),
        (("purge", "nobody", "--epoch", "1"), 1, "no sensor 'nobody'"),
        (("purge", "s1", "--epoch", "1"), 2, "epoch 1 of s1 is not over"),
        (("purge", "s1", "--epoch", "7"), 2, "s1 is in epoch 1"),
        (("purge", "s1", "--epoch", "1", "--since", "1h"), 2, "either --epoch or --since"),
        (("purge", "s1"), 2, "either --epoch or --since"),
    ],
)
def test_rotation_or_purge_that_is_impossible_is_an_error_with_a_reason(
    dsn: str, store: IngestStore, arguments: tuple[str, ...], code: int, words: str
) -> None:
    apply(store, made_batch(sensor="s1"))
    result = run(dsn, "sensors", *arguments)
    assert (result.exit_code, words in result.stderr + str(result.exception)) == (code, True)
